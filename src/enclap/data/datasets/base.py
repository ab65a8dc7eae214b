"""What a data set of captions is: clips with the sentences that describe them, each in a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enclap.types import Waveform

TRAIN = "train"


@dataclass(frozen=True, slots=True)
class CaptionedClip:
    """One clip of a data set.

    name: unique in the data set; random draws of a training are seeded by it. source: a file, or audio that is nowhere
    in a file. captions: at least one sentence, the preferred one first. split: "train", or one that is kept apart.
    labels: the sounds by their labels, where the data set has them.
    """

    name: str
    source: Path | Waveform
    captions: tuple[str, ...]
    split: str
    labels: tuple[str, ...] = ()


class CaptionDataset(Protocol):
    """Clips with captions, in an order that is the same on every run.

    To add a data set, put one file into this folder with a class that yields `CaptionedClip`s; extraction, training and
    evaluation take any of them. Check the whole list of clips in the constructor, and raise one DataError that names
    all faults with their lines; open no audio there.
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
