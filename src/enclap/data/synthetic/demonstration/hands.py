"""Hands: a few people who clap, each at a pace of their own."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import add, burst, finish, in_room, silence, varied
from enclap.types import FloatArray

PEOPLE = 4
WAYS = 5
"""Of clapping that one person has: no two claps are alike, for the palms meet in another place each time."""


def clapping(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Four people who clap their hands in a small room, three or four times a second each: float32 [N].

    The air between the palms rings in a band of its own for a few milliseconds; the skin adds a sharp crack.
    """
    canvas = silence(seconds)
    for _ in range(PEOPLE):
        period = 1.0 / varied(3.56, 0.25, generator)
        cavity = 797.0 * generator.uniform(1.0, 1.76)
        nearness = generator.uniform(1.0, 5.1) ** -1.5
        claps = []
        for _ in range(WAYS):
            middle = varied(cavity, 0.1, generator)
            palms = burst(0.08, middle / 1.29, middle * 1.29, 0.0023 * generator.uniform(0.6, 1.5), generator)
            claps.append(palms + 0.115 * burst(0.08, 2_000.0, 12_000.0, 0.0014, generator))
        at = generator.uniform(0.0, period)
        while at < seconds:
            add(canvas, claps[generator.integers(WAYS)], at, nearness * generator.uniform(0.5, 1.0))
            at += period * max(0.4, generator.normal(1.0, 0.04))
    return finish(in_room(canvas, 0.31, 0.05, generator))
