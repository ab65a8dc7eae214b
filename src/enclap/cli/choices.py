"""Values that options may take, kept here so that --help imports nothing that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from enclap.errors import UsageError
from enclap.text import printable

FORMAT_NAMES = ("text", "json", "jsonl", "csv", "tsv", "srt", "vtt")
"""The formats of `enclap.output.formats`."""


class EngineName(StrEnum):
    """The engines of `enclap.engines`."""

    auto = "auto"
    onnx = "onnx"
    torch = "torch"


class PrecisionName(StrEnum):
    """Numeric precisions that an engine may compute in."""

    float32 = "float32"
    int8 = "int8"
    bfloat16 = "bfloat16"


class RerankName(StrEnum):
    """What orders the candidates."""

    likelihood = "likelihood"
    clap = "clap"
    both = "both"


def chosen_formats(typed: Sequence[str]) -> tuple[str, ...]:
    """The formats of `--format text,json --format srt`, each once, in that order; UsageError names an unknown one."""
    names = [name.strip() for item in typed for name in item.split(",")]
    for name in names:
        if name not in FORMAT_NAMES:
            raise UsageError(f"--format {printable(name)}: not a format; choose from {', '.join(FORMAT_NAMES)}")
    return tuple(dict.fromkeys(names))


def complete_formats(incomplete: str) -> list[str]:
    """What a shell offers for `text,j`: text,json and text,jsonl."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in FORMAT_NAMES if name.startswith(last)]
