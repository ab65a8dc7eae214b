"""Sounds that the project makes itself: a bell, footsteps, an engine, wind, rain, a bird and beeps.

They are free of anyone's rights, so the examples and the tests can carry them. Every maker takes a length in
seconds and a random generator and returns float32 [N] within -1..1 at `RATE`; the same generator state gives
the same samples. The recipes are ordinary additive and subtractive synthesis; frequencies are in Hz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from enclap.data.synthetic.signals import (
    RATE,
    add,
    chirp,
    count_of,
    drift,
    finish,
    noise,
    ring,
    room_noise,
    silence,
    time_axis,
)
from enclap.errors import UsageError
from enclap.types import FloatArray, Waveform

Maker = Callable[[float, np.random.Generator], FloatArray]


def synthesise(name: str, seconds: float, seed: int = 0) -> Waveform:
    """The named sound as a Waveform of `seconds` at `RATE`; UsageError for an unknown name or no length.

    The same arguments always give the same samples.
    """
    if name not in SOUNDS:
        raise UsageError(f"no sound is called {name!r}; choose one of: {', '.join(sorted(SOUNDS))}")
    if not seconds * RATE >= 1:
        raise UsageError(f"{seconds} s of {name!r} is less than one sample; ask for more")
    return Waveform(SOUNDS[name](seconds, np.random.default_rng(seed)), RATE)


def bell(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A church bell struck every two seconds or so, each strike ringing over the last: float32 [N].

    Partials stand at the ratios of a tuned bell: hum, prime, minor third, fifth, octave, and those above.
    """
    ratios = (0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.2, 5.4, 6.8, 8.3)
    loudness = (0.5, 0.8, 0.6, 0.3, 1.0, 0.3, 0.4, 0.4, 0.3, 0.2, 0.15)
    decays = (
        2.2,
        1.5,
        1.2,
        0.9,
        0.8,
        0.6,
        0.5,
        0.4,
        0.3,
        0.2,
        0.15,
    )  # seconds to 1/e: high partials die first
    prime = generator.uniform(480.0, 560.0)  # Hz
    canvas = silence(seconds)
    at = 0.05
    while at < seconds:
        time = time_axis(min(6.0, seconds - at))
        strike = ring(time, [prime * ratio for ratio in ratios], loudness, decays)
        strike += ring(time, [1.003 * prime * ratio for ratio in ratios], loudness, decays)  # beats
        clapper = noise(len(time), 2_000.0, 9_000.0, generator) * np.exp(-time / 0.012)
        add(canvas, strike + clapper, at, generator.uniform(0.8, 1.0))
        at += generator.uniform(1.8, 2.1)
    return finish(canvas + room_noise(len(canvas), generator))


