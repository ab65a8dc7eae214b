"""Fingerprints of audio: bits that a lossy copy, another level or a cut leaves mostly as they were.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): each frame gives 32 bits, each the
sign of how the difference of two neighbouring bands of the spectrum changes in time. Unlike there, levels are in
decibels, the bands reach higher, and changes are taken over half a frame, which short effects need.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enclap.audio.resample import resample
from enclap.types import FloatArray, Waveform

Codes = NDArray[np.uint32]
"""[frames] codes of 32 bits."""

RATE = 16_000  # Hz
FRAME, HOP, LAG = 2048, 256, 4  # samples, samples, hops: a change is taken over half a frame
FRAME_SECONDS = HOP / RATE
BITS = 32
LOWEST, HIGHEST = 200.0, 6_500.0  # Hz
DYNAMIC_RANGE = 70.0  # decibels below the loudest band, where all is the same
WORD_TYPE = np.dtype("<u4")  # as fingerprints are stored
INDEPENDENT = 48.0
"""Bits that count as one, as neighbouring frames and bands share most of what they say."""
SHORTEST = 6  # frames of overlap that are compared
EMPTY = 0
"""The code of a frame that says nothing, as in silence: most of its bands do not change at all. It fits no other."""
MOST_STILL, STILL = 8, 1e-3  # bands of a frame with a code that may change by less than so many decibels


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two fingerprints fit best: the second begins `offset` seconds into the first, for `seconds` of both.

    agreement: share of equal bits. evidence: how many standard deviations that is above chance.
    """

    offset: float
    seconds: float
    agreement: float
    evidence: float


def fingerprint(waveform: Waveform) -> Codes:
    """The codes [N] of a waveform, one for each 16 ms; a frame is 128 ms long and centred."""
    samples = resample(waveform, RATE)
    padded = np.pad(samples, FRAME // 2)
    starts = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]  # [T, FRAME]
    power = np.abs(np.fft.rfft(starts * np.hanning(FRAME).astype(np.float32), axis=1)) ** 2
    bands = 10.0 * np.log10(power @ band_filters() + 1e-12)  # [T, BITS + 1]
    bands = np.maximum(bands, bands.max() - DYNAMIC_RANGE)
    slopes = np.diff(bands, axis=1)  # [T, BITS]
    before = np.concatenate([np.repeat(slopes[:1], LAG, axis=0), slopes])[: len(slopes)]
    changes = slopes - before
    packed = np.packbits(changes > 0.0, axis=1, bitorder="little")  # [T, 4]
    codes = packed.copy().view(WORD_TYPE)[:, 0].astype(np.uint32)
    codes[(np.abs(changes) < STILL).sum(axis=1) > MOST_STILL] = EMPTY
    return codes


def best_overlap(first: Codes, second: Codes) -> Overlap | None:
    """How the codes of two recordings fit best; None where they cannot be compared for long enough."""
    if min(len(first), len(second)) < SHORTEST:
        return None
    size = 1 << (len(first) + len(second) - 1).bit_length()
    matches = _correlated(_signs(first), _signs(second), size)  # equal minus unequal bits, for each shift
    filled = _correlated((first != EMPTY)[:, None], (second != EMPTY)[:, None], size)
    shifts = np.arange(SHORTEST - len(second), len(first) - SHORTEST + 1)
    frames = np.rint(filled[shifts % size])
    evidence = np.where(
        frames >= SHORTEST, matches[shifts % size] / np.sqrt(BITS * np.maximum(frames, 1) * INDEPENDENT), 0.0
    )
    best = int(np.argmax(evidence))
    if frames[best] < SHORTEST:
        return None
    agreement = 0.5 + 0.5 * float(matches[shifts[best] % size]) / (BITS * float(frames[best]))
    shift = int(shifts[best])
    common = min(len(first), len(second) + shift) - max(0, shift)
    return Overlap(shift * FRAME_SECONDS, common * FRAME_SECONDS, agreement, float(evidence[best]))


def _correlated(first: NDArray[Any], second: NDArray[Any], size: int) -> NDArray[np.float64]:
    """[size]: at shift s the sum of the products of first [t + s] and second [t], over all columns; s modulo size."""
    spectra = [np.fft.rfft(array.astype(np.float32), size, axis=0) for array in (first, second)]
    correlated: NDArray[np.float64] = np.fft.irfft((spectra[0] * np.conj(spectra[1])).sum(axis=1), size)
    return correlated


def _signs(codes: Codes) -> FloatArray:
    """Float32 [N, BITS] of -1 and 1, of 0 for empty codes."""
    bits = np.unpackbits(codes.astype(WORD_TYPE).view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    signs: FloatArray = (2.0 * bits.astype(np.float32) - 1.0) * (codes != EMPTY)[:, None]
    return signs.astype(np.float32)


@cache
def band_filters() -> FloatArray:
    """Float32 [FRAME // 2 + 1, BITS + 1]: which bins belong to which band; bands grow as octaves do."""
    edges = np.geomspace(LOWEST, HIGHEST, BITS + 2)
    bins = np.fft.rfftfreq(FRAME, 1.0 / RATE)
    inside = (bins[:, None] >= edges[None, :-1]) & (bins[:, None] < edges[None, 1:])
    return inside.astype(np.float32)
