"""A picture's worth of spectrogram, of recordings of any length: reduced while the audio streams past."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from enclap.audio.mel import MelFrontEnd
from enclap.types import FloatArray

BANDS = 64
LOWEST, HIGHEST = 50.0, 16_000.0  # Hz
RESOLUTION = 0.05  # seconds that a spectrum looks at, at least
CHUNK = 64  # spectra computed at a time
FLOOR = 1e-10  # power: -100 dB


def band_frequencies(rate: int) -> tuple[float, float]:
    """Lowest and highest frequency in Hz of the bands for audio at `rate`."""
    highest = min(HIGHEST, rate / 2)
    return min(LOWEST, highest / 4), highest


def reduced_spectrogram(blocks: Iterable[FloatArray], rate: int, samples: int, columns: int) -> FloatArray:
    """Decibels float32 [BANDS, columns], lowest band first: the mean power of each stretch of the recording.

    blocks: float32 [n] mono samples at `rate`, `samples` of them together, about. Holds no more than the picture and a
    few spectra. Bands are mel-spaced between `band_frequencies`.
    """
    reducer = _Reducer(rate, max(1, samples), columns)
    for block in blocks:
        reducer.add(block)
    return reducer.decibels()


class _Reducer:
    """Sums of power for each column, fed with blocks of any length."""

    def __init__(self, rate: int, samples: int, columns: int) -> None:
        self._window = 2 ** math.ceil(math.log2(max(16.0, rate * RESOLUTION)))
        self._hop = max(1, min(self._window // 2, samples // columns))
        lowest, highest = band_frequencies(rate)
        bank = MelFrontEnd(rate, rate, self._window, self._hop, BANDS, lowest, highest)
        self._filters = bank.filters  # [window / 2 + 1, BANDS]
        self._hann = np.hanning(self._window).astype(np.float32)
        self._samples = samples
        self._sums = np.zeros((columns, BANDS))
        self._counts = np.zeros(columns)
        self._held: list[FloatArray] = [np.zeros(self._window // 2, np.float32)]  # the first spectrum is centred on 0
        self._length = self._window // 2
        self._spectra = 0

    def add(self, block: FloatArray) -> None:
        self._held.append(block)
        self._length += len(block)
        if self._length >= self._window + CHUNK * self._hop:
            self._reduce()

    def decibels(self) -> FloatArray:
        """The picture; a column between spectra, where the recording is short, is like the one before it."""
        self.add(np.zeros(self._window // 2, np.float32))
        self._reduce()
        filled = np.maximum.accumulate(np.where(self._counts > 0, np.arange(len(self._counts)), 0))
        power = (self._sums / np.maximum(self._counts, 1)[:, None])[filled]
        picture: FloatArray = (10.0 * np.log10(np.maximum(power, FLOOR))).T.astype(np.float32)
        return picture

    def _reduce(self) -> None:
        joined = np.concatenate(self._held)
        spectra = max(0, (len(joined) - self._window) // self._hop + 1)
        for start in range(0, spectra, CHUNK):
            part = joined[start * self._hop : (min(start + CHUNK, spectra) - 1) * self._hop + self._window]
            self._add_spectra(np.lib.stride_tricks.sliding_window_view(part, self._window)[:: self._hop])
        self._held = [joined[spectra * self._hop :].copy()]
        self._length = len(self._held[0])

    def _add_spectra(self, frames: FloatArray) -> None:
        """frames: [n, window]."""
        spectrum = np.fft.rfft(frames * self._hann, axis=1)
        power = (np.square(spectrum.real) + np.square(spectrum.imag)) @ self._filters  # [n, BANDS]
        numbers = self._spectra + np.arange(len(frames))
        columns = np.minimum(numbers * self._hop * len(self._counts) // self._samples, len(self._counts) - 1)
        np.add.at(self._sums, columns, power)
        np.add.at(self._counts, columns, 1)
        self._spectra += len(frames)
