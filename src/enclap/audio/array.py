"""Samples that the caller already holds as an array: the same blocks that a file gives."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from enclap.audio.source import error_reason
from enclap.errors import AudioEmpty, AudioRefused, AudioUnreadable
from enclap.types import Block

logger = logging.getLogger("enclap")

BLOCK_SAMPLES = 65_536  # widened to float64 in blocks of this length, not all at once
NARROW_TYPES = {"int16": 2, "int32": 4}
"""What integers may really be that were put into a wider type, and its bytes."""

AnyArray = NDArray[np.generic]
ArraySource = tuple[AnyArray, int]


def array_and_rate(source: tuple[object, ...]) -> tuple[AnyArray, int]:
    """The two parts of (array, rate), checked: integers or floats, and a whole number of samples per second.

    Sequences of numbers are taken for arrays, and 16000.0 for a rate; 11025.5 is refused. Raises AudioUnreadable or
    AudioRefused, also for what only the array's own class finds wrong: ragged lists, tensors on another device.
    """
    if len(source) != 2:
        raise AudioUnreadable(f"tuple of {len(source)} items: give (array, rate)")
    array, second = (_as_array(part) for part in source)
    if array.ndim == 0 and second.ndim > 0:
        raise AudioUnreadable("(rate, array), the order of SciPy and Gradio: give (array, rate)")
    if array.dtype.kind not in "iuf":
        raise AudioUnreadable(f"array of {array.dtype}: give integer or floating-point samples")
    return array, _whole_rate(source[1])


def _as_array(part: object) -> AnyArray:
    try:
        return np.asarray(part)
    except MemoryError:
        raise
    except Exception as error:  # whatever somebody else's __array__ raises
        raise AudioUnreadable(f"{type(part).__name__} that is no array: {error_reason(error)}") from error


def _whole_rate(rate: object) -> int:
    if isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool):
        try:
            value = float(rate)
        except OverflowError:
            value = math.inf
        if math.isfinite(value) and value.is_integer() and value > 0:
            return int(value)
    raise AudioRefused(f"sample rate {str(rate)[:40]!r}: give a positive whole number of samples per second")


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


def array_blocks(array: AnyArray) -> Iterator[Block]:
    """Blocks of float64 [n, channels].

    Integers are divided by their full scale, unsigned ones centred first, as FFmpeg does with files. Integers that
    would fit into a narrower type are almost silent then, which is warned of.
    """
    samples, _, axis = array_shape(array)
    _warn_if_too_wide(array)
    columns = array.reshape(samples, 1) if array.ndim == 1 else np.moveaxis(array, axis, 0)  # [N, channels]
    for start in range(0, samples, BLOCK_SAMPLES):
        yield Block(_unit_scale(columns[start : start + BLOCK_SAMPLES]), start)


def _unit_scale(block: AnyArray) -> NDArray[np.float64]:
    """Float64 in -1..1: int16 divided by 32768, uint8 as (value - 128) / 128, floats as they are."""
    with np.errstate(over="ignore"):  # of long doubles; infinite samples are refused
        widened = block.astype(np.float64)
    if block.dtype.kind == "f":
        return widened
    half = 2.0 ** (8 * block.dtype.itemsize - 1)
    return (widened - half if block.dtype.kind == "u" else widened) / half


def _warn_if_too_wide(array: AnyArray) -> None:
    if array.dtype.kind != "i" or array.size == 0:
        return
    lowest, highest = int(array.min()), int(array.max())
    for narrow, width in NARROW_TYPES.items():
        half = 2 ** (8 * width - 1)
        if width < array.dtype.itemsize and -half <= lowest < highest < half:
            message = "array: the samples are %s, but none is beyond the range of %s; if they are %s, use .astype('%s')"
            logger.warning(message, array.dtype, narrow, narrow, narrow)
            return
