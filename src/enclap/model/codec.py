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
