"""What a training starts from: a BART with new parts for sound, or a caption model that is there already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from enclap.convert.checkpoints import read_tensors, weights_in
from enclap.convert.published_sizes import DEFAULT_GENERATION
from enclap.data.feature_store import StoreHeader, fingerprint
from enclap.errors import DataError, ModelError, UsageError
from enclap.hub.download import Repository, fetch
from enclap.hub.layout import CONFIGURATION, GENERATION, MODEL_TYPE, SPECIAL_TOKENS, TOKENIZER, WEIGHTS, read_json
from enclap.hub.model_folder import read_tokenizer
from enclap.hub.resolve import HUB_ID, find_model
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.loading import list_faults, load_caption_model
from enclap.text import printable

BART_FILES = ((CONFIGURATION,), (TOKENIZER,), (WEIGHTS, "pytorch_model.bin"))
NEW_PARTS = ("clap_projection.", "frame_embedding.", "mcm_heads.", "final_logits_bias")
"""What BART has not and EnCLAP learns from random weights."""
TIED = ("lm_head.weight", "bart.encoder.embed_tokens.weight", "bart.decoder.embed_tokens.weight")
BART_FIELDS = (
    "vocab_size",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_position_embeddings",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "activation_function",
    "init_std",
    "scale_embedding",
)
"""What EnCLAP's configuration takes over from BART's."""


@dataclass(frozen=True, slots=True)
class Start:
    """A model to train, its tokenizer, and how it generates (the names of generation_config.json)."""

    model: EnclapForConditionalGeneration
    tokenizer: Tokenizer
    generation: dict[str, Any]


def start_from_model(name: str, header: StoreHeader) -> Start:
    """A caption model of this program, by the name or folder that `enclap caption --model` takes.

    DataError when it cannot read the features.
    """
    folder = find_model(name)
    model = load_caption_model(folder)
    config = model.config
    found = {
        "codebooks": (config.codebooks, header.codebooks),
        "entries": (config.codebook_entries, header.entries),
        "embedding": (config.clap_dim if config.use_clap else 0, header.embedding),
        "frames per second": (config.frame_rate, header.frame_rate),
    }
    differing = [f"{what} {ours}, features {theirs}" for what, (ours, theirs) in found.items() if ours != theirs]
    if differing:
        fault = f"the features are of another model ({'; '.join(differing)})"
        raise DataError(f"{printable(name)}: {fault}; extract them with `--model {printable(name)}`")
    return Start(model, fitting_tokenizer(folder, config.vocab_size), read_json(folder / GENERATION))


def start_from_bart(name: str, header: StoreHeader, seed: int) -> Start:
    """EnCLAP with the weights of a BART, from a folder or the hub, and random weights for what hears.

    ModelError when it is no BART, or its weights or tokenizer do not fit its configuration.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(name):
            remedy = "give a folder, or a name on the hub such as facebook/bart-base"
            raise ModelError(f"{printable(name)}: no such BART; {remedy}")
        folder = fetch(Repository(name, required=BART_FILES)).folder
    table = read_json(folder / CONFIGURATION)
    if table.get("model_type") != "bart":
        kind = f"a model of type {printable(str(table.get('model_type')))}"
        remedy = "start from a BART" if table.get("model_type") != MODEL_TYPE else "name it with --from"
        raise ModelError(f"{printable(name)}: {kind}; {remedy}")
    torch.manual_seed(seed)
    model = EnclapForConditionalGeneration(bart_config(table, header))
    fill_from_bart(model, read_tensors(weights_in(folder)), name)
    return Start(model, fitting_tokenizer(folder, model.config.vocab_size), dict(DEFAULT_GENERATION))


def bart_config(table: Mapping[str, Any], header: StoreHeader) -> EnclapConfig:
    """EnCLAP's configuration with BART's sizes, for features of a store."""
    return EnclapConfig(
        **{field: table[field] for field in BART_FIELDS if field in table},
        codebooks=header.codebooks,
        codebook_entries=header.entries,
        clap_dim=header.embedding or EnclapConfig().clap_dim,
        use_clap=header.embedding > 0,
        frame_rate=header.frame_rate,
    )


def fill_from_bart(model: EnclapForConditionalGeneration, tensors: Mapping[str, torch.Tensor], shown: str) -> None:
    """Put BART's tensors into the model; ModelError when one is missing or of another shape."""
    expected = model.state_dict()
    state = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("model.")
        target = bare if bare in ("lm_head.weight", "final_logits_bias") else f"bart.{bare}"
        if target in expected:
            state[target] = tensor
    known = {name for name in expected if not name.startswith(NEW_PARTS) and name not in TIED}
    faults = list_faults(
        {
            "missing": sorted(known - set(state)),
            "of another shape": sorted(n for n in state if state[n].shape != expected[n].shape),
        }
    )
    if faults:
        raise ModelError(f"{printable(shown)}: its weights do not fit its {CONFIGURATION} ({faults})")
    model.load_state_dict(state, strict=False)
    model.tie_weights()


def fitting_tokenizer(folder: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer in a folder; ModelError when its ids mean something else to a model of this vocabulary."""
    tokenizer, shown = read_tokenizer(folder / TOKENIZER), printable(str(folder / TOKENIZER))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    if ids != SPECIAL_TOKENS or tokenizer.get_vocab_size() > vocabulary:
        size, found = tokenizer.get_vocab_size(), json.dumps(ids)
        fault = f"{size} tokens with {found}, but the model has vectors for {vocabulary} and reads {SPECIAL_TOKENS}"
        raise ModelError(f"{shown}: the vocabulary does not fit: {fault}")
    return tokenizer


def require_encoders(folder: Path, header: StoreHeader) -> None:
    """Raises DataError unless the features are of the codec and CLAP in a model folder."""
    if fingerprint(folder) != header.encoders:
        fault = "the features were made by other encoders than those of this model"
        raise DataError(f"{printable(str(folder))}: {fault}; name theirs with --model, or extract again")


def require_captions(start: Start, captions: Sequence[Sequence[str]]) -> int:
    """The tokens of the longest caption; UsageError when one does not fit into the model's positions."""
    texts = [text for group in captions for text in group]
    lengths = [len(encoding.ids) for encoding in start.tokenizer.encode_batch(texts)]
    longest = max(range(len(texts)), key=lengths.__getitem__)
    most = start.model.config.max_position_embeddings
    if lengths[longest] > most:
        shown = printable(texts[longest][:60])
        raise UsageError(f"a caption of {lengths[longest]} tokens, the model holds {most}; shorten it: {shown}…")
    return lengths[longest]
