"""Windows tile the recording; they are the same however the audio arrives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclap.audio.window import split_windows
from enclap.types import FloatArray

RATE = 100


def ramp(count: int) -> FloatArray:
    return np.arange(count, dtype=np.float32)


def lengths(seconds: float, window: float = 10.0) -> list[float]:
    samples = ramp(round(seconds * RATE))
    return [cut.waveform.seconds for cut in split_windows([samples], RATE, window)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.01, [0.01]),
        (5.0, [5.0]),
        (10.0, [10.0]),
        (10.01, [5.01, 5.0]),
        (20.0, [10.0, 10.0]),
        (23.0, [10.0, 6.5, 6.5]),
        (30.0, [10.0, 10.0, 10.0]),
        (0.0, []),
    ],
)
def test_a_remainder_is_shared_by_the_last_two_windows(seconds: float, expected: list[float]) -> None:
    assert lengths(seconds) == expected


def test_zero_means_one_window() -> None:
    assert lengths(47.0, 0) == [47.0]


@pytest.mark.parametrize("window", [-1.0, 0.001])
def test_windows_without_a_sample_are_refused(window: float) -> None:
    with pytest.raises(ValueError, match="holds no sample"):
        lengths(1.0, window)


def slow_windows(samples: FloatArray, size: int) -> list[FloatArray]:
    """The definition, over the whole recording at once."""
    full, rest = divmod(len(samples), size)
    if full == 0 or rest == 0:
        return [samples[start : start + size] for start in range(0, len(samples), size)]
    bounds = [size * number for number in range(full)]
    tail = len(samples) - bounds[-1]
    bounds += [bounds[-1] + (tail + 1) // 2, len(samples)]
    return [samples[start:end] for start, end in itertools.pairwise(bounds)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=12), st.integers(1, 60))
def test_windows_tile_the_recording_and_agree_with_the_definition(blocks: list[int], size: int) -> None:
    samples = ramp(sum(blocks))
    parts = np.split(samples, np.cumsum(blocks)[:-1]) if blocks else []
    windows = list(split_windows(iter(parts), RATE, size / RATE))
    expected = slow_windows(samples, size)
    assert [len(cut.waveform.samples) for cut in windows] == [len(cut) for cut in expected]
    for cut, slow in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(cut.waveform.samples, slow)
    ends = [0.0, *(cut.end for cut in windows)]
    assert [cut.start for cut in windows] == ends[:-1]
    assert ends[-1] == len(samples) / RATE


def test_no_more_than_two_windows_are_read_ahead() -> None:
    read = 0

    def blocks() -> object:
        nonlocal read
        for _ in range(100):
            read += 1
            yield ramp(RATE)

    windows = split_windows(blocks(), RATE, 10.0)  # type: ignore[arg-type]
    for number, _ in enumerate(windows, start=1):
        assert read <= 10 * (number + 1) + 1


def test_a_window_does_not_keep_the_ones_before_it_alive() -> None:
    for cut in split_windows((ramp(RATE) for _ in range(35)), RATE, 10.0):
        base = cut.waveform.samples.base
        assert base is None or base.nbytes <= 2 * 10 * RATE * 4 + RATE * 4
