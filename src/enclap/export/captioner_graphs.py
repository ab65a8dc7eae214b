"""The caption model as traceable graphs over its own weights: what encoder.onnx and decoder.onnx compute."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from enclap.model.captioner import EnclapForConditionalGeneration
from enclap.model.slots import POSITION_OFFSET, EncoderInputs

ONNXRUNTIME_DOMAIN = "com.microsoft"
"""Operators that onnxruntime has beside the standard ones."""


class EncoderGraph(nn.Module):
    """A clip's inputs to the cross-attention keys and values of every decoder layer, computed once per clip.

    With H heads and L slots, keys [B, H, D / H, L] lie transposed, ready for the decoder's products; values are
    [B, H, L, D / H].
    """

    custom_opsets: ClassVar[dict[str, int]] = {ONNXRUNTIME_DOMAIN: 1}

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.encoder: Any = model.get_encoder()
        self.names = encoder_input_names(model)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Key, value, key, value, … of the layers, first layer first."""
        slots = self.model.embed_slots(EncoderInputs(**dict(zip(self.names, values, strict=True))))  # [B, L, D]
        states = slots + self.encoder.embed_positions(slots[:, :, -1])  # needed for the shape only
        states = self.encoder.layernorm_embedding(states)
        for layer in self.encoder.layers:
            attention = layer.self_attn
            query, key, value = attention.q_proj(states), attention.k_proj(states), attention.v_proj(states)
            mixed = _FusedAttention.apply(query, key, value, attention.num_heads)  # type: ignore[no-untyped-call]
            states = layer.self_attn_layer_norm(states + attention.out_proj(mixed))
            inner = layer.activation_fn(layer.fc1(states))
            states = layer.final_layer_norm(states + layer.fc2(inner))
        heads = self.model.config.decoder_attention_heads
        results: list[Tensor] = []
        for layer in cast(Any, self.model.get_decoder()).layers:
            attention = layer.encoder_attn
            key = attention.k_proj(states).unflatten(-1, (heads, -1))  # [B, L, H, D / H]
            value = attention.v_proj(states).unflatten(-1, (heads, -1))
            results += [key.permute(0, 2, 3, 1), value.permute(0, 2, 1, 3)]
        return tuple(results)


class _FusedAttention(torch.autograd.Function):
    """Attention of queries, keys and values [B, L, D] with H heads, exported as one operator.

    onnxruntime computes it in tiles that stay in the processor's cache; written out, the weights [B, H, L, L] of every
    layer go through memory three times.
    """

    @staticmethod
    def forward(_context: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """The mixed values [B, L, D]."""
        query, key, value = (item.view(*item.shape[:2], heads, -1).transpose(1, 2) for item in (query, key, value))
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # of [B, H, S, …]

    @staticmethod
    def symbolic(graph: Any, query: Any, key: Any, value: Any, heads: int) -> Any:
        """The operator in the exported graph."""
        mixed = graph.op(f"{ONNXRUNTIME_DOMAIN}::MultiHeadAttention", query, key, value, num_heads_i=heads)
        return mixed.setType(query.type())


class DecoderGraph(nn.Module):
    """One decoding step over N new tokens for W beams of each of B clips.

    The beams of a clip are query positions of one cross-attention, so they share its keys and values without a copy.
    past: self-attention keys and values [P, layers, 2, B, W, H, D / H]; positions lie outermost, so that the caller can
    append in place; P = 0 in the first step. cross_bias: [B, L], added to the cross-attention's scores: 0 for a clip's
    slots, very negative for the padding after a shorter clip's.
    """

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.decoder: Any = model.get_decoder()
        self.heads: int = model.config.decoder_attention_heads

    def forward(self, tokens: Tensor, past: Tensor, cross_bias: Tensor, *cross: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, W, V] after the last of tokens [B, W, N], and their keys and values [N, layers, 2, B, W, …]."""
        decoder = self.decoder
        before, new = past.shape[0], tokens.shape[2]
        positions = torch.arange(before, before + new)
        vectors = decoder.embed_tokens(tokens) + functional.embedding(
            positions + POSITION_OFFSET, decoder.embed_positions.weight
        )
        states = decoder.layernorm_embedding(vectors)  # [B, W, N, D]
        later = torch.arange(before + new)[None] > positions[:, None]  # [N, P + N]
        causal = torch.where(later, float("-inf"), 0.0)
        fresh = []
        for index, layer in enumerate(decoder.layers):
            states, keys_values = self._self_attention(layer, states, past[:, index], causal)
            fresh.append(keys_values)
            states = self._cross_attention(layer, states, cross[2 * index], cross[2 * index + 1], cross_bias)
            inner = layer.activation_fn(layer.fc1(states))
            states = layer.final_layer_norm(states + layer.fc2(inner))
        clips, beams, _, width = states.shape
        flat = functional.linear(
            states[:, :, -1].reshape(clips * beams, width), self.model.lm_head.weight, self.model.final_logits_bias[0]
        )  # flat, so that it becomes a Gemm that reads the tied token table as it lies
        return flat.reshape(clips, beams, -1), torch.stack(fresh, dim=1)

    def _split(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:-1], self.heads, -1)  # [B, W, N, H, D / H]

    def _self_attention(self, layer: Any, states: Tensor, past: Tensor, causal: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, W, N, D] and fresh keys and values [N, 2, B, W, H, D / H]; past: [P, 2, B, W, H, D / H]."""
        attention = layer.self_attn
        query = self._split(attention.q_proj(states)) * attention.scaling
        fresh = torch.stack([self._split(attention.k_proj(states)), self._split(attention.v_proj(states))])
        fresh = fresh.permute(3, 0, 1, 2, 4, 5)
        both = torch.cat([past, fresh], dim=0)  # [P + N, 2, B, W, H, D / H]
        keys, values = both[:, 0].permute(1, 2, 3, 4, 0), both[:, 1].permute(1, 2, 3, 0, 4)
        weights = (query.transpose(2, 3) @ keys + causal).softmax(-1)  # [B, W, H, N, P + N]
        mixed = (weights @ values).transpose(2, 3).flatten(3)  # [B, W, N, D]
        return cast(Tensor, layer.self_attn_layer_norm(states + attention.out_proj(mixed))), fresh

    def _cross_attention(self, layer: Any, states: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """States [B, W, N, D] after attending to a clip's keys [B, H, D / H, L] and values [B, H, L, D / H].

        Each query is a product of its own, of one row: onnxruntime reads the other factor as it lies then. For two rows
        and more it would copy keys and values, which are far larger than the queries, into another order first.
        """
        attention = layer.encoder_attn
        query = self._split((attention.q_proj(states) * attention.scaling).flatten(1, 2)).transpose(1, 2)
        scores = query.unsqueeze(3) @ keys.unsqueeze(2) + bias[:, None, None, None]  # [B, H, W N, 1, L]
        mixed = scores.softmax(-1) @ values.unsqueeze(2)  # [B, H, W N, 1, D / H]
        mixed = mixed.squeeze(3).transpose(1, 2).flatten(2).reshape(states.shape)
        return cast(Tensor, layer.encoder_attn_layer_norm(states + attention.out_proj(mixed)))


def encoder_input_names(model: EnclapForConditionalGeneration) -> list[str]:
    """Names of the encoder graph's inputs, in order: those that the model's configuration takes."""
    config = model.config
    used = {
        "codes": config.acoustic_input == "codes",
        "log_mel": config.acoustic_input == "log_mel",
        "clap_embedding": config.use_clap,
    }
    return [name for name, is_used in used.items() if is_used]
