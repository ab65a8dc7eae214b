"""How loud a stretch of audio is, and whether there is anything to caption in it."""

from __future__ import annotations

import math

import numpy as np

from enclap.types import FloatArray

SILENCE_LEVEL = -60.0  # dBFS; below it a window is called silent without asking the model
SILENCE_TEXT = "Silence."


def rms_level(samples: FloatArray) -> float:
    """The root mean square of float [N] in dBFS (a constant 1.0 is 0 dBFS); -inf for zeros."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10.0 * math.log10(power) if power > 0.0 else -math.inf


def is_silent(samples: FloatArray) -> bool:
    """Whether the samples lie under the silence level."""
    return rms_level(samples) < SILENCE_LEVEL
