"""CLAP's feature fusion without branches on the input: long clips through the fused tower, traceable.

Source: feature fusion of LAION-CLAP (arXiv 2211.06687), as transformers' ClapAudioPatchEmbed computes it.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from enclap.model.audio_encoder import HtsatClap


class FusedPatchEmbed(nn.Module):
    """transformers' patch embedding of a fused tower, for clips that are all marked "longer"."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def forward(self, images: Tensor, _longer: Any = None) -> Tensor:
        """Patch vectors of images [B, 4, height, width]: the whole clip, then its three crops."""
        source = self.source
        whole = source.proj(images[:, :1])  # [B, D, h, w]
        crops = source.mel_conv2d(images[:, 1:].flatten(0, 1)[:, None])  # [B * 3, D, h, w / 3]
        crops = crops.unflatten(0, (-1, images.shape[1] - 1)).permute(0, 2, 3, 1, 4).flatten(3)  # side by side
        crops = functional.pad(crops, (0, whole.shape[-1] - crops.shape[-1]))
        fused = source.fusion_model(whole, crops)
        vectors = fused.flatten(2).transpose(1, 2) if source.flatten else fused
        return cast(Tensor, source.norm(vectors))


def traceable_fusion(encoder: HtsatClap) -> HtsatClap:
    """The encoder, which must have feature fusion, for clips of four spectrograms [C, 4, F, M] alone."""
    network: Any = copy.deepcopy(encoder.network)
    tower = network.audio_model.audio_encoder
    tower.patch_embed = FusedPatchEmbed(tower.patch_embed)
    return HtsatClap(network, encoder.front_end)
