"""Networks from the folders of a model: safetensors alone, every tensor of the network and none beside."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from enclap.errors import ModelError
from enclap.model.captioner import EnclapForConditionalGeneration
from enclap.text import first_line, printable

ONE_AT_A_TIME = threading.Lock()
"""Held while transformers loads a network: it takes `tie_weights` off the class, and puts back what it found there."""
MAX_NAMED = 8
"""Tensors that an error names of each kind before it only counts."""


def load_caption_model(folder: Path) -> EnclapForConditionalGeneration:
    """The caption model in `folder`, float32, in evaluation mode; ModelError when it cannot be loaded."""
    model = load_pretrained(EnclapForConditionalGeneration, folder, "the caption model")
    return cast(EnclapForConditionalGeneration, model.eval())


def load_pretrained(kind: Any, folder: Path, what: str) -> Any:
    """A network of transformers' class `kind` from `folder`, in float32; what: its name in errors.

    transformers itself would open a pickle where the safetensors are missing, and fill a missing tensor with random
    numbers. ModelError when the files cannot be read, or hold other tensors than their configuration asks for.
    """
    try:
        with ONE_AT_A_TIME:
            model, report = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the report
            )
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged file makes of the readers below
        raise ModelError(f"{printable(str(folder))}: {what} cannot be loaded ({first_line(error)})") from error
    reshaped = [f"{name} {list(stored)}" for name, stored, _ in sorted(report["mismatched_keys"])]
    faults = list_faults(
        {
            "missing": sorted(report["missing_keys"]),
            "left over": sorted(report["unexpected_keys"]),
            "of another shape": reshaped,
        }
    )
    if faults:
        reason = f"the weights of {what} do not fit its config.json ({faults})"
        raise ModelError(f"{printable(str(folder))}: {reason}; fetch or export the model again")
    return model


def list_faults(faults: Mapping[str, Iterable[str]]) -> str:
    """What is wrong with which tensors, in one line; empty when nothing is. faults: tensors by kind of fault."""
    parts = []
    for fault, tensors in faults.items():
        names = list(tensors)
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        if names:
            parts.append(f"{fault}: {', '.join(names[:MAX_NAMED])}{more}")
    return "; ".join(parts)
