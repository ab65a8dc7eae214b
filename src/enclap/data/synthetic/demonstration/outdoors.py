"""Weather, water, fire and insects: rain, waves on a beach, a fire, crickets at night."""

from __future__ import annotations

import numpy as np

from enclap.data.synthetic.signals import (
    Signal,
    add,
    burst,
    convolve,
    count_of,
    drift,
    finish,
    in_room,
    noise,
    silence,
    time_axis,
    varied,
)
from enclap.types import FloatArray

FAR_DROPS, NEAR_DROPS = 30_000.0, 315.0  # per second
DULLEST, BRIGHTEST = 450.0, 2_800.0  # Hz: a far drop's blow reaches the ear between these
KINDS_OF_DROPS = 24


def rain(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Rain on leaves and ground: very many far drops, and hundreds a second that are heard singly: float32 [N].

    A near drop is a splash of noise and a bubble whose pitch rises as it closes.
    """
    count = count_of(seconds)
    drops = generator.poisson(FAR_DROPS * seconds)
    blows = np.zeros(count)
    strengths = generator.exponential(1.0, drops) ** 1.4 * generator.choice((-1.0, 1.0), drops)
    np.add.at(blows, generator.integers(0, count, drops), strengths)
    early = time_axis(0.01)
    fast, slow = 2 * np.pi * BRIGHTEST, 2 * np.pi * DULLEST
    canvas = convolve(blows, fast * np.exp(-fast * early) - slow * np.exp(-slow * early))
    canvas /= max(float(canvas.std()), 1e-9)
    canvas += 0.5 * noise(count, varied(1_140.0, 0.1, generator), varied(5_400.0, 0.1, generator), generator)
    kinds = [drop(generator) for _ in range(KINDS_OF_DROPS)]
    for _ in range(generator.poisson(NEAR_DROPS * seconds)):
        kind = kinds[generator.integers(KINDS_OF_DROPS)]
        add(canvas, kind, generator.uniform(0.0, seconds), 0.5 * generator.exponential())
    return finish(canvas)


def drop(generator: np.random.Generator) -> Signal:
    """One near drop [N]."""
    low, high = varied(DULLEST, 0.4, generator), varied(BRIGHTEST, 0.3, generator)
    splash = burst(0.06, low, high, 0.0037 * generator.uniform(0.5, 2.0), generator)
    time = time_axis(0.06)
    bubble = np.sin(2 * np.pi * generator.uniform(800.0, 3_000.0) * (1.0 + 6.0 * time) * time)
    return splash + 0.85 * bubble * np.exp(-time / generator.uniform(0.003, 0.01))


def waves(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Waves that rise, break on a beach and run out, one every five seconds or so: float32 [N].

    The nearer the break, the more high frequencies; what runs out over the sand hisses on.
    """
    count, time = count_of(seconds), time_axis(seconds)
    canvas = 0.07 * noise(count, 30.0, 240.0, generator) + 0.02 * noise(count, 400.0, 6_000.0, generator)
    at = -generator.uniform(1.5, 3.0)
    while at < seconds:
        since = time - at
        rise, fall = varied(2.0, 0.2, generator), varied(1.75, 0.2, generator)
        before, after = np.minimum(since - rise, 0.0), np.maximum(since - rise, 0.0)
        swell = np.exp(3.0 * before / rise - after / fall) * (since > 0.0)
        body = noise(count, 110.0, 770.0, generator) + 0.35 * noise(count, 390.0, 5_000.0, generator)
        foam = noise(count, 2_000.0, 11_000.0, generator) * np.exp(6.0 * before / rise - after / (1.5 * fall))
        canvas += generator.uniform(0.6, 1.0) * (swell * body + 0.1 * foam * (since > 0.0))
        at += varied(5.0, 0.25, generator)
    return finish(canvas)


def fire(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A wood fire: crackles by the score, now and then a log that bursts, over the roar of the flames: float32 [N].

    Steam tears the wood: each crackle is a click that rings for a few thousandths of a second, few of them loud, and
    those cut short by the microphone.
    """
    canvas = silence(seconds)
    count = len(canvas)
    for _ in range(generator.poisson(22.0 * seconds)):
        pitch, decay = generator.uniform(800.0, 7_000.0), generator.uniform(0.0008, 0.004)
        crackle = burst(0.03, pitch / 1.6, 1.6 * pitch, decay, generator)
        add(canvas, crackle, generator.uniform(0.0, seconds), generator.exponential() ** 1.6)
    for _ in range(generator.poisson(1.2 * seconds)):
        log = burst(0.12, 300.0, 4_000.0, generator.uniform(0.006, 0.02), generator)
        add(canvas, log, generator.uniform(0.0, seconds), 1.5 * generator.exponential())
    roar = 0.12 * noise(count, 80.0, 600.0, generator) * (1.0 + 0.35 * drift(count, 4.0, generator))
    hiss = noise(count, 1_500.0, 9_000.0, generator) * np.maximum(0.1, 1.0 + 0.4 * drift(count, 6.0, generator))
    return finish(np.tanh(canvas) + roar + 0.035 * hiss)


def crickets(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Three crickets in a night with a breath of wind, one of them near: float32 [N].

    A cricket draws one wing over the other's teeth: each draw is a pulse that falls a little in pitch, three or four
    of them are a chirp, and chirps follow one another two or three times a second.
    """
    canvas = silence(seconds)
    time = time_axis(0.02)
    for gain in (1.0, 0.45, 0.3):
        pitch, period = generator.uniform(4_200.0, 5_000.0), generator.uniform(0.35, 0.6)
        draws, spacing = int(generator.integers(3, 5)), generator.uniform(0.028, 0.036)
        swell = np.sin(np.pi * time / 0.02) ** 1.5
        pulse = (np.sin(2 * np.pi * (pitch - 2_000.0 * time) * time) + 0.1 * np.sin(4 * np.pi * pitch * time)) * swell
        at = generator.uniform(0.0, 0.4)
        while at < seconds:
            for draw in range(draws):
                add(canvas, pulse, at + draw * spacing, gain * (0.6 + 0.4 * draw / draws))
            at += period * generator.normal(1.0, 0.04)
    return finish(in_room(canvas, 0.6, 0.1, generator) + 0.03 * noise(len(canvas), 100.0, 6_000.0, generator))
