"""Windows tile the recording; they are the same however the audio arrives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclap.audio.window import split_windows
from enclap.types import Block, FloatArray, Window

RATE = 100


def ramp(count: int) -> FloatArray:
    return np.arange(count, dtype=np.float32)


def lengths(seconds: float, window: float = 10.0) -> list[float]:
    samples = ramp(round(seconds * RATE))
    return [cut.waveform.seconds for cut in split_windows([Block(samples, 0)], RATE, window)]


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
    starts = np.cumsum([0, *blocks])
    parts = [Block(samples[start:end], int(start)) for start, end in itertools.pairwise(starts)]
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
        for number in range(100):
            read += 1
            yield Block(ramp(RATE), number * RATE)

    windows = split_windows(blocks(), RATE, 10.0)  # type: ignore[arg-type]
    for number, _ in enumerate(windows, start=1):
        assert read <= 10 * (number + 1) + 1


def test_a_window_does_not_keep_the_ones_before_it_alive() -> None:
    for cut in split_windows((Block(ramp(RATE), number * RATE) for number in range(35)), RATE, 10.0):
        base = cut.waveform.samples.base
        assert base is None or base.nbytes <= 2 * 10 * RATE * 4 + RATE * 4


def slow_runs(blocks: list[Block], longest_fill: int) -> list[tuple[int, FloatArray]]:
    """The definition: start and samples of each run, short gaps filled with zeros."""
    runs: list[tuple[int, FloatArray]] = []
    for block in blocks:
        start, samples = runs[-1] if runs else (0, ramp(0))
        gap = block.start - start - len(samples)
        if not runs or gap > longest_fill:
            runs.append((block.start, block.samples))
        else:
            runs[-1] = (start, np.concatenate([samples, np.zeros(max(0, gap), np.float32), block.samples]))
    return runs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 0, 1, 50, 100, 101, 700]), st.integers(1, 90)), max_size=12))
def test_short_gaps_are_filled_and_long_ones_left_out(pieces: list[tuple[int, int]]) -> None:
    blocks, end = [], 0
    for gap, count in pieces:
        blocks.append(Block(ramp(count) + 1, end + gap))
        end += gap + count
    windows = list(split_windows(blocks, RATE, 0.6))
    expected = [
        (start + sum(map(len, parts[:number])), part)
        for start, samples in slow_runs(blocks, RATE)  # one second, which is filled
        for parts in [slow_windows(samples, 60)]
        for number, part in enumerate(parts)
    ]
    assert [(cut.start, cut.end) for cut in windows] == [
        (start / RATE, (start + len(part)) / RATE) for start, part in expected
    ]
    for cut, (_, part) in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(cut.waveform.samples, part)
    together = list(split_windows(blocks, RATE, 0))
    assert len(together) == (1 if pieces else 0)
    assert sum(len(cut.waveform.samples) for cut in together) == end - (pieces[0][0] if pieces else 0)


def test_a_gap_of_a_year_takes_no_memory() -> None:
    year = 365 * 24 * 3600 * RATE
    windows = list(split_windows([Block(ramp(400), 0), Block(ramp(400), year)], RATE))
    assert [(cut.start, cut.end) for cut in windows] == [(0.0, 4.0), (year / RATE, year / RATE + 4.0)]


def test_blocks_that_overlap_lose_nothing_and_times_never_run_backwards() -> None:
    windows: list[Window] = list(split_windows([Block(ramp(400), 0), Block(ramp(400), 100)], RATE))
    assert [(cut.start, cut.end) for cut in windows] == [(0.0, 8.0)]
