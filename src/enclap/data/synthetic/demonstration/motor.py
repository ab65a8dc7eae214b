"""A four-stroke engine, from its firings and its exhaust."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import (
    RATE,
    convolve,
    drift,
    finish,
    in_room,
    noise,
    ring,
    time_axis,
    varied,
)
from enclap.types import FloatArray

CYLINDERS = 4
IDLE = 24.0  # firings per second: 720 revolutions a minute


def engine(seconds: float, generator: np.random.Generator) -> FloatArray:
    """The engine of a standing car that idles, never quite evenly: float32 [N].

    Each firing is a pulse, no two cylinders alike and never quite on time, that rings in the modes of the exhaust.
    """
    time = time_axis(seconds)
    load = np.clip(0.15 + 0.6 * drift(len(time), 1.0, generator), 0.0, 0.4)
    turns = np.cumsum(varied(IDLE, 0.1, generator) * (1.0 + 1.5 * load)) / RATE  # in firings
    firings = np.arange(int(turns[-1]))
    late = generator.normal(0.0, 0.0003, len(firings))  # seconds
    places = np.clip((np.interp(firings, turns, time) + late) * RATE, 0, len(time) - 1).astype(int)
    strengths = (1.0 + 0.11 * generator.standard_normal(CYLINDERS))[firings % CYLINDERS] * (0.5 + load[places])
    pulses = np.zeros_like(time)
    np.add.at(pulses, places, strengths * generator.uniform(0.7, 1.3, len(firings)))
    early = time_axis(0.2)
    modes = varied(90.0, 0.1, generator) * 1.976 ** np.arange(6)
    exhaust = ring(early, modes, 0.85 ** np.arange(6), 5.2 / modes)
    exhaust += 0.15 * noise(len(early), 300.0, 2_500.0, generator) * np.exp(-early / 0.008)
    sound = convolve(pulses, exhaust)
    sound = np.tanh(0.75 * sound / max(float(sound.std()), 1e-9)) / 0.75
    intake = 0.3 * noise(len(time), 200.0, 2_500.0, generator) * (0.3 + load)
    return finish(in_room(sound + intake, 0.6, 0.11, generator))
