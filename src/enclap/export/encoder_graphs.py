"""Codec and CLAP as traceable graphs over their own weights: what their ONNX files compute."""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn

from enclap.errors import ModelError
from enclap.model.audio_encoder import AudioEncoder
from enclap.model.codec import Codec
from enclap.model.conv_clap import ConvClapModel


class ConvEncoderGraph(nn.Module):
    """Samples [B, 1, N] to the latents [B, D, T] that the codec's recurrent layers read; any N, one sample included.

    context: frames that a segment needs before the first one that is used, so that its mirrored start does not reach
    those; None when later samples count too, so that a clip cannot be convolved in segments.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        layers = branch_free(codec)
        self.layers = layers[: recurrence(layers)]
        self.context = context_frames(self.layers, codec.hop)

    def forward(self, samples: Tensor) -> Tensor:
        """Latents of a batch of equally long clips."""
        return cast(Tensor, self.layers(samples))


class CodesGraph(nn.Module):
    """Latents [B, D, T] to codes int64 [B, T, K]."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        layers = branch_free(codec)
        self.layers = layers[recurrence(layers) :]
        self.quantizers = codec.model.quantizer.layers[: codec.codebooks]

    def forward(self, latents: Tensor) -> Tensor:
        """Codes of a batch of equally long clips."""
        residual = self.layers(latents)  # [B, D, T]
        codes = []
        for quantizer in self.quantizers:
            chosen = quantizer.encode(residual)  # [B, T]
            residual = residual - quantizer.decode(chosen)
            codes.append(chosen)
        return torch.stack(codes, dim=-1)


def branch_free(codec: Codec) -> nn.Sequential:
    """The codec's encoder with traceable convolutions."""
    encoder = copy.deepcopy(codec.model.encoder)
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "padding_total"):
                setattr(module, name, BranchFreeConv(child))
    return nn.Sequential(*encoder.layers)


def recurrence(layers: nn.Sequential) -> int:
    """Index of the first layer that needs all frames before it; the layers before that one are convolutions."""
    return next((index for index, layer in enumerate(layers) if hasattr(layer, "lstm")), len(layers))


def context_frames(layers: nn.Module, hop: int) -> int | None:
    """Frames by which the input's start reaches into the output of causal convolutions; None unless all are causal."""
    reach, step = 0, 1  # samples that an output sees before its own, samples from one output to the next
    for module in layers.modules():
        if isinstance(module, BranchFreeConv):
            if module.right:
                return None
            reach += module.left * step  # shortcuts see less than the branch that is counted here
            step *= module.stride
    return math.ceil(reach / hop) + 1


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
        """The convolution of values [B, D, N]; N / stride rounded up."""
        length = torch.as_tensor(values.shape[-1])  # N, as a tensor that tracing follows
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


def _at(values: Tensor, indices: Tensor, length: Tensor) -> Tensor:
    """Values [B, D, indices] of values [B, D, N], zero after the end."""
    inside = (indices < length).to(values.dtype)
    return values[..., torch.minimum(indices, length - 1)] * inside


class ClapAudioGraph(nn.Module):
    """Mel crops [C, channels, F, M] to unit embeddings [C, E]."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = encoder.network  # a module's own attribute, so that tracing finds its weights
        self.keep_norms = isinstance(self.network, ConvClapModel)  # half the file; they are folded when it is loaded

    def forward(self, mel: Tensor) -> Tensor:
        """Embeddings of crops of the front end's fixed length."""
        return self.encoder.embed(mel)


class ClapTextGraph(nn.Module):
    """Token ids and attention mask [N, S] to unit embeddings [N, E]."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.model = encoder.network

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of padded texts."""
        hidden = mask[:, None, None, :].to(self.model.dtype)
        bias = (1.0 - hidden) * torch.finfo(self.model.dtype).min  # [N, 1, 1, S]
        return cast(Tensor, self.model.get_text_features(ids, attention_mask=bias).pooler_output)
