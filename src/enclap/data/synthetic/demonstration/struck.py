"""Things that are struck: a telephone with two gongs, a drum kit."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import (
    Signal,
    add,
    burst,
    finish,
    in_room,
    ring,
    silence,
    time_axis,
    varied,
)
from enclap.types import FloatArray

GONG_RATIOS = (1.0, 2.28, 3.3, 4.57, 5.96, 7.53)
"""Partials of a small hemispherical gong by its lowest."""
CASE_RATIOS = (1.0, 1.9, 2.7)

KICKS, SNARES, STEPS = (0, 5), (2, 6), 8
"""Of the eight steps of a bar: those on which the bass drum and the snare drum are struck; the hi-hat is on all."""


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


def drums(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Somebody who plays a beat on a drum kit, with a bass drum, a snare drum and a hi-hat: float32 [N].

    A skin sounds in its two lowest modes, the snare's wires and the hi-hat's rims as noise that dies away.
    """
    step, lowest = varied(0.25, 0.12, generator), varied(55.0, 0.1, generator)
    head = varied(180.0, 0.08, generator)
    canvas = silence(seconds)
    at = 0.05
    for number in range(int(seconds / step) + 1):
        add(canvas, burst(0.1, 6_000.0, 14_000.0, 0.02, generator), at, 0.35 * varied(1.0, 0.2, generator))
        if number % STEPS in KICKS:
            add(canvas, bass_drum(lowest, generator), at, 1.4 * varied(1.0, 0.15, generator))
        if number % STEPS in SNARES:
            add(canvas, snare_drum(head, generator), at, 0.8 * varied(1.0, 0.15, generator))
        at += step * generator.normal(1.0, 0.01)
    return finish(in_room(canvas, 0.35, 0.1, generator))


def bass_drum(lowest: float, generator: np.random.Generator) -> Signal:
    """One stroke of the bass drum [N], with the beater's click."""
    skin = ring(time_axis(0.3), (lowest, 1.64 * lowest), (1.0, 0.6), (0.09, 0.03))
    return skin + 0.2 * burst(0.3, 500.0, 3_000.0, 0.004, generator)


def snare_drum(head: float, generator: np.random.Generator) -> Signal:
    """One stroke of the snare drum [N]: its skin, and the wires below."""
    skin = ring(time_axis(0.25), (head, 1.83 * head), (0.6, 0.4), (0.06, 0.04))
    return skin + 0.8 * burst(0.25, 1_500.0, 10_000.0, 0.06, generator)
