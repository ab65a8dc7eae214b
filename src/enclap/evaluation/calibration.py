"""From scores to probabilities: a curve fitted on recordings that nothing was trained on, and how reliable it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enclap.types import FloatArray


def fit_logistic(scores: FloatArray, right: FloatArray, steps: int = 50) -> tuple[float, float]:
    """Slope and offset of the logistic curve of `right` (0 or 1) over `scores`, both [N], by Newton's method.

    The targets are Platt's, a little inside 0 and 1, which keeps the curve finite where the classes part.
    """
    positives = float(right.sum())
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (len(right) - positives + 2.0)
    targets = np.where(right > 0.5, high, low)
    design = np.stack([scores, np.ones_like(scores)], axis=1).astype(np.float64)  # [N, 2]
    weights = np.zeros(2)
    for _ in range(steps):
        probability = 1.0 / (1.0 + np.exp(-(design @ weights)))
        gradient = design.T @ (targets - probability)
        curvature = (design * (probability * (1.0 - probability))[:, None]).T @ design + 1e-9 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, gradient)
    return float(weights[0]), float(weights[1])


@dataclass(frozen=True, slots=True)
class Bin:
    """Captions of similar probability: how many, their mean probability, the share that is right."""

    count: int
    promised: float
    kept: float


def reliability(probabilities: FloatArray, right: FloatArray, bins: int = 5) -> list[Bin]:
    """Captions in `bins` groups of equal size by probability, the least probable first."""
    order = np.argsort(probabilities, kind="stable")
    return [
        Bin(len(part), float(probabilities[part].mean()), float(right[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Mean difference between promised and kept, weighted by count (expected calibration error, arXiv 1706.04599)."""
    return sum(part.count * abs(part.promised - part.kept) for part in bins) / sum(part.count for part in bins)
