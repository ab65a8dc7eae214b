"""The published sizes as plain transformers code runs them: stage after stage, one clip at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from enclap.audio.resample import resample
from enclap.engines.batching import clap_input
from enclap.hub.model_folder import ModelFolder
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.loading import load_caption_model
from enclap.types import Window

MOST_BANDWIDTH = 12.0  # kbps: 16 codebooks


class PlainLoop:
    """Loads a model folder's modules; a call captions one window and returns the seconds of its stages."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.folder = ModelFolder.read(path)
        self.device = device
        self.codec = Codec.from_folder(path / "codec", self.folder.caption.codebooks, device)
        offered = self.codec.model.config.target_bandwidths
        self.bandwidth = max(rate for rate in offered if rate <= MOST_BANDWIDTH)
        self.clap = Clap.from_folder(path / "clap", device)
        self.model = load_caption_model(path).to(device)
        flags = json.loads((path / "generation_config.json").read_text())
        self.flags = {name: value for name, value in flags.items() if value is not None}

    @torch.inference_mode()
    def __call__(self, window: Window, **flags: int) -> dict[str, float]:
        """Seconds of codec, CLAP, and encoder with decoding."""
        taken: dict[str, float] = {}

        def timed(stage: str, action: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = action()
            if self.device == "cuda":
                torch.cuda.synchronize()
            taken[stage] = time.perf_counter() - start
            return result

        samples = torch.from_numpy(resample(window.waveform, self.codec.rate))[None, None].to(self.device)
        encoded = timed("codec", lambda: self.codec.model.encode(samples, bandwidth=self.bandwidth))
        mel = clap_input(self.folder, window)
        embedding = timed("clap", lambda: torch.from_numpy(self.clap.embed_audio(mel))[None].to(self.device))
        codes = encoded.audio_codes[0].transpose(1, 2)  # [B, T, K]
        inputs = {"codes": codes, "clap_embedding": embedding, **self.flags, **flags}
        timed("encoder and decoding", lambda: self.model.generate(**inputs))
        return taken
