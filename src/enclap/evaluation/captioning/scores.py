"""The score of a set of clips, of each clip, and what is needed to score any resample of the clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ClipScores:
    """One metric over a set of clips.

    value: the score of the set. clips: float64 [clips], the score of each; NaN where a clip has none.
    statistics: float64 [clips, n], whose sums over clips are all that the score of a set depends on. aggregate: gives
    the scores [sets] of such sums [sets, n]; None for a metric of which no sums are known.
    """

    name: str
    value: float
    clips: Array
    statistics: Array
    aggregate: Callable[[Array], Array] | None


def mean_scores(name: str, clips: Sequence[float] | Array) -> ClipScores:
    """A metric whose score of a set is the mean over the clips that have a score."""
    values = np.asarray(clips, dtype=np.float64)
    known = ~np.isnan(values)
    statistics = np.stack([np.where(known, values, 0.0), known.astype(np.float64)], axis=1)
    value = float(np.mean(values[known])) if known.any() else float("nan")
    return ClipScores(name, value, values, statistics, mean_of_sums)


def mean_of_sums(sums: Array) -> Array:
    """Means [sets] of sums and counts [sets, 2]; NaN for a set without any."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = sums[:, 0] / sums[:, 1]
    return means


def group_clips(scores: ClipScores, groups: Sequence[int], count: int) -> ClipScores:
    """The scores with several items of one clip taken together. groups: the clip, 0 to count - 1, of each item."""
    index = np.asarray(groups, dtype=np.int64)
    statistics = np.zeros((count, scores.statistics.shape[1]))
    np.add.at(statistics, index, scores.statistics)
    totals, items = np.zeros(count), np.bincount(index, minlength=count)
    np.add.at(totals, index, scores.clips)
    with np.errstate(invalid="ignore", divide="ignore"):
        return replace(scores, clips=totals / items, statistics=statistics)
