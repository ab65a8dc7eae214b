"""The neural codec: a thin wrapper over transformers' EncodecModel that turns samples into codes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import EncodecModel

from enclap.errors import ModelError
from enclap.model.front_end import numbers
from enclap.model.loading import load_pretrained
from enclap.types import FloatArray, IntArray

FLOAT32_BYTES = 4


class Codec:
    """A frozen codec. rate: samples per second it takes. hop: samples per code frame. codebooks: codes per frame."""

    def __init__(self, model: EncodecModel, codebooks: int | None = None) -> None:
        config = model.config
        if config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
            raise ModelError("codec/config.json: only mono codecs without normalisation or chunks are supported")
        available = len(model.quantizer.layers)
        self.codebooks = available if codebooks is None else codebooks
        if self.codebooks > available:
            raise ModelError(f"codec/config.json: {available} codebooks, but the caption model reads {codebooks}")
        self.model = model.eval().requires_grad_(False)
        self.rate: int = config.sampling_rate
        self.hop: int = config.hop_length
        self.entries: int = config.codebook_size

    @classmethod
    def from_folder(cls, folder: Path, codebooks: int | None = None, device: str = "cpu") -> Codec:
        """The codec in `folder`, in float32, of which the first `codebooks` are used (None: all)."""
        model = load_pretrained(EncodecModel, folder, "the codec")
        return cls(model.to(device), codebooks)

    @property
    def is_causal(self) -> bool:
        """Whether later samples leave earlier codes as they are."""
        return bool(self.model.config.use_causal_conv)

    def encode(self, samples: FloatArray) -> IntArray:
        """Codes int64 [T, K] of samples float32 [N] at `rate`, N >= 1; T = ceil(N / hop)."""
        codes: IntArray = self.encode_batch(samples[None])[0]
        return codes

    @torch.inference_mode()
    def encode_batch(self, samples: FloatArray) -> IntArray:
        """Codes int64 [B, T, K] of clips of one length, float32 [B, N]."""
        values = torch.from_numpy(samples).to(self.model.device)[:, None]  # [B, 1, N]
        latents = self.model.encoder(values)  # [B, D, T]
        codes = self.model.quantizer.encode(latents)[: self.codebooks]  # [K, B, T]
        result: IntArray = codes.permute(1, 2, 0).cpu().numpy()
        return result

    @property
    def takes_lengths(self) -> bool:
        """Whether `encode_lengths` can encode clips of unlike length together."""
        config = self.model.config
        return self.is_causal and config.norm_type == "weight_norm" and config.pad_mode == "reflect"

    @torch.inference_mode()
    def encode_lengths(self, samples: Tensor, lengths: Sequence[int]) -> Tensor:
        """Codes int64 [B, T, K] on the codec's device, of clips float32 [B, N] that have `lengths` samples there.

        The first ceil(length / hop) frames are a clip's own, those of `encode` but for rounding; what follows them is
        without meaning. All clips go through the recurrent layers together. Where `takes_lengths` is false all lengths
        must be equal.
        """
        samples = samples[:, None, : max(lengths)]  # [B, 1, N]
        latents = self.latents(samples, lengths) if self.takes_lengths else self.model.encoder(samples)  # [B, D, T]
        codes: Tensor = self.model.quantizer.encode(latents)[: self.codebooks]  # [K, B, T]
        return codes.permute(1, 2, 0)

    def bytes_per_second(self, maps: int) -> float:
        """Memory of so many feature maps of the first layers, which are the largest, for a second of audio."""
        return float(maps * FLOAT32_BYTES * self.model.config.num_filters * self.rate)

    def latents(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """What the encoder makes of clips of unlike length."""
        counts = list(lengths)
        for layer in self.model.encoder.layers:
            name = type(layer).__name__
            if name == "EncodecConv1d":
                hidden, counts = self._convolutions[layer](hidden, counts)
            elif name == "EncodecResnetBlock":
                inner = hidden
                for part in layer.block:
                    known = self._convolutions.get(part)
                    inner = functional.elu(inner) if known is None else known(inner, counts)[0]
                known = self._convolutions.get(layer.shortcut)
                hidden = inner + (hidden if known is None else known(hidden, counts)[0])
            else:
                hidden = layer(hidden)
        return hidden

    @cached_property
    def _convolutions(self) -> dict[Any, CausalConvolution]:
        modules = self.model.encoder.modules()
        return {module: CausalConvolution(module) for module in modules if type(module).__name__ == "EncodecConv1d"}


class CausalConvolution:
    """One of EnCodec's causal convolutions over clips of unlike length, each padded as if it were alone.

    transformers' module keeps its padding in tensors, which a GPU would have to be waited for at every layer, and
    makes its weight from direction and size at every call; here both are taken out once.
    """

    def __init__(self, module: Any) -> None:
        self._weight: Tensor = module.conv.weight.detach().contiguous()
        self._bias: Tensor = module.conv.bias.detach()
        self._stride, self._dilation = int(module.conv.stride[0]), int(module.conv.dilation[0])
        self._before = int(module.padding_total)

    def __call__(self, hidden: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Float32 [B, C', n] and the clips' lengths in it, of [B, C, N]."""
        stride, before = self._stride, self._before
        counts = [-(-length // stride) for length in lengths]
        if before == 0:
            return functional.conv1d(hidden, self._weight, self._bias, dilation=self._dilation), counts
        short = max(0, before + 1 - hidden.shape[2])
        if min(lengths) <= before:  # its reflection at the start reaches beyond its end, where zeros are
            ends = numbers(lengths, hidden.device)[:, None, None]
            hidden = torch.where(torch.arange(hidden.shape[2], device=hidden.device) < ends, hidden, 0.0)
        start = functional.pad(hidden[:, :, 1 : before + 1], (0, short)).flip(2)
        padded = functional.pad(torch.cat([start, hidden], dim=2), (0, max(counts) * stride - hidden.shape[2]))
        if any(length % stride for length in lengths):
            self.reflect_ends(padded, lengths)
        return functional.conv1d(padded, self._weight, self._bias, stride, dilation=self._dilation), counts

    def reflect_ends(self, padded: Tensor, lengths: Sequence[int]) -> None:
        """Fill each clip up to a whole number of strides with its reflection, in place; a very short one with zeros."""
        device, before = padded.device, self._before
        ends = numbers(lengths, device)[:, None] + before  # [B, 1]
        offsets = torch.arange(self._stride - 1, device=device)[None]
        fill = numbers([-length % self._stride for length in lengths], device)[:, None]
        targets = ends + torch.minimum(offsets, fill - 1)  # the same one again where there is no more to fill
        sources = (ends - 2 - torch.minimum(offsets, fill - 1)).clamp(min=0)
        kept = ends - 1  # a clip without anything to fill writes its last sample into itself
        targets, sources = torch.where(fill > 0, targets, kept), torch.where(fill > 0, sources, kept)
        shape = (-1, padded.shape[1], -1)
        values = padded.gather(2, sources[:, None].expand(shape))
        is_short = (ends - before <= before) & (fill > 0)
        values = torch.where(is_short[:, None], 0.0, values)
        padded.scatter_(2, targets[:, None].expand(shape), values)
