"""What happens to a sound between its source and a microphone: levels, filters, rooms, distance, noise."""

from __future__ import annotations

import numpy as np

from enclap.types import FloatArray

FADE = 0.01
"""Seconds over which cuts are faded."""
FFT_UNIT = 4_096
"""Spectra have a multiple of so many samples: lengths with large prime factors take ten times as long."""


def loudness(audio: FloatArray, rate: int) -> float:
    """Root mean square of the loudest 0.2 s."""
    size = max(1, min(len(audio), rate // 5))
    usable = len(audio) // size * size
    return float(np.sqrt(np.square(audio[:usable].reshape(-1, size)).mean(axis=1).max()))


def fade(audio: FloatArray, rate: int) -> FloatArray:
    """The sound with its first and last hundredth of a second faded."""
    size = min(len(audio) // 2, int(FADE * rate))
    ramp = np.linspace(0.0, 1.0, size, dtype=np.float32)
    audio = audio.copy()
    audio[:size] *= ramp
    audio[len(audio) - size :] *= ramp[::-1]
    return audio


def equalise(audio: FloatArray, generator: np.random.Generator) -> FloatArray:
    """The sound through a smooth random filter of a few decibels, and sometimes a low-pass."""
    length = -(-len(audio) // FFT_UNIT) * FFT_UNIT
    spectrum = np.fft.rfft(audio, length)
    positions = np.linspace(0.0, 1.0, len(spectrum)) ** 0.5  # knots closer together at low frequencies
    decibels = np.interp(positions, np.linspace(0.0, 1.0, 6), generator.normal(0.0, 3.0, 6))
    if generator.random() < 0.2:
        decibels = decibels - 40.0 * np.clip((positions - generator.uniform(0.4, 0.9)) * 6.0, 0.0, 1.0)
    filtered = np.fft.irfft(spectrum * (10.0 ** (decibels / 20.0)).astype(np.float32), length)
    return filtered[: len(audio)].astype(np.float32, copy=False)


def add_noise(audio: FloatArray, generator: np.random.Generator) -> FloatArray:
    """The scene with a steady hiss 25 to 60 dB under its peak, in seven scenes of ten."""
    if generator.random() > 0.7:
        return audio
    level = float(np.abs(audio).max()) * 10.0 ** (-generator.uniform(25.0, 60.0) / 20.0)
    noise = generator.standard_normal(len(audio), dtype=np.float32)
    if generator.random() < 0.5:
        noise = np.convolve(noise, np.full(8, 8.0**-0.5, dtype=np.float32), mode="same")
    return audio + np.float32(level) * noise


def reverberate(audio: FloatArray, rate: int, seconds: float, wet: float) -> FloatArray:
    """The sound in a room that dies away by 60 dB within `seconds`: float32 [N], as long as before.

    Late reverberation as noise under an exponential (Polack); `wet` is its energy beside the direct sound's. The noise
    is always the same, so that a scene depends on its own draw alone.
    """
    count = max(2, int(seconds * rate))
    time = np.arange(count) / rate
    response = np.random.default_rng(count).standard_normal(count) * 10.0 ** (-3.0 * time / seconds)
    response *= np.sqrt(wet / np.square(response).sum())
    response[0] += 1.0
    length = -(-(len(audio) + count) // FFT_UNIT) * FFT_UNIT
    reverberant = np.fft.irfft(np.fft.rfft(audio, length) * np.fft.rfft(response, length), length)
    return reverberant[: len(audio)].astype(np.float32)


def move_away(audio: FloatArray, rate: int, generator: np.random.Generator) -> FloatArray:
    """The sound from afar: air takes the high frequencies, surroundings add reverberation: float32 [N]."""
    length = -(-len(audio) // FFT_UNIT) * FFT_UNIT
    hertz = np.fft.rfftfreq(length, 1.0 / rate)
    decibels = -12.0 * np.log2(np.maximum(hertz / generator.uniform(800.0, 2_500.0), 1.0))  # 12 dB per octave
    spectrum = np.fft.rfft(audio, length) * 10.0 ** (np.maximum(decibels, -60.0) / 20.0)
    far = np.fft.irfft(spectrum, length)[: len(audio)].astype(np.float32)
    return reverberate(far, rate, generator.uniform(0.8, 2.0), generator.uniform(0.5, 2.0))
