"""Dropout on a processor, several times as fast as PyTorch's and with a quarter of its memory; see `quick_dropout`.

PyTorch draws what is dropped one number after the other on a single core, and keeps four bytes for each; its attention
with dropout also keeps two tables [B, H, L, L] of weights. Here sixteen random bits decide, one byte remembers, and the
weights of attention are computed again in the backward pass, in pieces that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 1 << 16
"""Probabilities are multiples of one part in so many."""
WEIGHTS_OF_A_PIECE = 1_200_000
"""Attention weights that are computed together: 5 MB of float32, as two heads of 750 frames have."""


@contextmanager
def quick_dropout() -> Iterator[None]:
    """Inside, PyTorch's dropout and attention with dropout on the processor are the ones of this module, everywhere.

    What is drawn follows from PyTorch's own generator, whose state checkpoints hold; losses and gradients are those of
    plain code that drops the same. PyTorch's functions are replaced by name, because a TorchFunctionMode does not reach
    the layers that checkpointing computes again in the backward pass.
    """
    plain_dropout, plain_attention = functional.dropout, functional.scaled_dot_product_attention

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not is_dropped(input, p, training, inplace):
            return plain_dropout(input, p, training, inplace)
        return cast(Any, Dropout).apply(input, *draw_kept(input.shape, p))

    def attention(query: Tensor, key: Tensor, value: Tensor, *others: Any, **keywords: Any) -> Any:
        if others or not is_attention_dropped(query, **keywords):
            return plain_attention(query, key, value, *others, **keywords)
        kept, share = draw_kept((*query.shape[:3], key.shape[2]), keywords["dropout_p"])
        factor = query.shape[-1] ** -0.5 if keywords.get("scale") is None else keywords["scale"]
        mask = keywords.get("attn_mask")
        if keywords.get("is_causal"):
            mask = torch.ones(1, 1, *kept.shape[2:], dtype=torch.bool).tril()
        return cast(Any, DroppedAttention).apply(query, key, value, mask, kept, share, factor)

    with patch.multiple(functional, dropout=dropout, scaled_dot_product_attention=attention):
        yield


def is_dropped(values: Tensor, p: float, training: bool, inplace: bool) -> bool:
    """Whether `Dropout` serves a call of dropout."""
    return training and 0 < p < 1 and not inplace and values.device.type == "cpu" and values.is_floating_point()


def is_attention_dropped(
    query: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
    scale: float | None = None,
) -> bool:
    """Whether `DroppedAttention` serves a call of attention: in float32, with a mask that all heads share."""
    if not 0 < dropout_p < 1 or enable_gqa or query.device.type != "cpu" or query.ndim != 4:
        return False
    shared = attn_mask is None or (attn_mask.ndim == 4 and attn_mask.shape[1] == 1)
    return shared and query.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def draw_kept(shape: Sequence[int], probability: float) -> tuple[Tensor, float]:
    """Uint8 of a shape, 1 for what is kept and 0 for what is dropped with a probability; and the share that is kept."""
    seed, count = int(torch.randint(2**63 - 1, ())), int(np.prod(shape))
    values = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.uint16)[:count]
    level = min(LEVELS - 1, max(1, round((1.0 - probability) * LEVELS)))
    return torch.from_numpy((values < level).view(np.uint8)).view(*shape), level / LEVELS


class Dropout(torch.autograd.Function):
    """Values times what is kept of them, divided by the share that is kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept: Tensor, share: float) -> Tensor:
        """The values; kept: uint8 of the same shape."""
        ctx.save_for_backward(kept)
        ctx.share = share
        return kept.to(values.dtype).mul_(values).div_(share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the values."""
        [kept] = ctx.saved_tensors
        return kept.to(gradients[0].dtype).mul_(gradients[0]).div_(ctx.share), None, None


class DroppedAttention(torch.autograd.Function):
    """softmax(factor * Q Kᵀ), of which only the weights in `kept` count, divided by their share, times V.

    Source of the backward pass without stored weights: FlashAttention (arXiv 2205.14135); the row sums of gradient
    times weights are those of gradient times output.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Attended values [B, H, S, D / H].

        inputs: query, as large; key and value [B, H, L, D / H]; mask, which broadcasts to [B, 1, S, L], true where a
        key is seen, or float32, added to the scores, or None; kept: uint8 [B, H, S, L]; share; factor.
        """
        query, key, value, mask, kept, share, factor = inputs
        attended = torch.empty(query.shape)
        mask = None if mask is None else mask.expand(len(query), -1, *kept.shape[2:])
        for at in pieces_of(kept):
            weights = attention_weights(query[at], key[at], None if mask is None else mask[at[0]], factor)
            torch.bmm(weights.mul_(kept[at].float()), value[at], out=attended[at])
        attended.div_(share)
        ctx.save_for_backward(query, key, value, mask, kept, attended)
        ctx.share, ctx.factor = share, factor
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, mask, kept, attended = ctx.saved_tensors
        sums = (gradients[0] * attended).sum(dim=-1, keepdim=True)  # [B, H, S, 1]
        gradient = gradients[0] / ctx.share
        to_query, to_key, to_value = (torch.empty(part.shape) for part in (query, key, value))
        for at in pieces_of(kept):
            weights = attention_weights(query[at], key[at], None if mask is None else mask[at[0]], ctx.factor)
            remain = kept[at].float()
            changes = torch.bmm(gradient[at], value[at].transpose(1, 2)).mul_(remain).sub_(sums[at]).mul_(weights)
            torch.bmm(weights.mul_(remain).transpose(1, 2), gradient[at], out=to_value[at])
            torch.bmm(changes, key[at], out=to_query[at])  # `changes` are the gradients of the scores
            torch.bmm(changes.transpose(1, 2), query[at], out=to_key[at])
        return to_query.mul_(ctx.factor), to_key.mul_(ctx.factor), to_value, None, None, None, None


def pieces_of(kept: Tensor) -> Iterator[tuple[int, slice]]:
    """Where the pieces lie: a clip, and some of its heads."""
    clips, heads = kept.shape[:2]
    together = max(1, WEIGHTS_OF_A_PIECE // max(1, kept[0, 0].numel()))
    together -= together % torch.get_num_threads() if together > torch.get_num_threads() else 0  # none waits for others
    return ((clip, slice(head, head + together)) for clip in range(clips) for head in range(0, heads, together))


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, factor: float) -> Tensor:
    """Weights [heads, S, L] of some heads of a clip, before dropout."""
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(factor)
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    elif mask is not None:
        scores.add_(mask)
    return torch.softmax(scores, dim=-1)
