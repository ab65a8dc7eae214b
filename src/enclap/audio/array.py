"""Samples that the caller already holds as an array: the same mono blocks that a file gives."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from enclap.errors import AudioEmpty, AudioRefused, AudioUnreadable
from enclap.types import FloatArray

BLOCK_SAMPLES = 65_536  # widened to float64 in blocks of this length, not all at once

AnyArray = NDArray[np.generic]
ArraySource = tuple[AnyArray, int]


def array_shape(array: AnyArray) -> tuple[int, int, int]:
    """(samples, channels, axis of the samples) of [N], [N, channels] or [channels, N].

    The longer axis is time; a square array is read as [N, channels]. Raises AudioUnreadable for other shapes.
    """
    if array.ndim == 1:
        return len(array), 1, 0
    if array.ndim != 2:
        raise AudioUnreadable(f"array of shape {array.shape}: give [N], [N, channels] or [channels, N]")
    axis = 0 if array.shape[0] >= array.shape[1] else 1
    if 0 in array.shape:
        raise AudioEmpty(f"array of shape {array.shape}: holds no samples")
    return array.shape[axis], array.shape[1 - axis], axis


def array_and_rate(source: tuple[object, ...]) -> tuple[AnyArray, int]:
    """The two parts of (array, rate), checked: integers or floats, and a whole number of samples per second.

    Sequences of numbers are taken for arrays, and 16000.0 for a rate; 11025.5 is refused.
    """
    if len(source) != 2:
        raise AudioUnreadable(f"tuple of {len(source)} items: give (array, rate)")
    array = np.asarray(source[0])
    if array.dtype.kind not in "iuf":
        raise AudioUnreadable(f"array of {array.dtype}: give integer or floating-point samples")
    return array, _whole_rate(source[1])


def _whole_rate(rate: object) -> int:
    if isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool):
        value = float(rate)
        if math.isfinite(value) and value.is_integer() and value > 0:
            return int(value)
    raise AudioRefused(f"sample rate {rate!r}: give a positive whole number of samples per second")


def mono_blocks(array: AnyArray) -> Iterator[FloatArray]:
    """Blocks of float32 [n]: the mean of the channels.

    Integers are divided by their full scale, unsigned ones centred first, as FFmpeg does with files.
    """
    samples, _, axis = array_shape(array)
    columns = array.reshape(samples, 1) if array.ndim == 1 else np.moveaxis(array, axis, 0)  # [N, channels]
    for start in range(0, samples, BLOCK_SAMPLES):
        block = _unit_scale(columns[start : start + BLOCK_SAMPLES])
        yield block.mean(axis=1).astype(np.float32)


def _unit_scale(block: AnyArray) -> NDArray[np.float64]:
    """Float64 in -1..1: int16 divided by 32768, uint8 as (value - 128) / 128, floats as they are."""
    widened = block.astype(np.float64)
    if block.dtype.kind == "f":
        return widened
    half = 2.0 ** (8 * block.dtype.itemsize - 1)
    return (widened - half if block.dtype.kind == "u" else widened) / half
