"""What a data set of captions is: clips with the sentences that describe them, each in a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enclap.audio.read import Source
from enclap.errors import DataError
from enclap.text import printable
from enclap.types import Waveform

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "development": TRAIN,  # Clotho's name for what is trained on
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "eval": TEST,
    "evaluation": TEST,  # Clotho's name for its test
}
"""What data sets call their splits."""
FAULTS_SHOWN = 20
"""Faults that an error lists; of more it says how many there are."""


@dataclass(frozen=True, slots=True)
class CaptionedClip:
    """One clip of a data set.

    name: unique in the data set; random draws of a training are seeded by it. source: a file, the bytes of one, or
    audio that is nowhere in a file. captions: at least one sentence, the preferred one first. split: "train", or one
    that is kept apart. labels: the sounds by their labels, where the data set has them. table, line: where the data
    set names it, for messages.
    """

    name: str
    source: Path | bytes | Waveform
    captions: tuple[str, ...]
    split: str
    labels: tuple[str, ...] = ()
    table: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong with a data set, and where: the table or archive, and the line or entry in it, from 1."""

    table: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


class CaptionDataset(Protocol):
    """Clips with captions, in an order that is the same on every run.

    To add a data set, put one file into this folder with a class that yields `CaptionedClip`s, and name it in `open.py`
    where a user shall reach it by a path; extraction, training and evaluation take any of them. Check the whole list
    of clips in the constructor, and open no audio there. Give faults to `report`, so that they are told all at once.
    """

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def __iter__(self) -> Iterator[CaptionedClip]:
        """The clips."""
        ...


def in_split(dataset: CaptionDataset, split: str) -> list[CaptionedClip]:
    """The clips of one split, in their order."""
    return [clip for clip in dataset if clip.split == split]


def source_of(clip: CaptionedClip) -> Source:
    """What the captioner takes for a clip: its file, its bytes, or its samples with their rate."""
    return (clip.source.samples, clip.source.rate) if isinstance(clip.source, Waveform) else clip.source


def common_split(name: str) -> str:
    """The name that a data set's split has here ("validation" for "val"); its own where it is none of the usual."""
    return SPLIT_NAMES.get(name.strip().lower(), name.strip())


def split_named(text: str) -> str:
    """The split that a name stands for ("val" for "validation"), by one of its words; "train" where none does."""
    words = re.split(r"[^a-z]+", text.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), TRAIN)


def report(faults: Sequence[Fault], collected: list[Fault] | None) -> None:
    """Add the faults to a list of those who ask for all at once; without one, raise a DataError that names them."""
    if collected is not None:
        collected.extend(faults)
    elif faults:
        raise DataError(describe_faults(faults))


def describe_faults(faults: Sequence[Fault], most: int = FAULTS_SHOWN) -> str:
    """One line that names the first `most` faults by table and line, and says how many more there are."""
    parts, table = [], None
    for fault in sorted(faults)[:most]:
        parts.append(f"{fault.table}: {fault}" if fault.table != table else str(fault))
        table = fault.table
    if len(faults) > most:
        parts.append(f"and {len(faults) - most} more faults")
    return printable("; ".join(parts))
