"""Things that are struck and ring: a church bell, a telephone with two gongs, a pendulum clock."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import (
    Signal,
    add,
    burst,
    finish,
    in_room,
    noise,
    ring,
    silence,
    time_axis,
    varied,
)
from enclap.types import FloatArray

BELL_RATIOS = (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 3.6, 4.17, 5.43, 6.8, 8.2, 9.7)
"""Partials of a tuned bell by its prime: hum, prime, minor third, fifth, nominal, and those above."""
BELL_LOUDNESS = (0.35, 0.5, 0.6, 0.25, 1.0, 0.45, 0.4, 0.7, 0.4, 0.6, 0.5, 0.4, 0.3, 0.25)
BELL_DECAYS = (4.0, 2.4, 2.0, 1.0, 1.2, 0.7, 0.7, 0.7, 0.5, 0.45, 0.33, 0.25, 0.2, 0.15)  # seconds to 1/e
LONGEST_RING = 8.0  # seconds after which a strike is no longer heard

GONG_RATIOS = (1.0, 2.28, 3.3, 4.57, 5.96, 7.53)
"""Partials of a small hemispherical gong by its lowest."""
CASE_RATIOS = (1.0, 1.9, 2.7)

TICK_RATIOS = (1.0, 1.62, 2.35, 3.3, 4.6)
"""Modes of the plates and posts of a clockwork by the lowest."""


def church_bell(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A church bell that swings, struck every second and a half or so, each strike ringing over the last: float32 [N].

    A cast bell is never quite round: every partial is a pair of neighbours in frequency that beat slowly. The clapper
    hits its two sides in turn, which do not sound quite alike.
    """
    frequencies = np.array(BELL_RATIOS) * generator.uniform(430.0, 560.0)
    neighbours = frequencies * generator.uniform(1.0008, 1.0025, len(frequencies))
    period = generator.uniform(1.3, 1.9)
    time = time_axis(min(LONGEST_RING, seconds))
    sides = []
    for _ in range(2):
        loudness = np.array(BELL_LOUDNESS) * generator.uniform(0.7, 1.3, len(frequencies))
        side = ring(time, frequencies, loudness, BELL_DECAYS) + ring(time, neighbours, 0.6 * loudness, BELL_DECAYS)
        sides.append(side + 2.0 * noise(len(time), 1_500.0, 9_000.0, generator) * np.exp(-time / 0.008))
    canvas = silence(seconds)
    at = 0.05
    for strike in range(int(seconds / period) + 2):
        add(canvas, sides[strike % 2], at, generator.uniform(0.75, 1.0))
        at += varied(period, 0.04, generator)
    return finish(in_room(canvas, 2.0, 0.6, generator))


def telephone(seconds: float, generator: np.random.Generator) -> FloatArray:
    """An old telephone that rings for two seconds of every four or so: float32 [N].

    A hammer swings between two small gongs of different pitch and shakes the case at each blow.
    """
    blows = varied(32.0, 0.04, generator)  # per second
    lowest = varied(1_633.0, 0.03, generator)
    case = varied(322.0, 0.05, generator)
    time = time_axis(1.2)
    strikes = []
    for gong in (lowest, varied(1.185, 0.01, generator) * lowest):
        decays = 0.36 / (1.0 + 0.8 * np.arange(len(GONG_RATIOS)))
        strike = ring(time, gong * np.array(GONG_RATIOS), 0.52 ** np.arange(len(GONG_RATIOS)), decays)
        strike += 0.94 * ring(time, case * np.array(CASE_RATIOS), (1.0, 0.7, 0.5), (0.012, 0.009, 0.007))
        strikes.append(strike + 0.2 * burst(1.2, 2_000.0, 9_000.0, 0.002, generator))
    canvas = silence(seconds)
    for start in np.arange(0.1, seconds, 3.8):
        for blow in range(round(1.9 * blows)):
            add(canvas, strikes[blow % 2], start + (blow + generator.uniform(-0.08, 0.08)) / blows, 1.0)
    return finish(in_room(canvas, 0.7, 0.07, generator))


def clock(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A pendulum clock in a wooden case: tick and tock a little lower, one every 0.9 s: float32 [N].

    Each is three touches of the escapement: a pallet lets go, the wheel drops on the other pallet, a rebound.
    """
    period = varied(0.88, 0.03, generator)
    lowest, case = varied(600.0, 0.05, generator), varied(137.0, 0.05, generator)
    beats = [escapement(lowest * step, case * step, generator) for step in (1.15, 0.87)]
    gap = varied(0.0168, 0.05, generator)  # seconds between the touches
    canvas = silence(seconds)
    at = 0.1
    for number in range(int(seconds / period) + 1):
        for delay, gain in ((0.0, 0.23), (gap, varied(1.0, 0.1, generator)), (1.8 * gap, 0.18)):
            add(canvas, beats[number % 2], at + delay, gain)
        at += period * (1.02 if number % 2 else 0.98)
    return finish(in_room(canvas, 0.23, 0.16, generator))


def escapement(lowest: float, case: float, generator: np.random.Generator) -> Signal:
    """One touch of the escapement [N]: clockwork, a click, and the case that answers."""
    time = time_axis(0.2)
    decays = 0.0046 * np.array((1.0, 0.8, 0.65, 0.5, 0.4))
    works = ring(time, lowest * np.array(TICK_RATIOS), (1.0, 0.9, 0.7, 0.5, 0.35), decays)
    click = 1.5 * noise(len(time), 1_500.0, 11_000.0, generator) * np.exp(-time / 0.003)
    return works + click + 0.56 * ring(time, (case, 2.3 * case), (1.0, 0.6), (0.03, 0.021))
