"""Clips with random features, for tests of what stores and draws them."""

from __future__ import annotations

import numpy as np

from enclap.data.feature_store import Clip, StoreHeader
from enclap.types import Features

HEADER = StoreHeader(codebooks=3, entries=32, embedding=5, frame_rate=25.0, encoders="abc")


def clips(count: int, seed: int = 0) -> list[Clip]:
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        vector = generator.standard_normal(5).astype(np.float32)
        codes = generator.integers(0, 32, (1 + 7 * number % 40, 3))
        features = Features(codes, vector / np.linalg.norm(vector))
        made.append(Clip(f"clip/{number}", features, ("A dog barks.", "Rain falls."), ("dog barking",), 1.5))
    return made
