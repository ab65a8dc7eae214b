"""The collection of labelled recordings that mini learns from, with captions that the grammar makes of the labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from enclap.data.datasets.base import CaptionedClip
from enclap.data.recordings import read_manifest
from enclap.data.splits import split_of
from enclap.data.synthetic.grammar import SceneDescription, Sound, canonical, describe
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.errors import DataError


class RecordingsDataset:
    """The recordings of a folder with manifest.csv, each described by its main label.

    captions: at most so many different wordings of a clip, the preferred one first. Splits are those of
    `enclap.data.splits`. DataError when the manifest cannot be read, or has labels that the lexicon lacks.
    """

    def __init__(self, folder: Path, captions: int = 3) -> None:
        self._folder = folder
        self._captions = captions
        self._recordings = read_manifest(folder / "manifest.csv")
        unknown = sorted({item.label for item in self._recordings} - set(load_lexicon().entries))
        if unknown:
            raise DataError(f"{folder / 'manifest.csv'}: labels that the lexicon lacks: {', '.join(unknown)}")

    def __len__(self) -> int:
        return len(self._recordings)

    def __iter__(self) -> Iterator[CaptionedClip]:
        for number, recording in enumerate(self._recordings):
            scene = SceneDescription((Sound(recording.label, 0.0, recording.seconds),))
            generator = np.random.default_rng((number, self._captions))
            wordings = dict.fromkeys([canonical(scene), *(describe(scene, generator) for _ in range(self._captions))])
            yield CaptionedClip(
                name=recording.path,
                source=self._folder / recording.path,
                captions=tuple(wordings)[: self._captions],
                split=split_of(recording),
                labels=recording.labels,
            )
