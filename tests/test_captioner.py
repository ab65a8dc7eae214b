"""The route: batching, order, silence, failures and windows, seen through an engine that says what it was given."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.source import ReadLimits
from enclap.captioner import Captioner, Failure, Progress
from enclap.decoding.options import DecodingOptions
from enclap.errors import AudioNotFound, AudioRefused, UsageError
from enclap.types import CaptionResult
from fakes import EchoEngine
from sounds import noise


@pytest.fixture
def captioner() -> Captioner:
    return Captioner(EchoEngine(), "echo")


def test_one_source_gives_one_result(captioner: Captioner, recording: Callable[..., Path]) -> None:
    path = recording(seconds=2.0)
    result = captioner.caption(path)
    assert (result.path, result.duration) == (str(path), 2.0)
    assert [(caption.start, caption.end) for caption in result.captions] == [(0.0, 2.0)]
    assert result.captions[0].candidates[0].text == result.text
    assert result.captions[0].score == -0.1


def test_arrays_bytes_and_files_are_captioned_alike(captioner: Captioner, recording: Callable[..., Path]) -> None:
    path = recording()
    samples = np.round(noise(1.0)[:, 0] * 32768).astype(np.int16)
    with path.open("rb") as file:
        results = captioner.caption([path, path.read_bytes(), file, (samples, 16_000)])
    assert len({result.text for result in results}) == 1
    assert [result.path for result in results] == [str(path), None, str(path), None]


def test_long_audio_gets_a_caption_per_window(captioner: Captioner) -> None:
    result = captioner.caption((noise(23.0, 1000), 1000))
    assert [(caption.start, caption.end) for caption in result.captions] == [(0, 10), (10, 16.5), (16.5, 23)]


def test_batches_change_nothing(captioner: Captioner) -> None:
    sources = [(noise(seconds, 1000, seed=number), 1000) for number, seconds in enumerate((3, 95, 0.01, 41))]
    together = captioner.caption(list(sources))
    assert together == [captioner.caption(source) for source in sources]


def test_windows_of_neighbours_share_batches() -> None:
    engine = EchoEngine()
    Captioner(engine).caption([(noise(1.0, 1000), 1000)] * 11)
    assert engine.batches == [4, 4, 3]


def test_silence_is_not_shown_to_the_model() -> None:
    engine = EchoEngine()
    samples = np.concatenate([np.zeros(10_000), noise(10.0, 1000)[:, 0]])
    result = Captioner(engine).caption((samples, 1000))
    assert engine.batches == [1]
    assert [caption.silence for caption in result.captions] == [True, False]
    silent = result.captions[0]
    assert (silent.text, silent.score, silent.candidates) == ("Silence.", None, ())


def test_all_candidates_come_back(captioner: Captioner) -> None:
    result = captioner.caption((noise(1.0), 16_000), DecodingOptions(beams=4, candidates=3))
    assert len(result.captions[0].candidates) == 3


def test_a_failure_stops_nothing_else(captioner: Captioner, recording: Callable[..., Path]) -> None:
    first, last = recording("a.wav"), recording("b.wav")
    results = list(captioner.stream([first, "missing.wav", (np.array([np.nan]), 8000), last]))
    assert [type(result) for result in results] == [CaptionResult, Failure, Failure, CaptionResult]
    assert results[1] == Failure("missing.wav", results[1].error)  # type: ignore[union-attr]


def test_a_failure_in_the_middle_of_a_long_file_drops_only_that_file(captioner: Captioner) -> None:
    broken = noise(60.0, 1000)[:, 0]
    broken[-1] = np.inf
    results = list(captioner.stream([(broken, 1000), (noise(5.0, 1000), 1000)]))
    assert isinstance(results[0], Failure)
    assert isinstance(results[1], CaptionResult)
    assert results[1].duration == 5.0


def test_caption_raises_what_stream_reports(captioner: Captioner) -> None:
    with pytest.raises(AudioNotFound, match=r"missing\.wav: no such file"):
        captioner.caption("missing.wav")
    with pytest.raises(AudioNotFound):
        captioner.caption([(noise(1.0), 16_000), "missing.wav"])


def test_results_come_as_recordings_end() -> None:
    engine = EchoEngine()
    read = 0

    def sources() -> object:
        nonlocal read
        for _ in range(100):
            read += 1
            yield noise(1.0, 1000), 1000

    next(Captioner(engine).stream(sources()))  # type: ignore[arg-type]
    assert read <= 5 * engine.windows_together  # decoded, in the making, ready, and being written


def test_what_is_known_comes_out_in_its_place(captioner: Captioner, recording: Callable[..., Path]) -> None:
    known = CaptionResult("known.wav", 1.0, ())
    results = list(captioner.stream([recording("a.wav"), known, recording("b.wav")]))
    assert [result.path for result in results] == [str(recording("a.wav")), "known.wav", str(recording("b.wav"))]
    assert results[1] is known


def test_a_stream_that_is_left_early_ends_its_threads(captioner: Captioner) -> None:
    before = threading.active_count()
    stream = captioner.stream([(noise(1.0, 1000), 1000)] * 50)
    next(stream)
    assert threading.active_count() > before
    stream.close()
    assert threading.active_count() == before


def test_a_fault_of_the_engine_reaches_the_caller(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(windows: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(captioner.engine, "extract", fail)
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no room"):
        captioner.caption((noise(1.0, 1000), 1000))
    assert threading.active_count() == before


@pytest.mark.parametrize("window", [-1.0, 0.01, 41.0, float("nan"), float("inf")])
def test_unfit_windows_name_the_choice(captioner: Captioner, window: float) -> None:
    with pytest.raises(UsageError, match=r"0\.1 to 40\.8, or 0"):
        captioner.caption((noise(1.0), 16_000), window=window)


def test_one_window_longer_than_the_model_reads_is_announced(
    captioner: Captioner, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "enclap"):
        result = captioner.caption((noise(50.0, 1000), 1000), window=0)
        captioner.caption((noise(40.0, 1000), 1000), window=0)
    assert len(result.captions) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "audio: 50.0 s in one window; the model reads the first 40.8 s closely, use shorter windows"
    ]


def test_one_window_is_held_in_memory_only_up_to_a_limit(captioner: Captioner) -> None:
    source = (noise(60.0, 1000), 1000)
    limits = ReadLimits(window_seconds=30.0)
    (failure,) = captioner.stream([source], window=0, limits=limits)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, AudioRefused)
    assert "use --window 10" in str(failure.error)
    (result,) = captioner.stream([source], limits=limits)
    assert isinstance(result, CaptionResult)


def test_progress_moves_forward_to_the_end(captioner: Captioner) -> None:
    seen: list[Progress] = []
    sources = [(noise(300.0, 1000), 1000), (noise(1.0, 1000), 1000)]
    list(captioner.stream(sources, on_progress=seen.append))
    assert seen[:2] == [Progress(0), Progress(0, 40.0, 300.0)]  # features are there, then the words of four windows
    assert seen[-1] == Progress(2)
    positions = [(item.done, item.seconds) for item in seen]
    assert positions == sorted(positions)
