"""From similarities to probabilities: curves fitted to mini on the validation split, which nothing is trained on.

`benchmarks/search.py --calibrate` fits them and says how far they hold on the test split. Evidence is a cosine as so
many spreads above the level of its window (see `labels.LabelSet`), so that it means something with other models too,
for which no curve was fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curve:
    """A logistic curve over some numbers: the weight of each, and the offset."""

    weights: tuple[float, ...]
    offset: float

    def probability(self, *values: float) -> float:
        """From 0 to 1."""
        total = self.offset + sum(weight * value for weight, value in zip(self.weights, values, strict=True))
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total))))


def evidence(cosine: float, level: float, spread: float) -> float:
    """How many spreads a cosine lies above the level of its window."""
    return (cosine - level) / spread


WORD_CURVE = Curve((0.548, 1.690, 7.112), -4.918)
"""A hit fits a query: over its evidence, and the shares of the query's words in the caption and in the name."""
LIKE_CURVE = Curve((10.819,), -8.025)
"""Two sounds have the same label: over their cosine."""
LABEL_CURVE = Curve((1.534,), -6.708)
"""A label of the lexicon can be heard: over its evidence."""
OTHER_LABEL_CURVE = Curve((1.151,), -4.870)
"""Any other word, which is mostly a wider one, names what can be heard: over its evidence."""
