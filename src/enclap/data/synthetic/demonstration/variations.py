"""Takes of the example sounds that no file holds: other seeds, levels and codecs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enclap.data.synthetic.demonstration.encoding import encode
from enclap.data.synthetic.demonstration.sounds import SOUNDS, Sound

ENDINGS = ("wav", "flac", "mp3", "ogg")
LOWEST, HIGHEST = -30.0, -6.0  # dBFS of the peak
SECONDS = 8.0
FIRST_SEED = 1_000
"""Far from the seeds of the files."""


@dataclass(frozen=True, slots=True)
class Variation:
    """One take. level: of its peak, in dBFS. ending: of a file's name, which says the format."""

    sound: Sound
    seed: int
    level: float
    ending: str

    def encoded(self) -> bytes:
        """The take as a file of `SECONDS`."""
        samples = self.sound.samples(SECONDS, self.seed)
        gain = 10.0 ** (self.level / 20.0) / float(np.max(np.abs(samples)))
        return encode(samples * np.float32(gain), self.ending)


def variations(name: str, count: int = 20) -> tuple[Variation, ...]:
    """So many takes of the sound of such a name, always the same ones; KeyError for an unknown name.

    Formats take turns; levels are spread evenly from `LOWEST` to `HIGHEST`, in the order that the count alone gives.
    """
    levels = np.random.default_rng(count).permutation(np.linspace(LOWEST, HIGHEST, count))
    return tuple(
        Variation(SOUNDS[name], FIRST_SEED + number, float(level), ENDINGS[number % len(ENDINGS)])
        for number, level in enumerate(levels)
    )
