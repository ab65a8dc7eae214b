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
    converted: FloatArray = soxr.resample(waveform.samples, waveform.rate, rate).astype(np.float32, copy=False)
    if len(converted) == 0 and len(waveform.samples) > 0:
        return waveform.samples[:1].copy()
    return converted
