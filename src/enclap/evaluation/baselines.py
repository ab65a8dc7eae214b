"""What a score is worth: the same score of captions that know nothing about their clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from enclap.evaluation.base import Metric, Score

PERMUTATIONS = 50


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score beside two baselines.

    shuffled: the mean score of the same captions in random order. constant: the score of that one of the captions which
    does best when all clips get it.
    """

    score: Score
    shuffled: float
    constant: float


def compare_with_baselines(
    metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]], score: str
) -> Comparison:
    """The metric's score of this name beside its baselines; the random orders are the same on every run."""

    def value(captions: Sequence[str]) -> float:
        return score_named(metric.score(captions, references), score).value

    generator = np.random.default_rng(0)
    orders = [generator.permutation(len(predictions)) for _ in range(PERMUTATIONS)]
    return Comparison(
        score=score_named(metric.score(predictions, references), score),
        shuffled=fmean(value([predictions[index] for index in order]) for order in orders),
        constant=max(value([caption] * len(references)) for caption in sorted(set(predictions))),
    )


def score_named(scores: Sequence[Score], name: str) -> Score:
    """The score of this name; KeyError when there is none."""
    for score in scores:
        if score.name == name:
            return score
    raise KeyError(f"no score {name!r} among {[score.name for score in scores]}")
