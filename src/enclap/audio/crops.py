"""What becomes of a clip that CLAP reads in several crops: one embedding of them all."""

from __future__ import annotations

import numpy as np

from enclap.types import FloatArray

SMALLEST_NORM = 1e-12
"""Embeddings that cancel each other out have no direction; their mean is divided by this instead of by zero."""


def mean_direction(embeddings: FloatArray) -> FloatArray:
    """Float32 [E], unit length: the direction of the mean of a clip's embeddings [C, E], one for each of C crops."""
    mean = embeddings.mean(axis=0)
    direction: FloatArray = (mean / max(float(np.linalg.norm(mean)), SMALLEST_NORM)).astype(np.float32)
    return direction