def footsteps(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Someone walking on gravel, about 110 steps a minute, each a heel, then a sole: float32 [N]."""
    canvas = silence(seconds)
    at = 0.1
    while at < seconds:
        for delay, strength, spread in ((0.0, 1.0, 0.03), (generator.uniform(0.09, 0.13), 0.6, 0.06)):
            time = time_axis(0.3)
            thump = np.sin(2 * np.pi * generator.uniform(70.0, 95.0) * time) * np.exp(-time / 0.035)
            grit = noise(len(time), 900.0, 6_500.0, generator) * np.exp(-time / spread)
            stones = grit * (generator.random(len(time)) < 0.12) * 2.5
            add(canvas, strength * (thump + 0.35 * grit + stones), at + delay, generator.uniform(0.7, 1.0))
        at += generator.uniform(0.52, 0.58)
    return finish(canvas + room_noise(len(canvas), generator))


def engine(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A four-stroke engine that idles, revs and falls back every few seconds: float32 [N].

    One pulse per firing rings in the exhaust (a low and a middle resonance); intake noise follows the firing.
    """
    time = time_axis(seconds)
    revs = 26.0 + 26.0 * np.clip(np.sin(2 * np.pi * time / 4.0 - 1.2), 0.0, None) ** 2  # firings per second
    revs *= 1.0 + 0.03 * drift(len(time), 3.0, generator)
    phase = np.cumsum(revs) / RATE
    tone = np.zeros_like(time)
    for harmonic in range(1, 40):
        frequency = harmonic * revs
        low = np.exp(-(((frequency - 95.0) / 70.0) ** 2))
        middle = np.exp(-(((frequency - 420.0) / 260.0) ** 2))
        tone += (low + 0.35 * middle + 0.02) * np.sin(2 * np.pi * (harmonic * phase + generator.random()))
    uneven = 1.0 + 0.35 * np.sin(np.pi * phase)  # neighbouring cylinders never fire quite alike
    firing = (0.5 + 0.5 * np.cos(2 * np.pi * phase)) ** 3
    hiss = noise(len(time), 300.0, 5_000.0, generator) * (0.15 + 0.6 * firing) * (revs / 52.0)
    return finish(uneven * tone + 0.5 * hiss)


def wind(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Gusts of wind with a faint whistle that rises and falls with them: float32 [N]."""
    count = count_of(seconds)
    gust = np.clip(0.55 + 0.35 * drift(count, 0.5, generator), 0.08, None)
    rumble = noise(count, 40.0, 350.0, generator) * gust
    body = noise(count, 250.0, 1_100.0, generator) * gust**2
    rush = noise(count, 900.0, 4_000.0, generator) * gust**3 * 0.35
    pitch = 500.0 + 450.0 * gust  # Hz
    waver = np.sin(2 * np.pi * np.cumsum(pitch) / RATE + 6.0 * drift(count, 25.0, generator))
    return finish(rumble + body + rush + 0.25 * waver * gust**3)


def rain(seconds: float, generator: np.random.Generator) -> FloatArray:
    """Steady rain: a bright hiss of many far drops and some near ones heard singly: float32 [N]."""
    count = count_of(seconds)
    canvas = noise(count, 700.0, 12_000.0, generator) * (1.0 + 0.08 * drift(count, 2.0, generator))
    for _ in range(generator.poisson(70.0 * seconds)):  # near drops per second
        time = time_axis(0.02)
        pitch = generator.uniform(1_500.0, 7_000.0)
        drop = np.sin(2 * np.pi * pitch * time) * np.exp(-time / generator.uniform(0.001, 0.004))
        add(canvas, drop, generator.uniform(0.0, seconds), generator.exponential(3.0))
    return finish(canvas)


def bird(seconds: float, generator: np.random.Generator) -> FloatArray:
    """A small bird that repeats a phrase of falling chirps and a trill, with rests between: float32 [N]."""
    canvas = silence(seconds)
    notes = [(generator.uniform(4_800.0, 6_200.0), generator.uniform(2_600.0, 3_600.0)) for _ in range(3)]
    at = 0.15
    while at < seconds:
        start = at
        for high, low in notes:
            add(canvas, chirp(high, low, generator.uniform(0.09, 0.13)), start, generator.uniform(0.7, 1.0))
            start += 0.18
        for _ in range(generator.integers(4, 8)):
            add(canvas, chirp(4_200.0, 5_400.0, 0.035), start, 0.6)
            start += 0.055
        at = start + generator.uniform(0.35, 0.8)
    return finish(canvas + room_noise(len(canvas), generator))


def beeps(seconds: float, generator: np.random.Generator) -> FloatArray:
    """An alarm clock: groups of four short beeps of one pitch: float32 [N]. The generator picks the pitch."""
    pitch = generator.uniform(1_900.0, 2_200.0)  # Hz
    canvas = silence(seconds)
    time = time_axis(0.08)
    tone = np.sin(2 * np.pi * pitch * time) + 0.3 * np.sin(6 * np.pi * pitch * time)
    tone *= np.minimum(1.0, np.minimum(time, time[::-1]) / 0.004)  # soft edges, no clicks
    for group in np.arange(0.1, seconds, 1.0):
        for beep in range(4):
            add(canvas, tone, group + 0.14 * beep, 1.0)
    return finish(canvas)


SOUNDS: dict[str, Maker] = {
    "bell": bell,
    "footsteps": footsteps,
    "engine": engine,
    "wind": wind,
    "rain": rain,
    "bird": bird,
    "beeps": beeps,
}
