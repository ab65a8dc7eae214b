"""`--plot`: what is drawn, from how much memory, and what is said when it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from cli import Run
from enclap.audio.mel import MelFrontEnd
from enclap.audio.spectrogram import BANDS, FLOOR, band_frequencies, reduced_spectrogram
from enclap.output.plot import MOST_ROWS, SLOTS, arranged
from enclap.types import Block, Caption, FloatArray
from sounds import blocks_of, noise, tone


def slow_spectrogram(samples: FloatArray, rate: int, columns: int) -> FloatArray:
    """The definition: spectra of half-overlapping Hann windows, each counted to the column of its middle."""
    window = 2 ** int(np.ceil(np.log2(rate * 0.05)))
    hop = min(window // 2, len(samples) // columns)
    padded = np.pad(samples, window // 2)
    filters = MelFrontEnd(rate, rate, window, hop, BANDS, *band_frequencies(rate)).filters
    cells: list[list[FloatArray]] = [[] for _ in range(columns)]
    for number in range((len(padded) - window) // hop + 1):
        frame = padded[number * hop : number * hop + window] * np.hanning(window).astype(np.float32)
        column = min(number * hop * columns // len(samples), columns - 1)
        cells[column].append(np.abs(np.fft.rfft(frame)) ** 2 @ filters)
    return np.stack([10 * np.log10(np.maximum(np.mean(cell, axis=0), FLOOR)) for cell in cells], axis=1)


@pytest.mark.parametrize(("seconds", "rate", "columns"), [(0.3, 48_000, 50), (5.0, 16_000, 100), (20.0, 8000, 30)])
def test_the_streamed_picture_is_the_one_defined(seconds: float, rate: int, columns: int) -> None:
    samples = noise(seconds, rate)[:, 0] * np.linspace(0, 1, round(seconds * rate), dtype=np.float32)
    expected = slow_spectrogram(samples, rate, columns)
    for size in (100, 1024, len(samples)):
        picture = reduced_spectrogram(blocks_of(samples, size), rate, len(samples), columns)
        np.testing.assert_allclose(picture, expected, atol=2e-3)


def test_a_tone_stands_at_its_height_and_silence_is_empty() -> None:
    sound = np.concatenate([tone(1.0, 32_000, 4000.0)[:, 0], np.zeros(32_000, np.float32)])
    picture = reduced_spectrogram([Block(sound, 0)], 32_000, len(sound), 40)
    bank = MelFrontEnd(32_000, 32_000, 2048, 1, BANDS, *band_frequencies(32_000)).filters
    assert set(picture[:, 2:18].argmax(axis=0)) == {int(bank[round(4000 / 32_000 * 2048)].argmax())}
    assert (picture[:, 24:] == -100.0).all()


@pytest.mark.parametrize("samples", [1, 10, 3000])
def test_short_recordings_fill_the_picture(samples: int) -> None:
    picture = reduced_spectrogram([Block(noise(samples / 8000, 8000)[:, 0], 0)], 8000, samples, 500)
    assert picture.shape == (BANDS, 500)
    assert np.isfinite(picture).all() and picture.max() > -80


def test_a_long_recording_takes_the_memory_of_a_short_one() -> None:
    second = noise(1.0, 2000)[:, 0]

    def peak(minutes: int) -> int:
        def blocks() -> Iterator[Block]:
            for number in range(60 * minutes):
                yield Block(second, 2000 * number)

        tracemalloc.start()
        reduced_spectrogram(blocks(), 2000, minutes * 60 * 2000, 500)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(20) < 1.1 * peak(1)


def captions(count: int, text: Callable[[int], str]) -> list[Caption]:
    return [Caption(10.0 * number, 10.0 * (number + 1), text(number), -0.5) for number in range(count)]


def test_captions_are_arranged_without_gap_or_loss() -> None:
    for count in (1, 5, 6, 7, 96, 97, 1000, 8640):
        rows = arranged(captions(count, str))
        slots = [slot for row in rows for slot in row]
        assert len(rows) <= MOST_ROWS and max(map(len, rows)) <= SLOTS
        assert slots[0].start == 0.0 and slots[-1].end == 10.0 * count
        assert all(slot.end == following.start for slot, following in pairwise(slots))
        if count <= SLOTS * MOST_ROWS:
            assert [slot.text for slot in slots] == [str(number) for number in range(count)]


def test_neighbours_are_joined_and_crowds_say_what_most_said() -> None:
    assert [slot.text for slot in arranged(captions(5, lambda number: "ab"[number > 1]))[0]] == ["a", "b"]
    slots = arranged(captions(SLOTS * MOST_ROWS * 4, lambda number: "rain" if number % 4 else "dog"))[0]
    assert [slot.text for slot in slots] == ["rain (3 of 4)"]


@pytest.mark.train
def test_a_picture_is_drawn_beside_the_captions(enclap: Run, recording: Callable[..., Path], tmp_path: Path) -> None:
    path = recording("a $1 & <b>.wav", seconds=25.0)
    plain = enclap("caption", path)
    done = enclap("caption", path, "--plot", "a.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")
    with av.open(str(tmp_path / "a.png")) as picture:
        assert picture.streams.video[0].width == 1440
    svg = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for target in svg:
        assert enclap("caption", path, "--plot", target).returncode == 0
    assert svg[0].read_bytes() == svg[1].read_bytes()
    shown = " ".join(ElementTree.parse(svg[0]).getroot().itertext())
    assert "a $1 & <b>.wav" in shown and "0:25.0" in shown


def test_what_cannot_be_drawn_is_one_line_before_any_work(
    enclap: Run, recording: Callable[..., Path], tmp_path: Path
) -> None:
    path, other = recording(), recording("b.wav")
    (tmp_path / "there.png").write_text("mine")
    for arguments, words in (
        ((path, "--plot", "a.gif"), "must end in .png or .svg"),
        ((path, other, "--plot", "a.png"), "shows one recording, these are 2"),
        (("-", "--plot", "a.png"), "a second time"),
        ((path, "--plot", "gone/a.png"), "does not exist"),
        ((path, "--plot", "there.png"), "exists"),
    ):
        done = enclap("caption", *arguments, "--model", "/nowhere")
        assert (done.returncode, done.stderr.count("\n"), words in done.stderr) == (2, 1, True), done.stderr
    assert (tmp_path / "there.png").read_text() == "mine"


def test_a_missing_matplotlib_names_the_command_that_installs_it(
    enclap_command: list[str], recording: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [*enclap_command, "caption", str(recording()), "--plot", "a.png"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == "enclap: --plot needs the extra 'plot': pip install 'enclap[plot]'\n"


def test_captions_alone_do_not_load_matplotlib(enclap_command: list[str], recording: Callable[..., Path]) -> None:
    program = Path(enclap_command[1]).read_text() if enclap_command else ""
    watched = program.replace(
        "main()\n", "import atexit\natexit.register(lambda: print('matplotlib' in sys.modules))\nmain()\n"
    )
    command = [enclap_command[0], "-c", watched, "caption", str(recording())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
