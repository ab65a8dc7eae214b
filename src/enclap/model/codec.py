"""The neural codec: a thin wrapper over transformers' EncodecModel that turns samples into codes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import EncodecModel

from enclap.errors import ModelError
from enclap.model.loading import load_pretrained
from enclap.types import FloatArray, IntArray


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

    @torch.inference_mode()
    def encode(self, samples: FloatArray) -> IntArray:
        """Codes int64 [T, K] of samples float32 [N] at `rate`, N >= 1; T = ceil(N / hop)."""
        values = torch.from_numpy(samples).to(self.model.device)[None, None]  # [1, 1, N]
        latents = self.model.encoder(values)  # [1, D, T]
        codes = self.model.quantizer.encode(latents)[: self.codebooks, 0]  # [K, T]
        result: IntArray = codes.T.cpu().numpy()
        return result
