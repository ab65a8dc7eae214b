"""A picture's worth of spectrogram, of recordings of any length: reduced while the audio streams past."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from enclap.audio.mel import MelFrontEnd, hertz_to_mel
from enclap.types import Block, FloatArray

BANDS = 64
LOWEST, HIGHEST = 50.0, 16_000.0  # Hz
RESOLUTION = 0.05  # seconds that a spectrum looks at, at least
CHUNK = 64  # spectra computed at a time
FLOOR = 1e-10  # power: -100 dB
MARKS = (100, 1000, 10_000)  # Hz
MOST_COLUMNS = 20_000  # of a picture; without gaps a plot has at most 16,000


def band_frequencies(rate: int) -> tuple[float, float]:
    """Lowest and highest frequency in Hz of the bands for audio at `rate`."""
    highest = min(HIGHEST, rate / 2)
    return min(LOWEST, highest / 4), highest


def frequency_heights(rate: int) -> dict[str, float]:
    """Where the marked frequencies are in a picture of audio at `rate`: 0 at its bottom, 1 at its top."""
    lowest, highest = (hertz_to_mel(hertz) for hertz in band_frequencies(rate))
    heights = {hertz: (hertz_to_mel(hertz) - lowest) / (highest - lowest) for hertz in MARKS}
    names = {hertz: f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz" for hertz in MARKS}
    return {names[hertz]: height for hertz, height in heights.items() if 0 <= height <= 1}


def reduced_spectrogram(blocks: Iterable[Block], rate: int, samples: int, columns: int) -> FloatArray:
    """Decibels float32 [BANDS, columns], lowest band first: the mean power of each column's share of the time line.

    blocks: mono samples at `rate`, on a time line of about `samples` samples from 0 on. Gaps are at `FLOOR`. Holds no
    more than the picture and a few spectra; the picture has at most `MOST_COLUMNS`, however long the gaps are. Bands
    are mel-spaced between `band_frequencies`.
    """
    reducer = _Reducer(rate, max(1, samples), min(columns, MOST_COLUMNS))
    for block in blocks:
        reducer.add(block)
    return reducer.decibels()


class _Reducer:
    """Sums of power for each column, fed with blocks of any length."""

    def __init__(self, rate: int, samples: int, columns: int) -> None:
        self._fft_size = 2 ** math.ceil(math.log2(max(16.0, rate * RESOLUTION)))
        self._hop = max(1, min(self._fft_size // 2, samples // columns))
        lowest, highest = band_frequencies(rate)
        bank = MelFrontEnd(rate, rate, self._fft_size, self._hop, BANDS, lowest, highest)
        self._filters = bank.filters  # [fft_size / 2 + 1, BANDS]
        self._hann = np.hanning(self._fft_size).astype(np.float32)
        self._samples = samples
        self._sums = np.zeros((columns, BANDS))
        self._counts = np.zeros(columns)
        self._begin(0)

    def add(self, block: Block) -> None:
        """Count a block, and the gap before it."""
        gap = block.start - self._end
        if gap > self._fft_size:
            self._finish()
            self._counts[self._column(self._end) + 1 : self._column(block.start)] += 1  # no sound there
            self._begin(block.start)
        elif gap > 0:
            self._hold(np.zeros(gap, np.float32))
        self._hold(block.samples)
        if self._length >= self._fft_size + CHUNK * self._hop:
            self._reduce()

    def decibels(self) -> FloatArray:
        """The picture; a column between spectra, where the recording is short, is like the one before it."""
        self._finish()
        filled = np.maximum.accumulate(np.where(self._counts > 0, np.arange(len(self._counts)), 0))
        power = (self._sums / np.maximum(self._counts, 1)[:, None])[filled]
        picture: FloatArray = (10.0 * np.log10(np.maximum(power, FLOOR))).T.astype(np.float32)
        return picture

    def _begin(self, start: int) -> None:
        """Take samples from `start` on; the first spectrum is centred there, up to a hop."""
        self._end = start
        self._spectra = start // self._hop
        self._held: list[NDArray[np.floating]] = []
        self._length = 0
        self._hold(np.zeros(self._fft_size // 2, np.float32))
        self._end = start

    def _finish(self) -> None:
        """Reduce what is held, to the last spectrum that is centred on a sample."""
        end = self._end
        self._hold(np.zeros(self._fft_size // 2, np.float32))
        self._reduce()
        self._end = end

    def _hold(self, samples: NDArray[np.floating]) -> None:
        self._held.append(samples)
        self._length += len(samples)
        self._end += len(samples)

    def _column(self, sample: int) -> int:
        return min(sample * len(self._counts) // self._samples, len(self._counts) - 1)

    def _reduce(self) -> None:
        joined = np.concatenate(self._held)
        spectra = max(0, (len(joined) - self._fft_size) // self._hop + 1)
        for start in range(0, spectra, CHUNK):
            part = joined[start * self._hop : (min(start + CHUNK, spectra) - 1) * self._hop + self._fft_size]
            frames = np.lib.stride_tricks.sliding_window_view(part, self._fft_size)[:: self._hop]  # [n, fft_size]
            spectrum = np.fft.rfft(frames * self._hann, axis=1)
            power = (np.square(spectrum.real) + np.square(spectrum.imag)) @ self._filters  # [n, BANDS]
            numbers = self._spectra + np.arange(len(frames))
            columns = np.minimum(numbers * self._hop * len(self._counts) // self._samples, len(self._counts) - 1)
            np.add.at(self._sums, columns, power)
            np.add.at(self._counts, columns, 1)
            self._spectra += len(frames)
        self._held = [joined[spectra * self._hop :].copy()]
        self._length = len(self._held[0])
