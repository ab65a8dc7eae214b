"""The decoder's reading of the encoder on a processor, without keys and values for every slot: see `few_queries`.

A caption has some 20 tokens and a clip some 750 slots. Multiplying the tokens' queries by the key matrix once, and what
they read by the value matrix, costs a third of keys and values of all slots, and gives the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.bart.modeling_bart import BartAttention


@contextmanager
def few_queries() -> Iterator[None]:
    """Inside, BART's attention to an encoder on the processor is `attend`, wherever that is less work.

    Losses and gradients are those of the plain formulation, as is what dropout draws.
    """
    plain = BartAttention.forward

    def forward(module: Any, hidden_states: Tensor, key_value_states: Tensor | None = None, **keywords: Any) -> Any:
        if key_value_states is None or not is_served(module, hidden_states, keywords.get("cache")):
            return plain(module, hidden_states, key_value_states=key_value_states, **keywords)
        return attend(module, hidden_states, key_value_states, keywords.get("attention_mask")), None

    with patch.object(BartAttention, "forward", forward):
        yield


def is_served(module: Any, tokens: Tensor, cache: object) -> bool:
    """Whether `attend` serves a call: fewer tokens than a head is wide, float32 without a cache, no adapters."""
    is_plain = cache is None and module.config._attn_implementation == "sdpa"
    linear = all(type(part) is nn.Linear for part in (module.k_proj, module.v_proj))
    precise = tokens.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_plain and linear and precise and tokens.device.type == "cpu" and tokens.shape[1] < module.head_dim


def attend(module: Any, tokens: Tensor, slots: Tensor, mask: Tensor | None) -> Tensor:
    """What tokens [B, S, D] read of slots [B, L, D]: [B, S, D], as BART's attention gives it.

    mask: broadcasts to [B, H, S, L], true where a slot is seen, or float32, added to the scores; or None.
    """
    (clips, count, width), heads, head_width = tokens.shape, module.num_heads, module.head_dim
    queries = module.q_proj(tokens) * module.scaling
    by_head = queries.view(clips * count, heads, head_width).transpose(0, 1)  # [H, B * S, D / H]
    keys, values = (part.weight.view(heads, head_width, width) for part in (module.k_proj, module.v_proj))
    projected = (by_head @ keys).view(heads, clips, count, width).transpose(0, 1).reshape(clips, -1, width)
    scores = (projected @ slots.transpose(1, 2)).view(clips, heads, count, -1)
    bias = by_head @ module.k_proj.bias.view(heads, head_width, 1)  # the same for all slots: it changes no weight
    scores = scores + bias.view(heads, clips, count, 1).transpose(0, 1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = functional.dropout(scores.softmax(dim=-1), module.dropout, module.training)
    read = weights.flatten(1, 2) @ slots  # [B, H * S, D]
    read = read.view(clips, heads, count, width).transpose(0, 1).reshape(heads, clips * count, width)
    sums = weights.sum(dim=-1).transpose(0, 1).reshape(heads, clips * count, 1)  # not 1 where some are dropped
    attended = read @ values.transpose(1, 2) + sums * module.v_proj.bias.view(heads, 1, head_width)
    joined: Tensor = module.out_proj(attended.transpose(0, 1).reshape(clips, count, width))
    return joined
