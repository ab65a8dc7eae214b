"""Copies of recordings: what fingerprints keep, and what a library says of the same sound in several files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from enclap.audio.read import read_audio
from enclap.search.copies import compare, find_copies, joined
from enclap.search.fingerprint import FRAME_SECONDS, SHORTEST, WORD_TYPE, best_overlap, fingerprint
from enclap.search.listing import CopyPair, list_copies
from enclap.types import FloatArray, Waveform
from libraries import indexed, tone_captioner
from sounds import write_audio

RATE = 16_000


def texture(seconds: float, seed: int) -> FloatArray:
    """A sound that changes: bursts of noise in changing bands over a soft floor."""
    generator = np.random.default_rng(seed)
    samples = generator.normal(0, 0.003, round(seconds * RATE))
    for _ in range(round(6 * seconds)):
        first, hertz = int(generator.uniform(0, seconds) * RATE), generator.uniform(250, 5_000)
        time = np.arange(min(len(samples) - first, 2 * RATE)) / RATE  # seconds of a burst, which is over after two
        phase = 2 * np.pi * hertz * time + generator.normal(0, 1.0, len(time)).cumsum() / 9
        samples[first : first + len(time)] += 0.15 * np.exp(-time * generator.uniform(3, 20)) * np.sin(phase)
    return samples.astype(np.float32)


def lossy(path: Path, samples: FloatArray) -> Path:
    """An MP3 of 64 kbit/s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp3", rate=RATE)
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), format="s16p", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


@pytest.mark.parametrize("seconds", [0.5, 3.0, 12.0])
def test_copies_agree_and_others_do_not(tmp_path: Path, seconds: float) -> None:
    original = texture(seconds, 1)
    codes = fingerprint(Waveform(original, RATE))
    copies = {
        "softer": Waveform(original * np.float32(0.1), RATE),
        "mp3": read_audio(lossy(tmp_path / "copy.mp3", original)),
    }
    for name, copy in copies.items():
        assert compare("a", codes, "b", fingerprint(copy)) is not None, name
    others = [fingerprint(Waveform(texture(seconds, seed), RATE)) for seed in range(2, 12)]
    assert all(compare("a", codes, "b", other) is None for other in others)


@pytest.mark.parametrize("start", [0.0, 1.7431, 5.3])
def test_a_cut_is_placed_where_it_lies(start: float) -> None:
    original = texture(12.0, 3)
    cut = original[round(start * RATE) : round((start + 4.0) * RATE)]
    pair = compare("cut", fingerprint(Waveform(cut, RATE)), "whole", fingerprint(Waveform(original, RATE)))
    assert pair is not None and (pair.path, pair.of) == ("cut", "whole")
    assert pair.offset == pytest.approx(start, abs=2 * FRAME_SECONDS)
    assert pair.overlap == pytest.approx(4.0, abs=0.1)


def test_the_best_overlap_is_that_of_trying_every_shift() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 2**32, 40, dtype=np.uint32)
    second = np.concatenate([first[25:], generator.integers(0, 2**32, 9, dtype=np.uint32)])

    def agreement(shift: int) -> float:
        pairs = [(first[i], second[i - shift]) for i in range(40) if 0 <= i - shift < len(second)]
        return sum(32 - int(a ^ b).bit_count() for a, b in pairs) / (32 * len(pairs))

    found = best_overlap(first, second)
    assert found is not None
    assert (found.offset, found.agreement) == (25 * FRAME_SECONDS, pytest.approx(agreement(25)))
    assert best_overlap(first[: SHORTEST - 1], second) is None


def test_windows_are_joined_at_their_times() -> None:
    parts = [np.full(5, number, WORD_TYPE) for number in (1, 2)]
    codes = joined([(10.08, parts[1].tobytes()), (10.0, parts[0].tobytes())])
    assert codes.tolist() == [1] * 5 + [2] * 5
    codes = joined([(0.0, parts[0].tobytes()), (0.112, parts[1].tobytes())])
    assert codes.tolist() == [1] * 5 + [0, 0] + [2] * 5


def test_a_library_lists_its_copies(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    original = texture(12.0, 5)
    write_audio(folder / "whole.wav", original[:, None], RATE)
    write_audio(folder / "cut.wav", original[3 * RATE : 9 * RATE, None], RATE)
    lossy(folder / "copy.mp3", original * np.float32(0.5))
    for seed in range(20, 26):
        write_audio(folder / f"other{seed}.wav", texture(5.0, seed)[:, None], RATE)
    library, _ = indexed(tmp_path / "library", folder, tone_captioner(tmp_path / "model"))
    pairs = {frozenset((pair.path, pair.of)): pair for pair in find_copies(library)}
    names = [("cut.wav", "whole.wav"), ("copy.mp3", "cut.wav"), ("copy.mp3", "whole.wav")]
    assert set(pairs) == {frozenset(pair) for pair in names}
    assert pairs[frozenset(names[0])].offset == pytest.approx(3.0, abs=0.05)


def test_pairs_are_written_as_text_json_and_table() -> None:
    pairs = [CopyPair("/a/cut.wav", "/a/whole.wav", 3.0, 6.0, 0.97)]
    assert list_copies("text", pairs) == "0.97  /a/cut.wav  =  /a/whole.wav  (6.0 s of both, from 3.00 s on)\n"
    assert json.loads(list_copies("json", pairs))["duplicates"] == [
        {"path": "/a/cut.wav", "of": "/a/whole.wav", "offset": 3.0, "overlap": 6.0, "score": 0.97}
    ]
    assert list_copies("csv", pairs).splitlines()[1] == "/a/cut.wav,/a/whole.wav,3.000,6.000,0.9700"
