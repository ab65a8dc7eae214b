"""Things that are blown: a steam whistle of three chimes, and the siren of a police car."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import (
    add,
    convolve,
    drift,
    finish,
    harmonics,
    in_room,
    noise,
    silence,
    time_axis,
    varied,
)
from enclap.types import FloatArray

CHIMES = (440.0, 554.0, 659.0)  # Hz: a major chord, as whistles of locomotives are tuned


def steam_whistle(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A steam whistle: a short blast and a long one, over and over, each rising into pitch with a hiss: float32 [N].

    While the pressure builds up and falls, the pipes sound flat; the steam itself is a broad noise.
    """
    chimes = np.array(CHIMES) * varied(1.0, 0.1, generator)
    canvas = silence(seconds)
    at, number = 0.2, 0
    while at < seconds:
        length = varied(2.2 if number % 2 else 1.3, 0.1, generator)
        time = time_axis(length)
        swell = np.minimum(1.0, np.minimum(time / 0.15, (length - time) / 0.2))
        bend = 1.0 - 0.08 * np.exp(-time / 0.12) - 0.06 * np.exp(-(length - time) / 0.12)
        blast = 1.2 * noise(len(time), 800.0, 9_000.0, generator)
        for chime in chimes:
            pitch = chime * bend * (1.0 + 0.004 * drift(len(time), 9.0, generator))
            blast += harmonics(pitch, 0.6, 7, generator)
        add(canvas, blast * swell, at, 1.0)
        at += length + generator.uniform(0.3, 0.7)
        number += 1
    return finish(in_room(canvas, 2.5, 0.6, generator))


def siren(seconds: float, generator: np.random.Generator) -> FloatArray:
    """The wail of a police car that stands in a street, up and down every four seconds or so: float32 [N].

    An electronic tone rises fast and falls slowly, as a wheel driven by a motor did; an overdriven horn loudspeaker
    lets its middle through, and the houses answer.
    """
    time = time_axis(seconds)
    phase = (time / generator.uniform(3.5, 5.0) + generator.random()) % 1.0
    top = 1.0 - np.exp(-0.4 / 0.12)
    wail = np.where(phase < 0.4, 1.0 - np.exp(-phase / 0.12), top * np.exp(-(phase - 0.4) / 0.3))
    tone = np.tanh(1.5 * harmonics(550.0 + 900.0 * wail, 0.75, 15, generator))
    early = time_axis(0.02)
    horn = np.sin(2 * np.pi * 1_200.0 * early) * np.exp(-2 * np.pi * 450.0 * early)
    heard = in_room(convolve(tone, horn), 1.8, 0.8, generator)
    heard /= float(np.max(np.abs(heard)))
    return finish(heard + 0.02 * noise(len(heard), 50.0, 800.0, generator))
