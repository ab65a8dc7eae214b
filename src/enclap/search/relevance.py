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

    def log_odds(self, *values: float) -> float:
        """Of the probability; it grows on where that is as good as 1."""
        return self.offset + sum(weight * value for weight, value in zip(self.weights, values, strict=True))

    def probability(self, *values: float) -> float:
        """From 0 to 1."""
        return probability(self.log_odds(*values))


def probability(log_odds: float) -> float:
    """From 0 to 1."""
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, log_odds))))


def evidence(cosine: float, level: float, spread: float) -> float:
    """How many spreads a cosine lies above the level of its window."""
    return (cosine - level) / spread


FITTED_SPACES = frozenset(("df0131c9ec1f47859792b2e69521cf65342f1780ec2c8af47d3ca30a7abdf315",))
"""The embeddings that the curves were fitted to: mini's, as `library.model_hashes` names them."""
WORD_CURVE = Curve((0.528, 1.887, 6.188), -5.443)
"""A hit fits a query: over its evidence, and how well its caption and the name of its file match it."""
LIKE_CURVE = Curve((10.819,), -8.025)
"""Two sounds have the same label: over their cosine."""
LABEL_CURVE = Curve((1.137,), -6.428)
"""A label of the lexicon can be heard: over its evidence."""
OTHER_LABEL_CURVE = Curve((1.071,), -4.815)
"""Any other word, which is mostly a wider one, names what can be heard: over its evidence."""
