"""The body: a heart, as a microphone on the chest hears it."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import add, finish, noise, ring, silence, time_axis, varied
from enclap.types import FloatArray

BEATS = 72.0  # per minute


def heartbeat(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A heart at rest: a low thud, and a shorter, higher one a third of a second later: float32 [N].

    What lies between heart and microphone leaves little above a hundred hertz, and a faint rumble.
    """
    period, pitch = 60.0 / varied(BEATS, 0.15, generator), varied(48.0, 0.08, generator)
    first = ring(time_axis(0.25), (pitch, 1.3 * pitch), (1.0, 0.5), (0.045, 0.03))
    second = ring(time_axis(0.2), (1.3 * pitch, 1.67 * pitch), (0.7, 0.4), (0.03, 0.025))
    canvas = silence(seconds)
    at = generator.uniform(0.0, 0.3)
    while at < seconds:
        add(canvas, first, at, varied(1.0, 0.08, generator))
        add(canvas, second, at + 0.3, varied(0.8, 0.08, generator))
        at += period * generator.normal(1.0, 0.02)
    return finish(canvas + 0.01 * noise(len(canvas), 40.0, 300.0, generator))
