"""Scores of an experiment's rows: event F1 over scenes and seeds, each beside the first row on the same scenes.

Two things are drawn by chance in an experiment: the seeds of the trainings, and the recordings that scenes are made of.
An interval covers both. Seeds are few, so their part is a variance with Student's t. Scenes that share a recording are
no independent evidence, so recordings are resampled, not scenes: a scene counts as often as all its recordings are
drawn together (the pigeonhole bootstrap, Owen 2007, arXiv 0712.1111, which errs on the safe side).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.hearing import WORDS_READ, has_correct_order
from enclap.experiments.grids import Grid
from enclap.experiments.harness import Run, decoding_key, read_result
from enclap.experiments.trial import Laboratory

Array = NDArray[np.float64]
RESAMPLES = 1_000
FEWEST_SEEDS = 2
STUDENT: tuple[float, ...]
STUDENT = (12.71, 4.303, 3.183, 2.777, 2.571, 2.447, 2.365, 2.306, 2.263, 2.229, 2.201, 2.179, 2.161, 2.145, 2.132)
STUDENT += (2.120, 2.110, 2.101, 2.094, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.049, 2.046, 2.043)
"""The 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom, rounded up."""
NORMAL = 1.96
NONE_OF_THEM = "constant caption"
"""Of rows that are no system: what a number is worth."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a row reaches, and the first row beside it.

    mean, spread: over seeds, spread is the standard deviation. difference, low, high: the mean minus that of the first
    row on the same seeds, and its 95 % interval; None for the first row, the interval also with fewer than two seeds.
    """

    mean: float
    spread: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """better, worse, or not shown: the interval holds zero, or there is none; empty for the first row."""
        if self.difference is None:
            return ""
        if self.low is None or self.high is None:
            return "not shown"
        return "better" if self.low > 0.0 else "worse" if self.high < 0.0 else "not shown"


@dataclass(frozen=True, slots=True)
class RowResult:
    """What came out for one row.

    events: F1 of the families of sounds of all scenes. order: of the scenes whose two sounds follow each other, the
    share whose caption names both in their order; None where there are no such scenes. masked: share of hidden codes
    restored. recall: of CLAP's old labels, frozen and tuned. seconds, captioning: of a training and of a scene's
    caption.
    """

    name: str
    seeds: int
    events: Score
    order: Score | None
    masked: float | None
    recall: tuple[float, float] | None
    parameters: int
    seconds: float
    captioning: float


@dataclass(frozen=True, slots=True)
class Floor:
    """What captions score that say nothing of the sound: those of other scenes, and the best one for all scenes."""

    shuffled: float
    constant: float
    caption: str


@lru_cache(maxsize=65_536)
def families_named(caption: str) -> frozenset[str]:
    """The families of sounds whose words are in a caption."""
    lexicon = load_lexicon()
    lemmas = set(lexicon.lemmas(caption, WORDS_READ))
    return frozenset(name for name, family in lexicon.families.items() if not lemmas.isdisjoint(family.words))


def event_counts(captions: Sequence[str], families: Sequence[Sequence[str]]) -> Array:
    """Float64 [scenes, 3]: families that are named rightly, named wrongly, and missed."""
    rows = []
    for caption, there in zip(captions, families, strict=True):
        named, true = families_named(caption), set(there)
        rows.append([len(named & true), len(named - true), len(true - named)])
    return np.array(rows, dtype=np.float64)


def order_counts(captions: Sequence[str], sequences: Sequence[Sequence[str]]) -> Array:
    """Float64 [scenes, 3], of which `f1_of_sums` is the share of scenes whose labels are named in their order."""
    right = np.array([has_correct_order(text, *labels) for text, labels in zip(captions, sequences, strict=True)])
    return np.stack([right, ~right, ~right], axis=1).astype(np.float64)


def f1_of_sums(sums: Array) -> Array:
    """F1 [...] of summed counts [..., 3]; 0 where nothing is named and nothing is there."""
    right, wrong, missed = np.moveaxis(sums, -1, 0)
    found: Array = 2.0 * right / np.maximum(2.0 * right + wrong + missed, 1.0)
    return found


def floor_of(captions: Sequence[str], families: Sequence[Sequence[str]]) -> Floor:
    """The floor that a row's captions have on the same scenes."""
    shifts = range(1, len(captions), max(1, len(captions) // 20))
    shifted = [f1_of_sums(event_counts([*captions[at:], *captions[:at]], families).sum(axis=0)) for at in shifts]
    alone = {caption: f1_of_sums(event_counts([caption] * len(captions), families).sum(axis=0)) for caption in captions}
    best = max(alone, key=lambda caption: (alone[caption], caption))
    return Floor(float(np.mean(shifted)), float(alone[best]), best)


def results_of(grid: Grid, runs: Sequence[Run], laboratory: Laboratory) -> dict[str, dict[int, dict[str, Any]]]:
    """The results that are there, by row and seed, each with the row's captions as `texts` and their `seconds`."""
    found: dict[str, dict[int, dict[str, Any]]] = {row.name: {} for row in grid.rows}
    for run in runs:
        result = read_result(run.folder(laboratory))
        for row in run.rows:
            captions = (result or {"captions": {}})["captions"].get(decoding_key(row))
            if result is not None and captions is not None:
                found[row.name][run.seed] = {**result, "texts": captions["texts"], "captioning": captions["seconds"]}
    return found


def grid_results(
    found: dict[str, dict[int, dict[str, Any]]], sequences: Sequence[Sequence[str]] = ()
) -> list[RowResult]:
    """The rows of which runs are there, in their order; differences are over the seeds that the first row has too.

    sequences: of each scene the labels of two sounds that follow each other; empty for other scenes.
    """
    rows: list[RowResult] = []
    ordered = [number for number, labels in enumerate(sequences) if labels]

    def events_of(result: Mapping[str, Any]) -> Array:
        return event_counts(result["texts"], result["families"])

    def orders_of(result: Mapping[str, Any]) -> Array:
        return order_counts([result["texts"][number] for number in ordered], [sequences[number] for number in ordered])

    first = next(iter(found.values()), {})
    for name, seeds in found.items():
        results = list(seeds.values())
        if not results:
            continue
        other, groups = None if seeds is first else first, results[0]["groups"]
        masked = [result["masked_accuracy"] for result in results if result["masked_accuracy"] is not None]
        recalls = [result["recall"] for result in results if "recall" in result]
        rows.append(
            RowResult(
                name,
                len(results),
                score_of(events_of, seeds, other, groups),
                score_of(orders_of, seeds, other, [groups[number] for number in ordered]) if ordered else None,
                float(np.mean(masked)) if masked else None,
                (mean_of(recalls, "frozen"), mean_of(recalls, "tuned")) if recalls else None,
                int(results[0]["parameters"]),
                mean_of(results, "seconds"),
                mean_of(results, "captioning") / len(results[0]["families"]),
            )
        )
    return rows


def mean_of(results: Sequence[Mapping[str, Any]], key: str) -> float:
    """The mean of what results say under a name."""
    return float(np.mean([result[key] for result in results]))


def score_of(
    count: Callable[[Mapping[str, Any]], Array],
    results: Mapping[int, Mapping[str, Any]],
    first: Mapping[int, Mapping[str, Any]] | None,
    groups: Sequence[Sequence[str]],
) -> Score:
    """The score of a row. count: of a result, [scenes, 3]. results, first: its own and the first row's, by seed, None
    for the first row. groups: the recordings of each scene.
    """
    counts = {seed: count(result) for seed, result in results.items()}
    scores = np.array([f1_of_sums(item.sum(axis=0)) for item in counts.values()])
    mean, spread = float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    shared = sorted(results.keys() & first.keys()) if first else []
    if not first or not shared:
        return Score(mean, spread)
    pair = np.stack([counts[seed] for seed in shared]), np.stack([count(first[seed]) for seed in shared])
    return Score(mean, spread, *paired_difference(*pair, groups))


def paired_difference(
    counts: Array, first: Array, groups: Sequence[Sequence[str]], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """The difference of mean F1 and its 95 % interval over seeds and recordings; no interval with fewer than two seeds.

    counts, first: [seeds, scenes, 3] of two rows, the same seeds and scenes in the same order. groups: the recordings
    of each scene.
    """
    each = f1_of_sums(counts.sum(axis=1)) - f1_of_sums(first.sum(axis=1))  # [seeds]
    value, seeds = float(each.mean()), len(each)
    if seeds < FEWEST_SEEDS:
        return value, None, None
    weights = group_weights(groups, resamples, seed)  # [resamples, scenes]
    drawn = [f1_of_sums(np.einsum("rc,sck->rsk", weights, rows)).mean(axis=1) for rows in (counts, first)]
    by_recordings = float((drawn[0] - drawn[1]).var(ddof=1))
    by_seeds = float(each.var(ddof=1)) / seeds
    recordings = len({group for scene in groups for group in scene})
    width = half_width(by_seeds, seeds - 1, by_recordings, max(1, recordings - 1))
    return value, value - width, value + width


def half_width(first: float, first_freedom: int, second: float, second_freedom: int) -> float:
    """Half a 95 % interval of a sum of two estimates with these variances and degrees of freedom.

    The sum's degrees of freedom are Welch's and Satterthwaite's (Biometrics Bulletin 2, 1946), rounded down.
    """
    total = first + second
    if total == 0.0:
        return 0.0
    freedom = total**2 / (first**2 / first_freedom + second**2 / second_freedom)
    whole = max(1, math.floor(freedom))
    return (STUDENT[whole - 1] if whole <= len(STUDENT) else NORMAL) * math.sqrt(total)


def group_weights(groups: Sequence[Sequence[str]], resamples: int, seed: int) -> Array:
    """How often each scene counts in each resample of the recordings, float64 [resamples, scenes]."""
    names = {name: number for number, name in enumerate(sorted({group for scene in groups for group in scene}))}
    generator = np.random.default_rng(seed)
    times = generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=resamples)
    columns = [times[:, [names[group] for group in scene]].prod(axis=1) for scene in groups]
    weights: Array = np.stack(columns, axis=1).astype(np.float64)
    return weights
