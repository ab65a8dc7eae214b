"""The networks as traceable graphs over the modules' own weights: what the ONNX files compute."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ClapModel, EncodecModel

from enclap.errors import ModelError
from enclap.model.clap import embed_crops
from enclap.model.codec import Codec
from enclap.model.modeling import EnclapForConditionalGeneration
from enclap.model.sequence import POSITION_OFFSET, Inputs
from enclap.model.tower import ConvClapModel


class CodecGraph(nn.Module):
    """Samples [B, 1, N] to codes int64 [B, T, K]; any N, one sample included."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        model: EncodecModel = copy.deepcopy(codec.model)
        for module in list(model.encoder.modules()):
            for name, child in list(module.named_children()):
                if hasattr(child, "padding_total"):
                    setattr(module, name, BranchFreeConv(child))
        self.encoder = model.encoder
        self.quantizers = model.quantizer.layers[: codec.codebooks]

    def forward(self, samples: Tensor) -> Tensor:
        """Codes of a batch of equally long clips."""
        residual = self.encoder(samples)  # [B, D, T]
        codes = []
        for quantizer in self.quantizers:
            chosen = quantizer.encode(residual)  # [B, T]
            residual = residual - quantizer.decode(chosen)
            codes.append(chosen)
        return torch.stack(codes, dim=-1)


class BranchFreeConv(nn.Module):
    """EnCodec's padded convolution without branches on the length, which tracing would freeze.

    The source (EncodecConv1d) reflects at both ends, and lengthens an input that is shorter than the padding by zeros
    first. Here only the border values are gathered, so long inputs are copied once.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        conv = cast(nn.Conv1d, source.conv)
        if source.norm_type != "weight_norm" or source.pad_mode not in ("reflect", "constant"):
            raise ModelError("codec/config.json: only weight_norm codecs with reflect or constant padding export")
        sizes = (conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0])
        self.conv = nn.Conv1d(*sizes, dilation=conv.dilation[0])  # without the normalisation: its product, for good
        self.conv.load_state_dict({"weight": conv.weight, "bias": cast(Tensor, conv.bias)})
        self.stride = conv.stride[0]
        total = int(cast(Tensor, source.padding_total))
        self.right = 0 if source.causal else total // 2
        self.left = total - self.right
        self.reflect = source.pad_mode == "reflect"

    def forward(self, values: Tensor) -> Tensor:
        """The convolution of values [B, C, L], L / stride rounded up."""
        length = torch.as_tensor(values.shape[-1])  # L, as a tensor that tracing follows
        right = self.right + torch.remainder(-length, self.stride)
        before = torch.arange(self.left, 0, -1)
        after = length + torch.arange(cast(int, right))
        if not self.reflect:
            return self._convolve(values, values[..., before * 0] * 0, values[..., after * 0] * 0)
        widest = torch.clamp(right, min=self.left)
        end = length + torch.clamp(widest - length + 1, min=0)  # length with the zeros that a short input gets
        mirrored = torch.where(after < end, after, 2 * (end - 1) - after)
        return self._convolve(values, _at(values, before, length), _at(values, mirrored, length))

    def _convolve(self, values: Tensor, before: Tensor, after: Tensor) -> Tensor:
        return cast(Tensor, self.conv(torch.cat([before, values, after], dim=-1)))


def _at(values: Tensor, places: Tensor, length: Tensor) -> Tensor:
    """Values [B, C, places], zero behind the end."""
    inside = (places < length).to(values.dtype)
    return values[..., torch.minimum(places, length - 1)] * inside


class ClapAudioGraph(nn.Module):
    """Mel crops [C, 1, T, M] to unit embeddings [C, E]."""

    def __init__(self, model: ClapModel | ConvClapModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, mel: Tensor) -> Tensor:
        """Embeddings of crops of the front end's fixed length."""
        return embed_crops(self.model, mel)


