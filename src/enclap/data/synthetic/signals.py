"""What synthesised sounds are built of: sines that die away, shaped noise, slow random curves, mixing, levels.

A signal is float64 [N] at `RATE`; times are in seconds, frequencies in Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enclap.data.synthetic.acoustics import reverberate
from enclap.types import FloatArray

RATE = 32_000  # Hz, as the recordings that the bundled model learned from
PEAK = 0.5  # of full scale: 6 dB of room for mixing

Signal = NDArray[np.float64]
Numbers = Sequence[float] | NDArray[np.floating[Any]]


def count_of(seconds: float) -> int:
    """How many samples so many seconds are, at least one."""
    return max(1, round(seconds * RATE))


def time_axis(seconds: float) -> Signal:
    """The time [N] of each sample in seconds, from 0."""
    return np.arange(count_of(seconds)) / RATE


def silence(seconds: float) -> Signal:
    """Zeros [N] to add sounds to."""
    return np.zeros(count_of(seconds))


def ring(time: Signal, frequencies: Numbers, loudness: Numbers, decays: Numbers) -> Signal:
    """The sum of sines [N] that start together and die away, each with its loudness and decay in seconds."""
    total = np.zeros_like(time)
    for frequency, gain, decay in zip(frequencies, loudness, decays, strict=True):
        total += gain * np.sin(2 * np.pi * frequency * time) * np.exp(-time / decay)
    return total


def burst(seconds: float, low: float, high: float, decay: float, generator: np.random.Generator) -> Signal:
    """Noise [N] between two frequencies that starts at once and falls to 1/e within `decay` seconds."""
    time = time_axis(seconds)
    return noise(len(time), low, high, generator) * np.exp(-time / decay)


def varied(value: float, share: float, generator: np.random.Generator) -> float:
    """A number drawn evenly from the value less and plus such a share of it."""
    return value * float(generator.uniform(1.0 - share, 1.0 + share))


def convolve(signal: Signal, response: Signal) -> Signal:
    """The signal [N] through a filter of such an impulse response, as long as before."""
    size = 1 << (len(signal) + len(response)).bit_length()
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)[: len(signal)]


def harmonics(pitch: Signal, slope: float, count: int, generator: np.random.Generator) -> Signal:
    """A tone [N] that follows a pitch [N] in Hz, with so many harmonics, each `slope` times as loud as the one below.

    Harmonics above nine tenths of half the rate are left out; each starts at a phase of its own.
    """
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = np.zeros_like(pitch)
    for order in range(1, count + 1):
        if order * float(pitch.max()) < 0.45 * RATE:
            tone += slope ** (order - 1) * np.sin(order * phase + generator.uniform(0.0, 2 * np.pi))
    return tone


def in_room(signal: Signal, seconds: float, wet: float, generator: np.random.Generator) -> Signal:
    """The signal [N] in a place that rings for `seconds` (to -60 dB), with the place's own faint noise.

    wet: energy of the reverberation beside that of the direct sound.
    """
    reverberant = reverberate(signal.astype(np.float32), RATE, seconds, wet).astype(np.float64)
    return reverberant + room_noise(len(signal), generator)


def chirp(start: float, end: float, seconds: float) -> Signal:
    """One note [N] that glides from `start` to `end` Hz and swells and fades over its length."""
    time = time_axis(seconds)
    pitch = start * (end / start) ** (time / seconds)
    note: Signal = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.sin(np.pi * time / seconds) ** 2
    return note


def noise(count: int, low: float, high: float, generator: np.random.Generator) -> Signal:
    """Noise [N] of unit RMS between two frequencies in Hz, with slopes of 12 dB per octave outside them."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1.0 / RATE)
    below = np.minimum(1.0, frequency / low)
    above = np.minimum(1.0, high / np.maximum(frequency, 1.0))
    shaped: Signal = np.fft.irfft(spectrum * (below * above) ** 2, count)
    shaped /= max(float(np.sqrt(np.mean(shaped**2))), 1e-9)
    return shaped


def drift(count: int, rate: float, generator: np.random.Generator) -> Signal:
    """A smooth random curve [N] around 0, about -2..2, that turns some `rate` times per second."""
    knots = generator.standard_normal(int(count / RATE * rate) + 4)
    position = np.arange(count) / RATE * rate + 1.0
    left = position.astype(int)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    curve: Signal = knots[left] * (1.0 - blend) + knots[left + 1] * blend
    return curve


def room_noise(count: int, generator: np.random.Generator) -> Signal:
    """The faint noise [N] of a quiet place and its microphone: no recording is ever digitally silent."""
    return 0.002 * noise(count, 60.0, 3_000.0, generator)


def add(canvas: Signal, sound: Signal, at: float, gain: float) -> None:
    """Adds `sound` to `canvas` from `at` seconds on, in place; what would stand past the end is left out."""
    start = round(at * RATE)
    length = min(len(sound), len(canvas) - start)
    if length > 0:
        canvas[start : start + length] += gain * sound[:length]


def finish(signal: Signal) -> FloatArray:
    """The signal as float32 [N] with its peak at `PEAK` and 10 ms fades, so that nothing clips or clicks."""
    ramp = min(len(signal) // 2, RATE // 100)
    if ramp:
        fade = np.linspace(0.0, 1.0, ramp)
        signal[:ramp] *= fade
        signal[-ramp:] *= fade[::-1]
    loudest = float(np.max(np.abs(signal)))
    return (signal * (PEAK / loudest if loudest > 0 else 0.0)).astype(np.float32)
