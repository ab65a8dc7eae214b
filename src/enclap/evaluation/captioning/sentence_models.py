"""The two models of FENSE, run with transformers: sentences to embeddings, and captions to probabilities of an error.

Each is a folder, or a repository on the hub of which the first fetch is locked. Weights are safetensors; no code and no
pickle of a model folder is run or opened.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from enclap.errors import MissingExtra, ModelError
from enclap.files import is_folder
from enclap.hub.download import Repository, cached, fetch
from enclap.hub.layout import CONFIGURATION, TOKENIZER, WEIGHTS
from enclap.hub.resolve import HUB_ID
from enclap.text import first_line, printable
from enclap.types import FloatArray

SENTENCES_AT_ONCE = 64
MODULES, POOLING, SENTENCE_SETTINGS = "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"
"""What a folder of sentence-transformers holds beside the network."""
MEAN = "pooling_mode_mean_tokens"
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")
LONGEST_SENTENCE = 128  # tokens, where the folder does not say

HEAD, HEAD_WEIGHT, HEAD_BIAS = "head.safetensors", "weight", "bias"
"""The last layer of the fluency detector, beside its encoder in the same folder."""
LONGEST_CAPTION = 64  # tokens, as in FENSE's evaluator.py
NO_WORD = re.compile(r"[^\w\s]")
"""What FENSE removes from captions before it looks for errors (fense/data.py)."""
POOLER = "pooler."
"""Beginning of the weights that no model here uses, and that folders may lack."""


def find_sentence_model(name: str) -> Path:
    """The folder of a sentence model or fluency detector; ModelError when there is none or it cannot be fetched."""
    if is_folder(name):
        return Path(name)
    if not HUB_ID.fullmatch(name):
        raise ModelError(f"{printable(name)}: no such folder, and no name of a repository on the hub")
    optional = (TOKENIZER, "tokenizer_config.json", "vocab.txt", MODULES, POOLING, SENTENCE_SETTINGS, HEAD)
    repository = Repository(name, required=((CONFIGURATION,), (WEIGHTS,)), optional=optional)
    return (cached(repository) or fetch(repository)).folder


class TextEncoder:
    """A BERT-like network and its tokenizer, read from a folder: texts to the states of their tokens."""

    def __init__(self, folder: Path, longest: int) -> None:
        for extra in ("torch", "transformers"):
            if importlib.util.find_spec(extra) is None:
                raise MissingExtra("FENSE", "train")
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._longest = longest
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        with translated_faults(folder):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network, loaded = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        missing = [name for name in loaded["missing_keys"] if not name.startswith(POOLER)]
        if missing:
            raise ModelError(
                f"{printable(str(folder))}: {len(missing)} weights are missing, {sorted(missing)[0]} first"
            )
        self._network: Any = network.to(self.device).eval()

    def outputs(self, texts: Sequence[str], pool: Callable[[Any, Any], Any]) -> FloatArray:
        """What `pool` makes of each text, float32 [N, ...], in their order.

        pool: of the states [B, S, D] and the mask [B, S], 1 where there is a token. Texts of the same length go
        together, so that little is computed for nothing; the mask keeps a text's result free of its neighbours.
        """
        import torch

        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        parts = []
        for start in range(0, len(texts), SENTENCES_AT_ONCE):
            some = [texts[number] for number in order[start : start + SENTENCES_AT_ONCE]]
            batch = self._tokenizer(
                some, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                states = self._network(**batch).last_hidden_state
                parts.append(pool(states, batch["attention_mask"]).cpu().numpy())
        found = np.concatenate(parts)
        result = np.empty_like(found)
        result[order] = found
        return result


class SentenceModel:
    """A model of sentence-transformers with the mean over tokens as the sentence's embedding (arXiv 1908.10084)."""

    def __init__(self, folder: Path) -> None:
        longest = check_pooling(folder)
        self._encoder = TextEncoder(folder, longest)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, D], of unit length."""
        found = self._encoder.outputs(texts, mean_of_tokens)
        unit: FloatArray = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit


class FluencyDetector:
    """FENSE's detector of errors that captioning systems make: cut off, repeated, without verb or conjunction."""

    def __init__(self, folder: Path) -> None:
        if not (folder / HEAD).is_file():
            remedy = "make the folder from FENSE's checkpoint with `enclap metrics convert`"
            raise ModelError(f"{printable(str(folder))}: holds no {HEAD}; {remedy}")
        self._encoder = TextEncoder(folder, LONGEST_CAPTION)
        from safetensors.torch import load_file

        with translated_faults(folder):
            head = load_file(folder / HEAD)
            self._weight, self._bias = (head[name].to(self._encoder.device) for name in (HEAD_WEIGHT, HEAD_BIAS))

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """The probability of some error in each caption, float32 [N]; case and punctuation do not count."""

        def pool(states: Any, _: Any) -> Any:
            return (states[:, 0] @ self._weight.T + self._bias).sigmoid()[:, -1]  # the last class: any error

        return self._encoder.outputs([NO_WORD.sub("", text).lower() for text in texts], pool)


def mean_of_tokens(states: Any, mask: Any) -> Any:
    """The mean [B, D] of the states [B, S, D] of tokens that the mask [B, S] has."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def check_pooling(folder: Path) -> int:
    """The most tokens of a sentence; ModelError unless sentences are embedded as the mean over their tokens."""
    shown = printable(str(folder))
    with translated_faults(folder):
        pooling = json.loads((folder / POOLING).read_text(encoding="utf-8"))
        modules = json.loads((folder / MODULES).read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        settings = folder / SENTENCE_SETTINGS
        table = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        longest = int(table.get("max_seq_length") or LONGEST_SENTENCE)
        others = [name for name, value in pooling.items() if name.startswith("pooling_mode") and value and name != MEAN]
        is_mean = bool(pooling.get(MEAN)) and not others
    if not is_mean or not set(kinds) <= set(PLAIN_MODULES):
        raise ModelError(f"{shown}: makes its embeddings another way than by the mean over tokens; not supported")
    return longest


@contextmanager
def translated_faults(folder: Path) -> Iterator[None]:
    """Turns what the libraries raise over a folder that is damaged or incomplete into one line."""
    try:
        yield
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, safetensors an exception of its own
        raise ModelError(f"{printable(str(folder))}: not a model that can be read: {first_line(error)}") from error
