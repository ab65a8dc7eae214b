"""Published weight files: tensors by name, opened without running anything that a file holds."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from enclap.errors import ModelError
from enclap.hub.official_release import WEIGHT_FILES
from enclap.text import first_line, printable

WRAPPERS = ("state_dict", "best_state")
"""Keys under which training programs put the tensors, beside losses and the like."""
GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
CLAP, CODEC, CAPTION, OURS = "clap", "codec", "caption", "ours"
MARKS = {
    OURS: ("bart.shared.",),
    CAPTION: ("model.encoder.embed_encodec.", "model.shared."),
    CLAP: ("audio_branch.", "audio_model."),
    CODEC: ("quantizer.",),
}
"""Beginnings of names that show what a file holds the weights of."""


class _Ignored:
    """Replaces numpy's scalars and their types, which checkpoints hold beside the tensors (a best loss, say).

    numpy's own would turn bytes from the file into objects; this one drops them.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


REPLACEMENTS = [
    (_Ignored, f"numpy.{name}")
    for name in ("core.multiarray.scalar", "_core.multiarray.scalar", "dtype", "dtypes.Float64DType")
]


def weights_in(source: Path) -> Path:
    """The weight file that `source` is or holds; ModelError when there is none."""
    if source.is_file():
        return source
    for name in WEIGHT_FILES:
        if (source / name).is_file():
            return source / name
    shown = printable(str(source))
    if not source.exists():
        raise ModelError(f"{shown}: no such file or folder")
    raise ModelError(f"{shown}: holds no weights; looked for {' and '.join(WEIGHT_FILES)}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from a safetensors or a PyTorch file.

    Names lose the "module." that training on several devices puts before them. ModelError when the file is damaged, or
    is a pickle that holds anything but tensors, numbers and texts.
    """
    shown = printable(str(path))
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{shown}: damaged or half a download ({first_line(error)}); fetch it again") from error
    content = unpickle_tensors(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ModelError(f"{shown}: holds a {type(content).__name__} where tensors by name are expected")
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(f"{shown}: not all of it is tensors: {', '.join(strange[:3])}")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def kind_of(tensors: Mapping[str, Tensor], shown: str) -> str:
    """Which model the tensors belong to: CAPTION, CLAP, CODEC or OURS; ModelError for any other."""
    for kind, marks in MARKS.items():
        if any(name.startswith(marks) for name in tensors):
            return kind
    examples = ", ".join(list(tensors)[:3]) or "no tensor at all"
    raise ModelError(f"{shown}: neither EnCLAP, CLAP nor EnCodec weights (it holds {examples})")


def unpickle_tensors(path: Path) -> Any:
    """What PyTorch's restricted reader makes of a file; nothing that is named in it is imported or called.

    ModelError when the file is damaged or names anything but tensors, numbers and texts.
    """
    shown = printable(str(path))
    try:
        with safe_globals(REPLACEMENTS):  # type: ignore[arg-type]  # pairs are documented, the annotation is older
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        culprit = GLOBAL.search(str(error))
        if culprit is None:
            raise ModelError(f"{shown}: not a PyTorch file, or a damaged one; fetch it again") from error
        held = f"it names {culprit[1]}, which could run code"
        raise ModelError(f"{shown}: holds more than tensors ({held}); it was not opened, do not trust it") from error
    except Exception as error:  # whatever a damaged archive makes of the reader
        raise ModelError(f"{shown}: damaged or half a download ({first_line(error)}); fetch it again") from error
