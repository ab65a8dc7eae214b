"""Long audio -> windows that are captioned one by one, cut while it streams past."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from enclap.types import FloatArray, Waveform, Window

DEFAULT_WINDOW = 10.0  # seconds: what the model was trained on
WHOLE = 0.0  # a window length that means: one window, however long


def split_windows(blocks: Iterable[FloatArray], rate: int, seconds: float = DEFAULT_WINDOW) -> Iterator[Window]:
    """Windows that tile the recording without gap or overlap, each `seconds` long (0: one window).

    blocks: float32 [n] mono samples at `rate`. A remainder is shared evenly by the last two windows:
    23 s give 10, 6.5 and 6.5 s. No more than two windows and one block are held. No samples give no windows.
    """
    size = round(seconds * rate)
    if size < 0 or (size == 0 and seconds != WHOLE):
        raise ValueError(f"a window of {seconds} s holds no sample at {rate} Hz")
    held = _Held(rate)
    for block in blocks:
        held.append(block)
        while size and held.samples > 2 * size:  # the last two windows are only known at the end
            yield held.take(size)
    if size and held.samples > size:
        yield held.take((held.samples + 1) // 2)
    if held.samples:
        yield held.take(held.samples)


class _Held:
    """Samples that were read and not yet given out."""

    def __init__(self, rate: int) -> None:
        self.samples = 0
        self._rate = rate
        self._taken = 0
        self._blocks: list[FloatArray] = []

    def append(self, block: FloatArray) -> None:
        self._blocks.append(block)
        self.samples += len(block)

    def take(self, count: int) -> Window:
        """The next `count` samples, which must be there, as a window."""
        joined = self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
        rest = joined[count:].copy()  # a view would keep the window's memory
        self._blocks = [rest] if len(rest) else []
        start, self._taken = self._taken, self._taken + count
        self.samples -= count
        waveform = Waveform(joined[:count], self._rate)
        return Window(waveform, start / self._rate, self._taken / self._rate)
