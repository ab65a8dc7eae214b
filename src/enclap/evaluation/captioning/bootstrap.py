"""95 % intervals by the bootstrap over clips, of scores and of the difference of two systems on the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from enclap.evaluation.captioning.scores import Array, ClipScores

RESAMPLES = 1_000
SEED = 0
BOUNDS = (2.5, 97.5)  # percentiles
NUMBERS_TOGETHER = 1_000_000  # drawn at once: few enough for the cache, and for sets of any size


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle 95 % of a score over resampled sets of clips."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The first system's score minus the second's on the same clips.

    probability: of a difference at least this far from zero if the systems were equal, two-sided.
    """

    value: float
    low: float
    high: float
    probability: float


def intervals(scores: Sequence[ClipScores], resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Interval]:
    """The interval of each metric, by name; metrics of which no sums are known have none.

    All metrics are of the same clips, and every resample draws the same clips for all of them (Efron and Tibshirani
    1993, percentile interval).
    """
    return {name: _bounds(values) for name, values in _resampled(scores, resamples, seed).items()}


def differences(
    first: Sequence[ClipScores], second: Sequence[ClipScores], resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Difference]:
    """The difference for each metric that both have, by name; both systems are scored on the same resamples."""
    found = {}
    values, others = ({item.name: item.value for item in scores} for scores in (first, second))
    resampled, other_resampled = (_resampled(scores, resamples, seed) for scores in (first, second))
    for name in resampled:
        if name in other_resampled:
            drawn = resampled[name] - other_resampled[name]
            bounds = _bounds(drawn)
            tail = min(np.sum(drawn <= 0.0), np.sum(drawn >= 0.0))
            probability = min(1.0, 2.0 * (float(tail) + 1.0) / (resamples + 1.0))
            found[name] = Difference(values[name] - others[name], bounds.low, bounds.high, probability)
    return found


def _resampled(scores: Sequence[ClipScores], resamples: int, seed: int) -> dict[str, Array]:
    """The scores [resamples] of each metric."""
    known = [(item, item.aggregate) for item in scores if item.aggregate is not None]
    if not known:
        return {}
    statistics = np.concatenate([item.statistics for item, _ in known], axis=1)  # [clips, all]
    clips = len(statistics)
    generator = np.random.default_rng(seed)
    sums = np.empty((resamples, statistics.shape[1]))
    together = max(1, NUMBERS_TOGETHER // clips)
    for start in range(0, resamples, together):
        part = sums[start : start + together]
        drawn = generator.integers(clips, size=(len(part), clips)) + clips * np.arange(len(part))[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=drawn.size).reshape(drawn.shape)
        part[:] = times.astype(np.float64) @ statistics
    edges = np.cumsum([item.statistics.shape[1] for item, _ in known])[:-1]
    parts = np.split(sums, edges, axis=1)
    return {item.name: aggregate(part) for (item, aggregate), part in zip(known, parts, strict=True)}


def _bounds(values: Array) -> Interval:
    """Both bounds; NaN when no resample has a score."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.percentile(known, BOUNDS)
    return Interval(float(low), float(high))
