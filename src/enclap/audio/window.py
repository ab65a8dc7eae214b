"""Long audio -> windows that are captioned one by one, cut while it streams past, and whether one is silent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from enclap.types import Block, FloatArray, Waveform, Window

DEFAULT_WINDOW = 10.0  # seconds: what the model was trained on
WHOLE = 0.0  # a window length that means: one window, however long
LONGEST_FILL = 1.0  # seconds; a shorter gap in the sound becomes zeros, a longer one is left out between two windows
SILENCE_LEVEL = -60.0  # dBFS; below it a window is called silent without running the model
SILENCE_TEXT = "Silence."


def split_windows(blocks: Iterable[Block], rate: int, seconds: float = DEFAULT_WINDOW) -> Iterator[Window]:
    """Windows that tile the sound of a recording without overlap, each `seconds` long (0: one window).

    blocks: mono samples at `rate`, in order. The first window starts where the first block does. A remainder is shared
    evenly by the last two windows: 23 s give 10, 6.5 and 6.5 s.

    A gap between blocks (a pause of the recorder, lost packets) is silence. One of up to `LONGEST_FILL` seconds is
    filled with zeros. A longer one ends a run of windows and the next run starts after it; no window stands for the
    gap itself, because nothing was recorded there that a caption could describe, and so a pause of hours costs
    neither memory nor thousands of "Silence.". The single window of length 0 has every gap filled.

    No more than two windows and one block are held. No samples give no windows.
    """
    size = round(seconds * rate)
    if size < 0 or (size == 0 and seconds != WHOLE):
        raise ValueError(f"a window of {seconds} s holds no sample at {rate} Hz")
    held = _Held(rate)
    for block in blocks:
        if size and block.start - held.end > LONGEST_FILL * rate:
            yield from held.rest(size)
        held.append(block)
        while size and held.samples > 2 * size:  # the last two windows are only known at the end
            yield held.take(size)
    yield from held.rest(size)


def first_window(waveform: Waveform) -> Window:
    """The first window of a recording that is cut into windows of the default length; StopIteration without samples."""
    return next(split_windows([Block(waveform.samples, 0)], waveform.rate))


def rms_level(samples: FloatArray) -> float:
    """The root mean square of float [N] around its mean, in dBFS (a full-scale square wave is 0 dBFS); -inf for none.

    Around its mean, because a constant offset of the recorder is inaudible.
    """
    if len(samples) == 0:
        return -math.inf
    offset = float(np.mean(samples, dtype=np.float64))
    power = float(np.mean(np.square(samples, dtype=np.float64))) - offset * offset
    return 10.0 * math.log10(power) if power > 0.0 else -math.inf


def is_silent(samples: FloatArray) -> bool:
    """Whether the samples lie under the silence level."""
    return rms_level(samples) < SILENCE_LEVEL


class _Held:
    """Samples that were read and not yet given out."""

    def __init__(self, rate: int) -> None:
        self.samples = 0
        self.end = 0
        self._rate = rate
        self._blocks: list[NDArray[np.floating]] = []

    def append(self, block: Block) -> None:
        """Hold the block's samples too, after zeros where there is a gap before them."""
        gap = max(0, block.start - self.end)
        if gap and self.samples:
            self._hold(np.zeros(gap, np.float32))
        elif gap:
            self.end = block.start
        self._hold(block.samples)

    def take(self, count: int) -> Window:
        """The next `count` samples, which must be there, as a window."""
        joined = self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
        rest = joined[count:].copy()  # a view would keep the window's memory
        self._blocks = [rest] if len(rest) else []
        start = self.end - self.samples
        self.samples -= count
        waveform = Waveform(joined[:count], self._rate)
        return Window(waveform, start / self._rate, (start + count) / self._rate)

    def rest(self, size: int) -> Iterator[Window]:
        """All that is left: one window, or two of the same length where one would be longer than `size` samples."""
        if size and self.samples > size:
            yield self.take((self.samples + 1) // 2)
        if self.samples:
            yield self.take(self.samples)

    def _hold(self, samples: NDArray[np.floating]) -> None:
        self._blocks.append(samples)
        self.samples += len(samples)
        self.end += len(samples)
