"""Scores of an experiment's rows: event F1 over scenes and seeds, each beside the first row on the same scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.captioning.bootstrap import BOUNDS
from enclap.evaluation.hearing import WORDS_READ
from enclap.experiments.grids import Grid
from enclap.experiments.harness import Run, decoding_key, read_result
from enclap.experiments.trial import Budget

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class RowResult:
    """What came out for one row.

    f1: of the events of all scenes, mean over seeds. spread: standard deviation over seeds. difference, low, high: f1
    minus that of the first row, and the middle 95 % of it over resampled scenes and seeds; None for the first row.
    masked: share of hidden codes restored. seconds, captioning: of a training and of a scene's caption.
    """

    name: str
    seeds: int
    f1: float
    spread: float
    difference: float | None
    low: float | None
    high: float | None
    masked: float | None
    parameters: int
    seconds: float
    captioning: float

    @property
    def verdict(self) -> str:
        """better, worse, or not shown: the interval holds zero."""
        if self.low is None or self.high is None:
            return ""
        return "better" if self.low > 0.0 else "worse" if self.high < 0.0 else "not shown"


def families_named(caption: str) -> set[str]:
    """The families of sounds whose words are in a caption."""
    lexicon = load_lexicon()
    lemmas = set(lexicon.lemmas(caption, WORDS_READ))
    return {name for name, family in lexicon.families.items() if not lemmas.isdisjoint(family.words)}


def event_counts(captions: Sequence[str], labels: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Float64 [clips, 3]: families that are named rightly, named wrongly, and missed."""
    lexicon = load_lexicon()
    rows = []
    for caption, sounds in zip(captions, labels, strict=True):
        named, true = families_named(caption), {lexicon[label].family for label in sounds}
        rows.append([len(named & true), len(named - true), len(true - named)])
    return np.array(rows, dtype=np.float64)


def f1_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 [...] of summed counts [..., 3]; 0 where nothing is named and nothing is there."""
    right, wrong, missed = np.moveaxis(sums, -1, 0)
    found: NDArray[np.float64] = 2.0 * right / np.maximum(2.0 * right + wrong + missed, 1.0)
    return found


def grid_results(grid: Grid, runs: Sequence[Run], output: Path, budget: Budget) -> list[RowResult]:
    """The results of all rows of which every run is done, in their order."""
    found: list[RowResult] = []
    first: NDArray[np.float64] | None = None
    for row in grid.runnable:
        results = [read_result(run.folder(output, budget)) for run in runs if row in run.rows]
        key = decoding_key(row)
        done = [result for result in results if result is not None and key in result["captions"]]
        if len(done) < len(results):
            continue
        counts = np.stack([event_counts(result["captions"][key]["texts"], result["labels"]) for result in done])
        scores = f1_of_sums(counts.sum(axis=1))  # [seeds]
        difference, low, high = (None, None, None) if first is None else paired_difference(counts, first)
        masked = [result["masked_accuracy"] for result in done if result["masked_accuracy"] is not None]
        found.append(
            RowResult(
                row.name,
                len(done),
                float(scores.mean()),
                float(scores.std(ddof=1)) if len(done) > 1 else 0.0,
                difference,
                low,
                high,
                float(np.mean(masked)) if masked else None,
                int(done[0]["parameters"]),
                float(np.mean([result["seconds"] for result in done])),
                float(np.mean([result["captions"][key]["seconds"] / len(result["labels"]) for result in done])),
            )
        )
        if row is grid.rows[0]:
            first = counts
    return found


def paired_difference(
    counts: NDArray[np.float64], first: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """The difference of mean F1 and the middle 95 % of it over resampled scenes and seeds.

    counts, first: [seeds, clips, 3] of two rows on the same scenes; a resample draws the same scenes and seeds for
    both.
    """
    generator = np.random.default_rng(seed)
    seeds, clips, _ = counts.shape

    def score(rows: NDArray[np.float64], weights: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
        return float(f1_of_sums(np.tensordot(weights, rows[chosen], axes=(0, 1))).mean())

    drawn = []
    for _ in range(resamples):
        weights = np.bincount(generator.integers(clips, size=clips), minlength=clips).astype(np.float64)
        chosen = generator.integers(seeds, size=(seeds,))
        drawn.append(score(counts, weights, chosen) - score(first, weights, chosen))
    low, high = np.percentile(drawn, BOUNDS)
    value = f1_of_sums(counts.sum(axis=1)).mean() - f1_of_sums(first.sum(axis=1)).mean()
    return float(value), float(low), float(high)
