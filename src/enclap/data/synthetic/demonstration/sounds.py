"""The sounds of the examples: how each is made, and what a right caption of it names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enclap.data.synthetic.demonstration.blown import siren, steam_whistle
from enclap.data.synthetic.demonstration.body import heartbeat
from enclap.data.synthetic.demonstration.motor import engine
from enclap.data.synthetic.demonstration.outdoors import crickets, fire, rain, waves
from enclap.data.synthetic.demonstration.struck import drums, telephone
from enclap.data.synthetic.signals import RATE
from enclap.data.synthetic.tones import Maker
from enclap.errors import UsageError
from enclap.types import FloatArray


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound that can be made anew from every seed.

    labels: of the lexicon; a caption is right when it names one of them. classes: AudioSet's, by their display names;
    a tagger is right when its best class, of those that say what is heard, is one of them.
    """

    name: str
    make: Maker
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    def samples(self, seconds: float, seed: int = 0) -> FloatArray:
        """Float32 [N] at `RATE`, the same for the same arguments; UsageError for less than one sample."""
        if not seconds * RATE >= 1:
            raise UsageError(f"{seconds} s of {self.name!r} is less than one sample; ask for more")
        return self.make(seconds, np.random.default_rng(seed))


SOUNDS = {
    sound.name: sound
    for sound in (
        Sound("fire", fire, ("fire crackling",), ("Fire", "Crackle")),
        Sound(
            "telephone",
            telephone,
            ("telephone ringing", "old telephone ringing"),
            ("Telephone bell ringing", "Telephone"),
        ),
        Sound(
            "siren",
            siren,
            ("police siren",),
            (
                "Police car (siren)",
                "Siren",
                "Emergency vehicle",
                "Ambulance (siren)",
                "Fire engine, fire truck (siren)",
            ),
        ),
        Sound(
            "steam whistle", steam_whistle, ("steam train whistle",), ("Steam whistle", "Train whistle", "Train horn")
        ),
        Sound(
            "engine",
            engine,
            ("engine running", "car engine running", "motorcycle engine idling"),
            (
                "Engine",
                "Vehicle",
                "Motor vehicle (road)",
                "Car",
                "Motorcycle",
                "Truck",
                "Idling",
                "Accelerating, revving, vroom",
                "Light engine (high frequency)",
                "Medium engine (mid frequency)",
                "Heavy engine (low frequency)",
            ),
        ),
        Sound("heartbeat", heartbeat, ("heartbeat",), ("Heart sounds, heartbeat", "Heart murmur")),
        Sound("drums", drums, ("drum kit",), ("Drum kit", "Drum", "Drum machine", "Snare drum", "Bass drum")),
        Sound("crickets", crickets, ("cricket chirping",), ("Cricket", "Insect")),
        Sound("rain", rain, ("rain",), ("Rain", "Rain on surface", "Raindrop")),
        Sound("waves", waves, ("sea waves",), ("Ocean", "Waves, surf")),
    )
}
