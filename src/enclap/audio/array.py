"""Samples that the caller already holds as an array: the same blocks that a file gives."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enclap.audio.source import error_reason
from enclap.errors import AudioEmpty, AudioRefused, AudioUnreadable
from enclap.types import Block

logger = logging.getLogger("enclap")

BLOCK_SAMPLES = 65_536  # widened to float64 in blocks of this length, not all at once
NARROW_TYPES = {"int16": 2**15, "int32": 2**31}
"""What integers may really be that were put into a wider type, and its full scale."""

AnyArray = NDArray[np.generic]
ArraySource = tuple[AnyArray, int]


def array_and_rate(source: tuple[object, ...]) -> tuple[AnyArray, int]:
    """The two parts of (array, rate), checked: integers or floats, and a whole number of samples per second.

    Sequences of numbers are taken for arrays, and 16000.0 for a rate; 11025.5 is refused. Raises AudioUnreadable or
    AudioRefused, also for what only the array's own class finds wrong: ragged lists, tensors on another device.
    """
    if len(source) != 2:
        raise AudioUnreadable(f"tuple of {len(source)} items: give (array, rate)")
    arrays = []
    for part in source:
        try:
            arrays.append(np.asarray(part))
        except MemoryError:
            raise
        except Exception as error:  # whatever somebody else's __array__ raises
            raise AudioUnreadable(f"{type(part).__name__} that is no array: {error_reason(error)}") from error
    array, second = arrays
    if array.ndim == 0 and second.ndim > 0:
        raise AudioUnreadable("(rate, array), the order of SciPy and Gradio: give (array, rate)")
    if array.dtype.kind not in "iuf":
        raise AudioUnreadable(f"array of {array.dtype}: give integer or floating-point samples")
    rate: Any = source[1]
    is_number = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if is_number and 0 < rate <= sys.float_info.max and rate == int(rate):
        return array, int(rate)
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

    Integers are divided by their full scale, unsigned ones centred first, as FFmpeg does with files: int16 by 32768,
    uint8 as (value - 128) / 128. Integers that would fit into a narrower type are almost silent then, which is warned
    of. Floats stay as they are.
    """
    samples, _, axis = array_shape(array)
    kind, half = array.dtype.kind, 2.0 ** (8 * array.dtype.itemsize - 1)
    if kind == "i" and array.size:
        lowest, highest = int(array.min()), int(array.max())
        for narrow, limit in NARROW_TYPES.items():
            if limit < half and -limit <= lowest < highest < limit:
                message = "array: the samples are %s, but none is beyond the range of %s; if they are %s, "
                logger.warning(message + "use .astype('%s')", array.dtype, narrow, narrow, narrow)
                break
    columns = array.reshape(samples, 1) if array.ndim == 1 else np.moveaxis(array, axis, 0)  # [N, channels]
    for start in range(0, samples, BLOCK_SAMPLES):
        with np.errstate(over="ignore"):  # of long doubles; infinite samples are refused
            block = columns[start : start + BLOCK_SAMPLES].astype(np.float64)
        if kind == "u":
            block -= half
        yield Block(block if kind == "f" else block / half, start)
