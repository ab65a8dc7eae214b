"""An engine without a model: its sentences say what it was given, so that tests can see what went where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enclap.decoding.options import DecodingOptions
from enclap.types import Candidate, Features, FloatArray, Window


class EchoEngine:
    """Says how long each window is and how loud; keeps the size of every batch."""

    name = "echo"
    code_rate = 25.0
    max_frames = 1021
    windows_together = 4
    recordings_together = 1
    can_embed_text = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        self.batches.append(len(windows))
        return [self._features(window) for window in windows]

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        return [[self._candidate(item, number) for number in range(options.candidates)] for item in features]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        return np.zeros((len(texts), 2), np.float32)

    def _features(self, window: Window) -> Features:
        samples = window.waveform.samples
        content = np.array([len(samples), round(1e6 * float(np.abs(samples).mean()))])
        return Features(content[None], None)

    def _candidate(self, item: Features, number: int) -> Candidate:
        samples, loudness = item.codes[0]
        return Candidate((0, 1, 2), f"{samples} samples at {loudness}, choice {number}.", -0.1 - number)
