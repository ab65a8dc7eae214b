"""Sample-rate conversion, the one place for it."""

from __future__ import annotations

import numpy as np
import soxr

from enclap.types import FloatArray, Waveform


def resample(waveform: Waveform, rate: int) -> FloatArray:
    """Float32 [N] at `rate` samples per second: the waveform itself when it has that rate already.

    A waveform too short to yield one sample gives one, so that what was not empty stays so. Uses soxr's high quality.
    """
    if waveform.rate == rate:
        return waveform.samples
    converted = convert(waveform.samples, waveform.rate, rate)
    if len(converted) == 0 and len(waveform.samples) > 0:
        return waveform.samples[:1].copy()
    return converted


def convert(samples: FloatArray, source: int, target: int) -> FloatArray:
    """Float32 [N * target / source, rounded] of samples [N], by soxr in high quality."""
    converted: FloatArray = soxr.resample(samples, source, target).astype(np.float32, copy=False)
    return converted
