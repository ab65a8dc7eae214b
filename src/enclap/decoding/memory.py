"""What a model remembers of recordings: how they sound and what they are called, to recognise others by.

The retrieval of RECAP (arXiv 2309.09836) in CLAP's space: the names of recordings that sound alike draw a window's
embedding towards them. How they do, and what is proposed then, is ours; docs/decisions/0014 has the measurements.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from enclap.decoding.ranking import EMBEDDED_SPANS, unit, unit_spans
from enclap.errors import ModelError
from enclap.files import write_whole
from enclap.types import FloatArray

FILE_NAME = "memory.npz"
VERSION = 1
TEMPERATURE = 0.02
"""Of the softmax over cosines by which recordings count: those that are nearer by as much weigh e times as much."""
ALONE, IN_ROW = 4, 2
"""How many concepts are proposed for a whole window, and for each of its halves or for what is under another."""
SAME = 0.6
"""Concepts whose names have a higher cosine are not told together: one of them is heard."""
ROW, TOGETHER = "{}, and then {}", "{} while {}"
STEPS = 127
"""Values of an int8 on either side of zero."""


class Proposal(NamedTuple):
    """A sentence that the memory proposes, and the cosine of its concepts with the sound, of several the mean."""

    text: str
    nearness: float


@dataclass(frozen=True, eq=False)
class SoundMemory:
    """Recordings and concepts of a model whose embeddings have parts: of the whole window, then of its halves.

    sounds: float32 [N, D], unit length, the first part of the recordings' embeddings. concepts: int [N], what each is
    called, a row of the following. texts: float32 [M, E], unit length, the concepts in CLAP's space; E is
    EMBEDDED_SPANS times D. clauses, sentences: how a concept is said beside another, and alone.
    """

    sounds: FloatArray
    concepts: NDArray[np.int64]
    texts: FloatArray
    clauses: tuple[str, ...]
    sentences: tuple[str, ...]

    @cached_property
    def names(self) -> FloatArray:
        """Float32 [M, D], unit length: the first part of `texts`."""
        return unit(self.texts[:, : self.sounds.shape[1]])

    @cached_property
    def prototypes(self) -> FloatArray:
        """Float32 [M, D], unit length: how a concept sounds, the mean of its recordings; without any, its name."""
        sums = np.zeros_like(self.names)
        np.add.at(sums, self.concepts, self.sounds)
        return unit(np.where(sums.any(axis=1, keepdims=True), sums, self.names))

    def recall(self, embedding: FloatArray) -> FloatArray:
        """The embedding [E] of a window, drawn half of the way to the names of what sounds alike, part by part."""
        return unit(self._drawn(unit_spans(embedding)).reshape(-1))

    def proposals(self, embedding: FloatArray, recalled: FloatArray, changes: bool) -> list[Proposal]:
        """What a window may hold: the concepts that are nearest to it, each alone, and where it changes two of them.

        embedding, recalled: its embedding [E], and what `recall` makes of it. changes: whether its halves differ, so
        that sounds follow each other, or one is under another.
        """
        likeness = self.texts @ recalled
        found = [Proposal(self.sentences[place], float(likeness[place])) for place in nearest(likeness, ALONE)]
        if changes:
            parts = unit_spans(recalled)
            found += [*self.in_row(parts), *self.together(unit_spans(embedding)[0], parts[0])]
        return found

    def in_row(self, parts: FloatArray) -> Iterator[Proposal]:
        """Two concepts one after the other, from what the halves are nearest to."""
        halves = [self.names @ part for part in parts[1:]]
        for places in itertools.product(*(nearest(half, IN_ROW) for half in halves)):
            if len(set(places)) == len(places):
                yield self._told(ROW, places, [half[place] for half, place in zip(halves, places, strict=True)])

    def together(self, heard: FloatArray, recalled: FloatArray) -> Iterator[Proposal]:
        """Two concepts at once: the nearest one, and what is nearest to the rest when its sound is taken away.

        The step of matching pursuit (Mallat and Zhang, 1993). heard, recalled: [D], of the whole window.
        """
        likeness = self.names @ recalled
        [first] = nearest(likeness, 1)
        sound = self.prototypes[first]
        rest = self.names @ self._drawn(unit(heard - (heard @ sound) * sound)[None])[0]
        for second in nearest(rest, IN_ROW):
            if self.names[first] @ self.names[second] < SAME:
                yield self._told(TOGETHER, (first, second), [likeness[first], rest[second]])

    def _told(self, joint: str, places: Sequence[int], cosines: Sequence[float]) -> Proposal:
        text = joint.format(*(self.clauses[place] for place in places))
        return Proposal(f"{text[:1].upper()}{text[1:]}.", float(np.mean(cosines)))

    def _drawn(self, parts: FloatArray) -> FloatArray:
        """The parts [P, D], each drawn to the names of the recordings that sound like it."""
        likeness = parts @ self.sounds.T  # [P, N]
        weights = np.exp((likeness - likeness.max(axis=1, keepdims=True)) / np.float32(TEMPERATURE))
        count = len(self.names)  # summed by concepts first: there are fewer of them than recordings
        named = np.stack([np.bincount(self.concepts, row, count).astype(np.float32) for row in weights]) @ self.names
        return unit(parts + unit(named))

    @classmethod
    def read(cls, folder: Path) -> SoundMemory | None:
        """The memory in a model folder, None where there is none; ModelError when it cannot be read."""
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                if int(data["version"]) != VERSION:
                    raise ValueError(f"version {int(data['version'])}, this enclap reads {VERSION}")
                said = json.loads(data["said"].tobytes())
                memory = cls(
                    unit(data["sounds"].astype(np.float32)),
                    data["concepts"].astype(np.int64),
                    unit(data["texts"].astype(np.float32)),
                    tuple(said["clauses"]),
                    tuple(said["sentences"]),
                )
                memory.check()
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ModelError(
                f"{path}: not a memory that this enclap reads ({' '.join(str(error).split())[:200]})"
            ) from error
        return memory

    def check(self) -> None:
        """Raises ValueError where the parts do not fit each other."""
        concepts, width = len(self.texts), self.sounds.shape[1]
        fits = len(self.sounds) == len(self.concepts) > 0 and self.texts.shape[1] == EMBEDDED_SPANS * width
        if not fits or {len(self.clauses), len(self.sentences)} != {concepts}:
            raise ValueError("its parts do not fit each other")
        if self.concepts.min() < 0 or self.concepts.max() >= concepts:
            raise ValueError("it names concepts that it does not have")

    def write(self, folder: Path) -> None:
        """Write it into a model folder; embeddings as int8, whose rounding moves no cosine by more than 0.01."""
        content = io.BytesIO()
        said = json.dumps({"clauses": self.clauses, "sentences": self.sentences}).encode()
        np.savez_compressed(
            content,
            version=np.int64(VERSION),
            sounds=rounded(self.sounds),
            concepts=self.concepts.astype(np.int16),
            texts=rounded(self.texts),
            said=np.frombuffer(said, np.uint8),
        )
        write_whole(folder / FILE_NAME, content.getvalue())


def nearest(likeness: FloatArray, count: int) -> list[int]:
    """The places of the `count` highest of the cosines [M], highest first; of equals the one that stands first."""
    return [int(place) for place in np.argsort(-likeness, kind="stable")[:count]]


def rounded(vectors: FloatArray) -> NDArray[np.int8]:
    """Int8 [N, D]: the direction of each vector, its largest number 127."""
    steps: NDArray[np.int8] = np.round(vectors * (STEPS / np.abs(vectors).max(axis=1, keepdims=True))).astype(np.int8)
    return steps
