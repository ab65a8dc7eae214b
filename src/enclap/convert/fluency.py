"""FENSE's published detector of fluency errors to a folder that `enclap evaluate` reads, without a pickle in it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from enclap.convert.checkpoints import unpickle_tensors
from enclap.errors import ModelError
from enclap.files import is_folder, new_folder
from enclap.hub.download import Repository, cached, fetch
from enclap.hub.layout import CONFIGURATION, TOKENIZER
from enclap.text import first_line, printable

ENCODER, HEAD = "encoder.", "clf."
"""Beginnings of the checkpoint's names (FENSE, fense/model.py)."""
BUFFER = "embeddings.position_ids"
"""Which older versions of transformers stored, and newer ones compute."""
HEAD_FILE = "head.safetensors"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "vocab.txt")


def convert_fluency(checkpoint: Path, output: Path, encoder: str | None = None) -> None:
    """Write the new folder `output`: encoder, last layer and tokenizer of FENSE's checkpoint (.ckpt).

    encoder: the folder or repository of the BERT whose sizes and tokenizer it has; None for the one that the checkpoint
    names. Raises ModelError when the checkpoint is another, or does not fit the encoder.
    """
    shown = printable(str(checkpoint))
    content = unpickle_tensors(checkpoint)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(name.startswith(HEAD) for name in state):
        raise ModelError(f"{shown}: not a checkpoint of FENSE's fluency detector")
    head = {name.removeprefix(HEAD): tensor.contiguous() for name, tensor in state.items() if name.startswith(HEAD)}
    folder = encoder_folder(encoder or str(content.get("model_type")))
    network = encoder_network(folder, state, shown)
    with new_folder(output) as temporary:
        network.save_pretrained(temporary)
        save_file(head, temporary / HEAD_FILE)
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, temporary / name)


def encoder_folder(name: str) -> Path:
    """The folder of the encoder's configuration and tokenizer."""
    if is_folder(name):
        return Path(name)
    repository = Repository(name, required=((CONFIGURATION,), (TOKENIZER, "vocab.txt")), optional=TOKENIZER_FILES)
    return (cached(repository) or fetch(repository)).folder


def encoder_network(folder: Path, state: Mapping[str, Tensor], shown: str) -> Any:
    """The encoder with the checkpoint's weights."""
    weights = {name.removeprefix(ENCODER): tensor for name, tensor in state.items() if name.startswith(ENCODER)}
    weights.pop(BUFFER, None)
    try:
        network = AutoModel.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
        network.load_state_dict(weights)
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"{shown}: does not fit {printable(str(folder))}: {first_line(error)}") from error
    return network
