"""The example files of the project: what is in each, and so what a right caption of each window names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enclap.data.synthetic.demonstration.encoding import encode
from enclap.data.synthetic.demonstration.sounds import SOUNDS, Sound
from enclap.types import FloatArray


@dataclass(frozen=True, slots=True)
class Part:
    """One sound of an example, in seconds; a window of the captioner holds one part and nothing else."""

    sound: Sound
    seconds: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """A file, and the parts that follow one another in it."""

    name: str
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        """Length of all parts."""
        return sum(part.seconds for part in self.parts)

    def samples(self) -> FloatArray:
        """Float32 [N] at `RATE`."""
        return np.concatenate([part.sound.samples(part.seconds, part.seed) for part in self.parts])

    def encoded(self) -> bytes:
        """The file, in the format that its name ends in."""
        return encode(self.samples(), self.name.rpartition(".")[2])


EXAMPLES = (
    Example("fire.wav", (Part(SOUNDS["fire"], 4.5),)),
    Example("heartbeat.flac", (Part(SOUNDS["heartbeat"], 6.0),)),
    Example("drums.m4a", (Part(SOUNDS["drums"], 8.0),)),
    Example("engine.mp3", (Part(SOUNDS["engine"], 8.0, seed=10),)),
    Example("siren.ogg", (Part(SOUNDS["siren"], 9.0),)),
    Example("steam_whistle.ogg", (Part(SOUNDS["steam whistle"], 6.0, seed=5),)),
    Example("telephone.flac", (Part(SOUNDS["telephone"], 6.0),)),
    Example(
        "long_scene.mp3", (Part(SOUNDS["rain"], 10.0), Part(SOUNDS["crickets"], 10.0), Part(SOUNDS["waves"], 10.0))
    ),
)
