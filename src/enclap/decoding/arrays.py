"""The array functions that the beam rules need beyond operators, in numpy; `enclap.generation.arrays` has torch's."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from enclap.types import FloatArray, IntArray

IMPOSSIBLE = -1.0e9
"""The score of what cannot be chosen, as transformers has it: rounding decides between nearly equal beams."""
TOP_BLOCK = 512
"""Values that `top` compares by their largest first."""


class ArrayFunctions(Protocol):
    """What a module offers so that `enclap.decoding.beam.BeamRules` runs on its arrays, which lead with B clips."""

    def top(self, values: Any, count: int) -> tuple[Any, Any]:
        """The `count` largest of each row of [B, N], falling, and their indices."""
        ...

    def take(self, values: Any, indices: Any) -> Any:
        """Of values [B, N, …] those at indices [B, M] of their own row."""
        ...

    def join(self, first: Any, second: Any) -> Any:
        """[B, N + M, …] of [B, N, …] and [B, M, …]."""
        ...

    def put(self, sequences: Any, position: Any, tokens: Any) -> Any:
        """Sequences [B, M, S] with tokens [B, M] at a position; what was given may be changed."""
        ...

    def lower(self, values: Any, where: Any) -> Any:
        """Values with IMPOSSIBLE added where a mask holds."""
        ...

    def keep(self, values: Any, where: Any) -> Any:
        """Values where a mask holds, and IMPOSSIBLE elsewhere."""
        ...

    def ranks(self, values: Any) -> Any:
        """Int64 [B, N] with 0, 1, … in every row, for values [B, N]."""
        ...


def top(values: FloatArray, count: int) -> tuple[FloatArray, IntArray]:
    """The `count` largest values of each row of [B, N], falling, and their indices; of equals the first comes first."""
    indices = np.stack([top_indices(row, count) for row in values])
    return np.take_along_axis(values, indices, axis=1), indices


def top_indices(row: FloatArray, count: int) -> IntArray:
    """Indices int64 [count] of the largest values of [N], falling, of equals the first first.

    Only blocks are searched whose largest value is among the `count` largest of all blocks: no other can hold one. That
    reads a vocabulary once, where sorting or partitioning it would cost as much as a decoding step.
    """
    size = TOP_BLOCK if len(row) >= 2 * count * TOP_BLOCK else len(row)
    starts = np.arange(0, len(row), size)
    largest = np.maximum.reduceat(row, starts)
    least = np.partition(largest, -count)[-count] if count <= len(largest) else -np.inf
    inside = np.concatenate([np.arange(start, min(start + size, len(row))) for start in starts[largest >= least]])
    inside = inside[row[inside] >= least]
    order = np.argsort(-row[inside], kind="stable")[:count]
    chosen: IntArray = inside[order]
    return chosen


def take(values: Any, indices: IntArray) -> Any:
    """Of values [B, N, …] those at indices [B, M] of their own row."""
    return np.take_along_axis(values, indices.reshape(*indices.shape, *[1] * (values.ndim - 2)), axis=1)


def join(first: Any, second: Any) -> Any:
    """[B, N + M, …] of [B, N, …] and [B, M, …]."""
    return np.concatenate([first, second], axis=1)


def put(sequences: IntArray, position: int, tokens: IntArray) -> IntArray:
    """The same array, sequences [B, M, S], now with tokens [B, M] at a position."""
    sequences[..., position] = tokens
    return sequences


def lower(values: FloatArray, where: Any) -> FloatArray:
    """Values with IMPOSSIBLE added where a mask holds."""
    lowered: FloatArray = values + where * np.float32(IMPOSSIBLE)
    return lowered


def keep(values: FloatArray, where: Any) -> FloatArray:
    """Values where a mask holds, and IMPOSSIBLE elsewhere."""
    kept: FloatArray = np.where(where, values, np.float32(IMPOSSIBLE))
    return kept


def ranks(values: Any) -> IntArray:
    """Int64 [B, N] with 0, 1, … in every row, for values [B, N]."""
    return np.broadcast_to(np.arange(values.shape[1]), values.shape)