class ClapTextGraph(nn.Module):
    """Token ids and attention mask [N, S] to unit embeddings [N, E]."""

    def __init__(self, model: ClapModel | ConvClapModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of padded texts."""
        hidden = mask[:, None, None, :].to(self.model.dtype)
        bias = (1.0 - hidden) * torch.finfo(self.model.dtype).min  # [N, 1, 1, S]
        return cast(Tensor, self.model.get_text_features(ids, attention_mask=bias).pooler_output)


class EncoderGraph(nn.Module):
    """A clip's inputs to the cross-attention keys and values of every decoder layer, computed once per clip.

    Keys [B, H, D / H, S] lie transposed, ready for the decoder's products; values are [B, H, S, D / H].
    """

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.names = encoder_inputs(model)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Key, value, key, value, … of the layers, first layer first."""
        encoded, _ = self.model.encode(Inputs(**dict(zip(self.names, values, strict=True))))
        states = encoded.last_hidden_state  # [B, S, D]
        heads = self.model.config.decoder_attention_heads
        results = []
        for layer in cast(Any, self.model.get_decoder()).layers:
            attention = layer.encoder_attn
            key = attention.k_proj(states).unflatten(-1, (heads, -1))  # [B, S, H, D / H]
            value = attention.v_proj(states).unflatten(-1, (heads, -1))
            results += [key.permute(0, 2, 3, 1), value.permute(0, 2, 1, 3)]
        return tuple(results)


class DecoderGraph(nn.Module):
    """One decoding step for W beams of each of B clips.

    The beams of a clip are query positions of one cross-attention, so they share its keys and values without a copy.
    past: self-attention keys and values [P, layers, 2, B, W, H, D / H]; steps lie outermost, so that the caller can
    append in place; P = 0 in the first step.
    """

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.decoder: Any = model.get_decoder()
        self.heads: int = model.config.decoder_attention_heads

    def forward(self, tokens: Tensor, past: Tensor, *cross: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, W, V] and this step's keys and values [1, layers, 2, B, W, H, D / H]."""
        decoder = self.decoder
        position = torch.arange(past.shape[0], past.shape[0] + 1) + POSITION_OFFSET
        vectors = decoder.embed_tokens(tokens) + functional.embedding(position, decoder.embed_positions.weight)
        states = decoder.layernorm_embedding(vectors)  # [B, W, D]
        fresh = []
        for index, layer in enumerate(decoder.layers):
            states, keys_values = self._self_attention(layer, states, past[:, index])
            fresh.append(keys_values)
            states = self._cross_attention(layer, states, cross[2 * index], cross[2 * index + 1])
            inner = layer.activation_fn(layer.fc1(states))
            states = layer.final_layer_norm(states + layer.fc2(inner))
        clips, beams, width = states.shape
        flat = functional.linear(
            states.reshape(clips * beams, width), self.model.lm_head.weight, self.model.final_logits_bias[0]
        )  # flat, so that it becomes a Gemm that reads the tied token table as it lies
        return flat.reshape(clips, beams, -1), torch.stack(fresh)[None]

    def _split(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:-1], self.heads, -1)  # [B, W, H, D / H]

    def _self_attention(self, layer: Any, states: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, W, D] and fresh keys and values [2, B, W, H, D / H]; past: [P, 2, B, W, H, D / H]."""
        attention = layer.self_attn
        query = self._split(attention.q_proj(states)) * attention.scaling
        fresh = torch.stack([self._split(attention.k_proj(states)), self._split(attention.v_proj(states))])
        both = torch.cat([past, fresh[None]], dim=0)  # [P + 1, 2, B, W, H, D / H]
        keys, values = both[:, 0].permute(1, 2, 3, 4, 0), both[:, 1].permute(1, 2, 3, 0, 4)
        weights = (query[..., None, :] @ keys).softmax(-1)  # [B, W, H, 1, P + 1]
        mixed = (weights @ values).flatten(2)  # [B, W, D]
        return cast(Tensor, layer.self_attn_layer_norm(states + attention.out_proj(mixed))), fresh

    def _cross_attention(self, layer: Any, states: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """States [B, W, D] after attending to a clip's keys [B, H, D / H, S] and values [B, H, S, D / H]."""
        attention = layer.encoder_attn
        query = (self._split(attention.q_proj(states)) * attention.scaling).transpose(1, 2)  # [B, H, W, D / H]
        mixed = ((query @ keys).softmax(-1) @ values).transpose(1, 2).flatten(2)  # [B, W, D]
        return cast(Tensor, layer.encoder_attn_layer_norm(states + attention.out_proj(mixed)))


def encoder_inputs(model: EnclapForConditionalGeneration) -> list[str]:
    """Names of the encoder graph's inputs, in order: those that the model's configuration takes."""
    config = model.config
    used = {
        "codes": config.acoustic_input == "codes",
        "log_mel": config.acoustic_input == "log_mel",
        "clap_embedding": config.use_clap,
    }
    return [name for name, is_used in used.items() if is_used]
