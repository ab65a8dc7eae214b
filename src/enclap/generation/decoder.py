"""The caption model's decoder in few operations, over keys and values whose place and shape never change.

A step for W beams of each of B clips reads one token a beam. The beams of a clip are query positions of one attention,
so they share its encoder's keys and values without a copy. Their own keys and values share a cache too: all beams'
lie in it, and a mask says which of them belong to a beam's sequence, so that no key moves when beams change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from enclap.model import EnclapForConditionalGeneration
from enclap.model.slots import POSITION_OFFSET

KEY_BLOCK = 16
"""Keys in a cache are a multiple of this: attention kernels copy a mask of another width in every layer and step."""


def rounded_up(number: int, block: int) -> int:
    """The least multiple of `block` that is not below a number."""
    return -(-number // block) * block


@dataclass(frozen=True, slots=True)
class AttentionCache:
    """Keys and values of C clips with W beams, with H heads, in every layer, and the masks that are added to scores.

    own: [layers, 2, C, H, K, D / H], of the tokens so far, K >= W times the tokens; beam w's at position p lie at
    p W + w. own_mask: [C, 1, W, K], 0 where a key belongs to a beam's sequence, else -inf.
    cross: [layers, 2, C, H, L, D / H], of the encoder's slots. cross_mask: [C, 1, 1, L], -inf at padding.
    fresh: [1, 1, W, W], the mask's new columns at every step: each beam's newest token belongs to that beam alone.
    columns: int64 [tokens, W], where the keys of a position lie.
    """

    own: Tensor
    own_mask: Tensor
    cross: Tensor
    cross_mask: Tensor
    fresh: Tensor
    columns: Tensor

    @classmethod
    def make(cls, config: Any, weight: Tensor, size: tuple[int, int, int, int]) -> AttentionCache:
        """An empty cache of a weight's device and dtype, for a model's configuration.

        size: clips, beams, tokens and encoder slots.
        """
        clips, beams, tokens, slots = size
        layers, heads, width = config.decoder_layers, config.decoder_attention_heads, config.d_model
        keys = rounded_up(beams * tokens, KEY_BLOCK)
        own, cross = (weight.new_zeros(layers, 2, clips, heads, length, width // heads) for length in (keys, slots))
        masks = weight.new_zeros(clips, 1, beams, keys), weight.new_zeros(clips, 1, 1, slots)
        others = ~torch.eye(beams, dtype=torch.bool, device=weight.device)
        fresh = weight.new_zeros(beams, beams).masked_fill_(others, -torch.inf)
        columns = torch.arange(beams * tokens, device=weight.device).view(tokens, beams)
        return cls(own, masks[0], cross, masks[1], fresh[None, None], columns)

    def first(self, clips: int, slots: int) -> AttentionCache:
        """The same memory, of the first clips and encoder slots only."""
        cross, mask = self.cross[:, :, :clips, :, :slots], self.cross_mask[:clips, ..., :slots]
        return AttentionCache(self.own[:, :, :clips], self.own_mask[:clips], cross, mask, self.fresh, self.columns)

    def clear(self) -> None:
        """Forget all clips. What is masked must be finite, so that nothing of an earlier clip can come through."""
        self.own.zero_(), self.cross.zero_(), self.cross_mask.zero_()
        self.own_mask.fill_(-torch.inf)

    def reorder(self, beams: Tensor) -> None:
        """Let beam w of clip b go on from beam beams[b, w] of the same clip."""
        rows = beams[:, None, :, None].expand(-1, -1, -1, self.own_mask.shape[3])
        self.own_mask.copy_(self.own_mask.gather(2, rows))

    def keep(self, clips: Tensor) -> None:
        """Move clips, int64 [N], to the front, in their order; layer by layer, to need little memory besides."""
        count = len(clips)
        for values in (*self.own, *self.cross):  # [2, C, H, …]
            values[:, :count] = values[:, clips]
        for mask in (self.own_mask, self.cross_mask):
            mask[:count] = mask[clips]


class FusedDecoder:
    """The decoder of a model that will not change: its weights, those that meet the same input joined.

    In evaluation: no dropout. Source: BART (arXiv 1910.13461), normalisation after each part.
    """

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        decoder: Any = model.get_decoder()
        self.config = model.config
        self.weight: Tensor = model.lm_head.weight
        self._bias = model.final_logits_bias[0]
        table, scale = decoder.embed_tokens.weight, decoder.embed_tokens.embed_scale
        self._tokens: Tensor = table if scale == 1 else table * scale
        self._positions: Tensor = decoder.embed_positions.weight[POSITION_OFFSET:]
        self._norm = decoder.layernorm_embedding
        self._layers = list(decoder.layers)
        self._own = [_joined(layer.self_attn, ("q_proj", "k_proj", "v_proj")) for layer in self._layers]
        self._cross = [_joined(layer.encoder_attn, ("k_proj", "v_proj")) for layer in self._layers]

    def fill(self, cache: AttentionCache, clips: Sequence[Tensor]) -> None:
        """Let the cache hold these clips alone, by their encoder's states [L, D]; those of one length go together."""
        cache.clear()
        first = 0
        for slots, group in groupby(clips, len):
            states = torch.stack(list(group))  # [N, L, D]
            last = first + len(states)
            shape = (len(states), slots, 2, self.config.decoder_attention_heads, -1)
            for layer, (weight, bias) in enumerate(self._cross):
                keys_values = functional.linear(states, weight, bias).view(shape).permute(2, 0, 3, 1, 4)
                cache.cross[layer, :, first:last, :, :slots] = keys_values
            cache.cross_mask[first:last, ..., slots:] = -torch.inf
            first = last

    def step(self, cache: AttentionCache, tokens: Tensor, position: Tensor) -> Tensor:
        """States [B W, D] after tokens [B, W] at a position, an int64 tensor [1]; the cache then holds them."""
        clips, beams = tokens.shape
        columns = cache.columns.index_select(0, position)[0]  # [W]
        cache.own_mask.index_copy_(3, columns, cache.fresh.expand(clips, -1, -1, -1))
        vectors = functional.embedding(tokens, self._tokens) + self._positions.index_select(0, position)
        states: Tensor = self._norm(vectors).view(clips * beams, -1)  # [B W, D]
        shape = (clips, beams, -1, self.config.decoder_attention_heads, cache.own.shape[-1])
        for index, layer in enumerate(self._layers):
            fused = functional.linear(states, *self._own[index]).view(shape).permute(2, 0, 3, 1, 4)  # [3, B, H, W, …]
            cache.own[index].index_copy_(3, columns, fused[1:])
            mixed = attention(fused[0], cache.own[index], cache.own_mask)
            states = layer.self_attn_layer_norm(states + layer.self_attn.out_proj(mixed))
            query = layer.encoder_attn.q_proj(states).view(shape).permute(2, 0, 3, 1, 4)[0]
            mixed = attention(query, cache.cross[index], cache.cross_mask)
            states = layer.encoder_attn_layer_norm(states + layer.encoder_attn.out_proj(mixed))
            inner = layer.fc2(layer.activation_fn(layer.fc1(states)))
            states = layer.final_layer_norm(states + inner)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Float32 [R, V] of states [R, D]."""
        return functional.linear(states, self.weight, self._bias).float()


def attention(query: Tensor, keys_values: Tensor, mask: Tensor) -> Tensor:
    """Mixed values [B W, D] of queries [B, H, W, D / H], keys and values [2, B, H, K, D / H]; mask: [B, 1, …, K]."""
    mixed = functional.scaled_dot_product_attention(query, keys_values[0], keys_values[1], attn_mask=mask)
    return mixed.transpose(1, 2).reshape(query.shape[0] * query.shape[2], -1)


def _joined(attention_layer: Any, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The weights and biases of projections of the same input, one below the other."""
    projections = [getattr(attention_layer, name) for name in names]
    weights, biases = [item.weight for item in projections], [item.bias for item in projections]
    return torch.cat(weights), torch.cat(biases)
