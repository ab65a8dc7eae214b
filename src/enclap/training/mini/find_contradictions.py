"""Lists the recordings whose labels the teachers contradict: `python -m enclap.training.mini.find_contradictions`.

mn04_as' opinions are those of the stage `opinions`; YAMNet and aiSFX are asked about what it contradicts. The list is
written beside the recipes (`contradicted.csv`); decisions that stand there already stay.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import Recording
from enclap.errors import EnclapError
from enclap.training.mini.context import TEACHERS, MiniRun
from enclap.training.mini.contradictions import (
    Contradiction,
    may_be_mended,
    read_contradictions,
    write_contradictions,
)
from enclap.training.mini.opinions import alike, class_labels, read_opinions
from enclap.training.teachers import aisfx, yamnet
from enclap.training.teachers.weights import load_aisfx, load_yamnet, yamnet_classes
from enclap.types import FloatArray

logger = logging.getLogger(__name__)

CERTAIN, SUSPECTED = 0.5, 0.03
"""A recording is contradicted where the teacher is certain of something else, and suspects nothing like its label."""
NAMED = 3
"""Names that a teacher's opinion lists."""
HEARD = 2.5
"""Seconds that aiSFX, the slowest, hears of each recording."""
VAGUE_CLASSES = (
    "Music",
    "Musical instrument",
    "Percussion",
    "Drum",
    "Drum machine",
    "Electronic music",
    "Synthesizer",
    "Effects unit",
    "Sound effect",
    "Animal",
    "Vehicle",
    "Mechanisms",
)
"""Classes that mn04_as gives to any single hit or tone; they contradict nothing."""


@cache
def class_names() -> tuple[str, ...]:
    """AudioSet's names of the classes, in mn04_as' order."""
    table = resources.files("enclap.data.synthetic").joinpath("audioset.csv").read_text(encoding="utf-8")
    return tuple(row["display_name"] for row in csv.DictReader(table.splitlines()))


def is_contradicted(recording: Recording, probabilities: NDArray[np.float16]) -> bool:
    """Whether mn04_as, with probabilities [windows, 527], is certain of what is no label of the recording's, nor alike.

    What it suspects in any window counts for the labels, the mean over all windows against them.
    """
    values = probabilities.astype(np.float32)
    said = np.array([bool(label) for label in class_labels()])
    suspected = [class_labels()[index] for index in np.flatnonzero((values.max(axis=0) > SUSPECTED) & said)]
    if any(alike(label, own) for label in suspected for own in recording.labels):
        return False
    clear = said & ~np.isin(class_names(), VAGUE_CLASSES)
    return bool((values.mean(axis=0)[clear] >= CERTAIN).any())


def best_names(names: Sequence[str], values: FloatArray) -> dict[str, float]:
    """The names with the largest of the values [N], each once, best first."""
    order = np.argsort(-values, kind="stable")
    found: dict[str, float] = {}
    for index in order:
        found.setdefault(names[index], float(values[index]))
        if len(found) == NAMED:
            break
    return found


def as_text(opinion: Mapping[str, float]) -> str:
    """An opinion as "Rain 0.93; Wind 0.10"."""
    return "; ".join(f"{name} {value:.2f}" for name, value in opinion.items())


class YamNetOpinion:
    """What YAMNet says of a file. teachers: the folder of weights."""

    def __init__(self, teachers: Path) -> None:
        self._network, self._front_end = load_yamnet(teachers), yamnet.YamNetFrontEnd()
        self._names = yamnet_classes(teachers)

    @torch.inference_mode()
    def __call__(self, path: Path) -> dict[str, float]:
        """Its best classes with their mean probabilities over the first ten seconds."""
        samples = resample(read_audio(path), yamnet.RATE)[: 10 * yamnet.RATE]
        patches = self._front_end(torch.from_numpy(samples)[None])[0]
        return best_names(self._names, torch.sigmoid(self._network(patches)).mean(dim=0).numpy())


class AiSfxOpinion:
    """What aiSFX says of a file: the labels of the recordings that it finds nearest.

    recordings: those it may find, in a folder. Their embeddings are computed once, into `cache`.
    """

    def __init__(self, teachers: Path, folder: Path, recordings: Sequence[Recording], cache: Path) -> None:
        self._network, self._front_end = load_aisfx(teachers), aisfx.AiSfxFrontEnd()
        self._folder, self._recordings = folder, recordings
        paths = [recording.path for recording in recordings]
        if not cache.exists() or np.load(cache)["paths"].tolist() != paths:
            np.savez(cache, paths=paths, vectors=np.stack([self._embed(folder / path) for path in paths]))
        self._vectors = np.load(cache)["vectors"]

    def __call__(self, path: Path) -> dict[str, float]:
        """The labels of the nearest recordings that are not of the same original, with their cosines."""
        own = next((item.recording for item in self._recordings if self._folder / item.path == path), None)
        cosines = self._vectors @ self._embed(path)
        cosines[[item.recording == own for item in self._recordings]] = -1.0
        return best_names([item.label for item in self._recordings], cosines)

    @torch.inference_mode()
    def _embed(self, path: Path) -> FloatArray:
        """A unit vector [512] of a file's first seconds."""
        samples = resample(read_audio(path), aisfx.RATE)[: int(HEARD * aisfx.RATE)]
        vector: FloatArray = self._network(self._front_end(torch.from_numpy(samples)[None])[0]).mean(dim=0).numpy()
        return vector / np.float32(np.linalg.norm(vector))


def find_contradictions(run: MiniRun) -> list[Contradiction]:
    """The list as it should stand, rows in the order of the manifest; the decisions are those that stand already."""
    decided, training = read_contradictions(run.recipes), [r for r in run.collection if may_be_mended(r)]
    pairs = zip(run.collection, read_opinions(run), strict=True)
    doubtful = [(item, said) for item, said in pairs if may_be_mended(item) and is_contradicted(item, said)]
    logger.info("mn04_as contradicts %d of %d recordings", len(doubtful), len(training))
    if not doubtful:
        return []
    cache = run.output / "opinions" / "aisfx.npz"
    second, third = YamNetOpinion(run.teachers), AiSfxOpinion(run.teachers, run.recordings, training, cache)
    rows = []
    for item, said in doubtful:
        path, labels = run.recordings / item.path, "; ".join(item.labels)
        first = best_names(class_names(), said.astype(np.float32).mean(axis=0))
        row = Contradiction(item.path, labels, as_text(first), as_text(second(path)), as_text(third(path)))
        before = decided.get(item.path)
        if before is not None and before.labels == labels:
            row = replace(row, decision=before.decision, mended=before.mended, reason=before.reason)
        rows.append(row)
    return rows


def main(
    recordings: Annotated[Path, typer.Option(help="Folder that holds manifest.csv and the recordings.")],
    output: Annotated[Path, typer.Option(help="Folder of the training, whose stage `opinions` is done.")],
    recipes: Annotated[Path, typer.Option(help="Folder of the recipes; the list is written there.")] = Path(
        "recipes/mini"
    ),
    teachers: Annotated[Path, typer.Option(help="Folder of the teachers' weights.")] = TEACHERS,
) -> None:
    """List the recordings whose labels the teachers contradict."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = MiniRun(recordings, output, recipes, teachers)
    try:
        rows = find_contradictions(run)
        write_contradictions(recipes, rows)
    except EnclapError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    typer.echo(f"{len(rows)} recordings listed, {sum(not row.decision for row in rows)} without a decision")


if __name__ == "__main__":
    typer.run(main)
