"""The array functions of the beam rules for tensors; see `enclap.decoding.arrays.ArrayFunctions`.

None of them waits for the device or depends on a value there, so all of them can be recorded and repeated. That is why
no number becomes a tensor of its own here: it would have to be copied to the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from enclap.decoding.arrays import IMPOSSIBLE


def top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of [B, N], falling, and their indices; as transformers takes them."""
    largest, indices = torch.topk(values, count)
    return largest, indices


def take(values: Tensor, indices: Tensor) -> Tensor:
    """Of values [B, N, …] those at indices [B, M] of their own row."""
    index = indices.reshape(*indices.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(*indices.shape, *values.shape[2:]))


def join(first: Tensor, second: Tensor) -> Tensor:
    """[B, N + M, …] of [B, N, …] and [B, M, …]."""
    return torch.cat([first, second], dim=1)


def put(sequences: Tensor, position: Tensor, tokens: Tensor) -> Tensor:
    """The same tensor, sequences [B, M, S], now with tokens [B, M] at a position, an int64 tensor [1]."""
    return sequences.index_copy_(2, position, tokens[..., None])


def lower(values: Tensor, where: Tensor) -> Tensor:
    """Values with IMPOSSIBLE added where a mask holds."""
    return torch.add(values, where, alpha=IMPOSSIBLE)


def keep(values: Tensor, where: Tensor) -> Tensor:
    """Values where a mask holds, and IMPOSSIBLE elsewhere."""
    return values.masked_fill(~where, IMPOSSIBLE)


def ranks(values: Tensor) -> Tensor:
    """Int64 [B, N] with 0, 1, … in every row, for values [B, N]."""
    return torch.arange(values.shape[1], device=values.device).expand_as(values)
