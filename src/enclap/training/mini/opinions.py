"""What a teacher says about every recording, and what follows from it: sounds that a recording holds beside its label.

The labels of a market, a street or a forest name the place; the teacher (mn04_as) names the voices, birds and cars in
it. On a short sound that stands alone its second guesses are mostly wrong, so they count in long ambience only.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray

from enclap.data.recordings import Corpus, Recording
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.hearing import mentions_family, mentions_label
from enclap.files import replacement_path
from enclap.training.mini.context import CORPUS_RATE, MiniRun
from enclap.training.recipe import Settings
from enclap.training.teachers.mobilenet import MobileNet, MobileNetFrontEnd
from enclap.training.teachers.weights import PinnedFile, load_mobilenet
from enclap.types import FloatArray

WINDOW = 10 * CORPUS_RATE
"""Samples that the teacher is given at once; shorter recordings are repeated, as the captioner's front end does."""
CERTAIN = 0.3
"""A companion's probability is at least so large in every window of the recording."""
LONG_ENOUGH = 8.0
"""Seconds of a recording that may have companions."""
MOST_COMPANIONS = 2
AMBIENCE = [
    "aircraft",
    "crowd",
    "engine",
    "fire",
    "household",
    "insect",
    "machine",
    "outdoors",
    "rain",
    "sea",
    "stream",
    "thunder",
    "traffic",
    "train",
    "wind",
]
"""Families of labels whose recordings are of places rather than of one thing."""
COMPANIONS = [
    "bird",
    "clapping",
    "crowd",
    "footsteps",
    "fowl",
    "insect",
    "laughter",
    "music",
    "rain",
    "sea",
    "singing",
    "speech",
    "stream",
    "thunder",
    "traffic",
    "wind",
]
"""Families of what the teacher is believed to recognise beside a label."""


class TeacherRecipe(Settings):
    """The file of the teacher's weights, as `PinnedFile` names its parts."""

    name: str
    origin: str
    sha256: str


def load_teacher(run: MiniRun) -> MobileNet:
    """The teacher that the recipe names, frozen; the errors of `enclap.training.teachers.weights.find_file`."""
    recipe = run.recipe(TeacherRecipe, "teacher")
    return load_mobilenet(run.teachers, PinnedFile(recipe.name, recipe.origin, recipe.sha256))


@cache
def class_labels() -> tuple[str, ...]:
    """The lexicon's label for each of AudioSet's classes, in the teacher's order; "" where nobody would say it."""
    table = resources.files("enclap.data.synthetic").joinpath("audioset.csv").read_text(encoding="utf-8")
    return tuple(row["label"] for row in csv.DictReader(table.splitlines()))


def write_opinions(run: MiniRun) -> None:
    """Write opinions/opinions.npz: `probabilities` float16 [windows, 527] and `starts` int64 [N + 1] by recording."""
    teacher, front_end = load_teacher(run), MobileNetFrontEnd()
    parts = [opinions_of(run.corpus, number, teacher, front_end) for number in range(len(run.corpus))]
    folder = run.output / "opinions"
    folder.mkdir(parents=True, exist_ok=True)
    with replacement_path(folder / "opinions.npz") as temporary, temporary.open("wb") as file:
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        np.savez(file, probabilities=np.concatenate(parts).astype(np.float16), starts=starts)


@torch.inference_mode()
def opinions_of(corpus: Corpus, number: int, teacher: MobileNet, front_end: MobileNetFrontEnd) -> FloatArray:
    """Probabilities float32 [windows, 527] of one recording; a rest of less than half a window is left out."""
    samples = corpus.audio(number)
    starts = range(0, max(1, len(samples) - WINDOW // 2), WINDOW)
    windows = np.stack([np.resize(samples[start : start + WINDOW], WINDOW) for start in starts])
    logits: FloatArray = torch.sigmoid(teacher(front_end(torch.from_numpy(windows)))).numpy()
    return logits


def read_opinions(run: MiniRun) -> list[NDArray[np.float16]]:
    """Probabilities [windows, 527] of each recording, as `write_opinions` wrote them."""
    with np.load(run.output / "opinions" / "opinions.npz") as data:
        return np.split(data["probabilities"], data["starts"][1:-1])


def find_companions(run: MiniRun) -> dict[int, tuple[str, ...]]:
    """Labels of what else sounds in the whole of a recording, by its number, for those where the teacher is certain."""
    found = {
        number: companions_of(recording, opinion.min(axis=0).astype(np.float32))
        for number, (recording, opinion) in enumerate(zip(run.corpus.recordings, read_opinions(run), strict=True))
        if recording.seconds >= LONG_ENOUGH and load_lexicon()[recording.label].family in AMBIENCE
    }
    return {number: labels for number, labels in found.items() if labels}


def companions_of(recording: Recording, probabilities: NDArray[np.float32]) -> tuple[str, ...]:
    """At most two labels of other families than the recording's own, the most probable first."""
    lexicon, taken = load_lexicon(), set(recording.labels)
    chosen: list[str] = []
    for index in np.argsort(-probabilities):
        label = class_labels()[index]
        if probabilities[index] < CERTAIN or len(chosen) == MOST_COMPANIONS:
            break
        if label and lexicon[label].family in COMPANIONS and not any(alike(label, other) for other in taken):
            chosen.append(label)
            taken.add(label)
    return tuple(chosen)


@cache
def alike(first: str, second: str) -> bool:
    """Whether a caption of one label says the other too, or they are of one family."""
    lexicon = load_lexicon()
    if lexicon[first].family == lexicon[second].family:
        return True
    pairs = ((lexicon[first].clauses[0], second), (lexicon[second].clauses[0], first))
    return any(mentions_label(clause, label) or mentions_family(clause, label) for clause, label in pairs)
