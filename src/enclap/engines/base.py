"""What every engine offers: windows to features, features to candidate sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from enclap.decoding.options import DecodingOptions
from enclap.types import Candidate, Features, FloatArray, Window


class Engine(Protocol):
    """Runs one model folder. Every engine gives the torch engine's token ids in float32."""

    name: str
    code_rate: float
    """Code frames per second."""
    max_frames: int
    """Code frames that fit into the model's positions; a longer window is cut there."""
    windows_together: int
    """Windows of 10 s that the captioner shall give in one call."""

    @property
    def can_embed_text(self) -> bool:
        """Whether `embed_text` has a text tower."""
        ...

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        """One Features per window, in order; a window's features do not depend on its neighbours."""
        ...

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first; an item's candidates do not depend on the rest of the batch."""
        ...

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower; ModelError when the folder has none."""
        ...
