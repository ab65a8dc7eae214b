"""Times are those of the recording's own time line: late sound, gaps, live streams, clocks that begin anew."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.read import open_audio, read_audio
from enclap.audio.timeline import JITTER
from enclap.audio.window import split_windows
from enclap.captioner import Captioner, Failure
from enclap.types import CaptionResult
from fakes import EchoEngine
from sounds import Piece, noise, tone, write_audio, write_timed, write_wav

RATE = 48_000

# Extension, codec of the sound, codec of the picture; AVI and PCM in MOV cannot say that there is no sound.
FILMS = [("mp4", "aac", "mpeg4"), ("mov", "aac", "mpeg4"), ("mkv", "flac", "mpeg4"), ("mkv", "mp3", "mpeg4")]
FILMS += [("mkv", "ac3", "mpeg4"), ("webm", "libopus", "libvpx"), ("ts", "aac", "mpeg4"), ("flv", "aac", "flv")]
FILMS += [("wmv", "wmav2", "mpeg4"), ("nut", "flac", "mpeg4"), ("3gp", "aac", "mpeg4")]
SOUNDS = [("m4a", "aac"), ("mka", "flac"), ("webm", "libopus"), ("opus", "libopus"), ("ogg", "flac"), ("ts", "aac")]
SOUNDS += [("flv", "aac"), ("wma", "wmav2")]


def write(path: Path, pieces: Sequence[Piece], codec: str, **options: object) -> Path:
    return write_timed(path, [pieces], 44_100 if path.suffix == ".flv" else RATE, codec=codec, **options)  # type: ignore[arg-type]


def rate_of(extension: str) -> int:
    return 44_100 if extension == "flv" else RATE


def times(path: Path) -> list[tuple[float, float]]:
    with open_audio(path) as audio:
        return [(window.start, window.end) for window in split_windows(audio.blocks, audio.rate)]


def check_times(path: Path, expected: list[tuple[float, float]], caplog: pytest.LogCaptureFixture) -> None:
    tolerance = 1.1 if path.suffix in (".ogg", ".opus") else 0.15  # Ogg has the time of whole pages of up to a second
    with caplog.at_level(logging.WARNING, "enclap"):
        found = times(path)
    assert caplog.messages == []
    assert found == [pytest.approx(pair, abs=tolerance) for pair in expected]


@pytest.mark.parametrize(("extension", "codec", "video"), FILMS)
@pytest.mark.parametrize("start", [3.0, 20.0])
def test_sound_that_starts_late_is_captioned_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str, video: str, start: float
) -> None:
    sound = tone(4.0, rate_of(extension))
    path = write(tmp_path / f"a.{extension}", [(start, sound)], codec, video=video, seconds_of_video=start + 6)
    check_times(path, [(start, start + 4)], caplog)


@pytest.mark.parametrize(("extension", "codec", "video"), FILMS)
def test_a_gap_is_left_out_and_the_sound_behind_it_stands_at_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str, video: str
) -> None:
    sound = tone(4.0, rate_of(extension))
    path = write(tmp_path / f"a.{extension}", [(0.0, sound), (24.0, sound)], codec, video=video, seconds_of_video=32.0)
    check_times(path, [(0.0, 4.0), (24.0, 28.0)], caplog)
    assert read_audio(path).seconds == pytest.approx(8.0, abs=0.15)


@pytest.mark.parametrize(("extension", "codec"), SOUNDS)
def test_a_gap_without_a_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str) -> None:
    sound = tone(3.0, rate_of(extension))
    path = write(tmp_path / f"a.{extension}", [(0.0, sound), (7.0, sound), (3600.0, sound)], codec)
    check_times(path, [(0.0, 3.0), (7.0, 10.0), (3600.0, 3603.0)], caplog)


@pytest.mark.parametrize(("extension", "codec"), SOUNDS)
@pytest.mark.parametrize("first_second", [5.0, 36_000.0, 90_000.0])
def test_a_piece_of_a_live_stream_starts_at_its_own_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str, first_second: float
) -> None:
    path = write(tmp_path / f"a.{extension}", [(0.0, tone(3.0, rate_of(extension)))], codec, first_second=first_second)
    check_times(path, [(0.0, 3.0)], caplog)


@pytest.mark.parametrize("extension", ["mkv", "ts"])
def test_late_sound_in_a_piece_of_a_live_stream_is_counted_from_the_first_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str
) -> None:
    path = write(
        tmp_path / f"a.{extension}",
        [(12.0, tone(4.0, RATE)), (40.0, tone(4.0, RATE))],
        "aac",
        first_second=36_000.0,
        video="mpeg4",
        seconds_of_video=50.0,
    )
    check_times(path, [(12.0, 16.0), (40.0, 44.0)], caplog)


@pytest.mark.parametrize(
    "name",
    [
        *("a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus", "a.m4a", "a.aac", "a.webm", "a.mka", "a.wma", "a.ac3"),
        *("a.ts", "a.mpg", "a.avi", "a.flv", "a.aiff", "a.au", "a.caf", "a.w64", "a.wv", "a.tta", "a.voc", "a.nut"),
    ],
)
@pytest.mark.parametrize("rate", [44_100, 22_050])
def test_ordinary_files_start_at_zero_and_have_no_gap(tmp_path: Path, name: str, rate: int) -> None:
    codecs = {"ogg": "flac", "m4a": "aac", "webm": "libopus", "mka": "mp3", "ts": "aac", "mpg": "mp2", "avi": "mp3"}
    rate = {"opus": 48_000, "webm": 48_000, "ac3": 48_000, "mpg": 44_100}.get(name[2:], rate)
    channels = 1 if name == "a.voc" else 2
    codec = codecs.get(name[2:], "pcm_u8" if name == "a.voc" else None)
    path = write_audio(tmp_path / name, noise(7.0, rate, channels), rate, codec=codec)
    with open_audio(path) as audio:
        blocks = list(audio.blocks)
    ends = [block.end for block in blocks]
    assert [block.start for block in blocks] == [0, *ends[:-1]]


def test_gaps_shorter_than_a_second_become_zeros(tmp_path: Path) -> None:
    sound = tone(2.0, RATE)
    path = write(tmp_path / "a.mka", [(0.0, sound), (2.5, sound)], "pcm_s16le")
    (window,) = windows_of(path)
    assert window.shape == (round(4.5 * RATE),)
    assert not window[round(2.1 * RATE) : round(2.4 * RATE)].any()
    np.testing.assert_allclose(window[-2 * RATE :], sound[:, 0], atol=1e-4)


def windows_of(path: Path) -> list[np.ndarray]:
    with open_audio(path) as audio:
        return [window.waveform.samples for window in split_windows(audio.blocks, audio.rate)]


def test_what_time_stamps_are_off_by_is_no_gap(tmp_path: Path) -> None:
    pieces = [(0.1 * number + (number % 3) * 0.05, tone(0.1, RATE)) for number in range(40)]
    path = write(tmp_path / "a.mka", pieces, "pcm_s16le")
    with open_audio(path) as audio:
        blocks = list(audio.blocks)
    assert blocks[-1].end == sum(len(block.samples) for block in blocks) == 4 * RATE
    assert JITTER >= 0.1


@pytest.mark.parametrize("second", [0.0, 1.0, 3.5])
def test_time_stamps_that_go_back_lose_nothing_and_times_go_on(tmp_path: Path, second: float) -> None:
    """Streams that were joined, each with its own clock: FFmpeg's muxers refuse it, so a transport stream is joined."""
    one = write(tmp_path / "a.ts", [(0.0, tone(4.0, RATE))], "aac").read_bytes()
    two = write(tmp_path / "b.ts", [(0.0, tone(4.0, RATE, 880.0))], "aac", first_second=second).read_bytes()
    (tmp_path / "c.ts").write_bytes(one + two + two)
    with open_audio(tmp_path / "c.ts") as audio:
        blocks = list(audio.blocks)
    assert all(later.start >= earlier.end for earlier, later in pairwise(blocks))
    assert sum(len(block.samples) for block in blocks) == pytest.approx(12.1 * RATE, abs=0.1 * RATE)
    assert blocks[-1].end == pytest.approx(12.1 * RATE, abs=0.3 * RATE)


def test_a_jump_of_more_than_a_day_is_another_clock(tmp_path: Path) -> None:
    sound = tone(2.0, RATE)
    path = write(tmp_path / "a.mka", [(0.0, sound), (25 * 3600.0, sound)], "pcm_s16le")
    assert times(path) == [(0.0, 4.0)]


def test_captions_and_duration_have_these_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mka", [(0.0, tone(4.0, RATE)), (24.0, tone(4.0, RATE))], "pcm_s16le")
    result = Captioner(EchoEngine()).caption(path)
    assert [(caption.start, caption.end) for caption in result.captions] == [(0.0, 4.0), (24.0, 28.0)]
    assert result.duration == 28.0


def test_one_window_spans_its_gaps_as_far_as_memory_may_go(tmp_path: Path) -> None:
    captioner = Captioner(EchoEngine())
    near = write(tmp_path / "a.mka", [(0.0, tone(4.0, RATE)), (24.0, tone(4.0, RATE))], "pcm_s16le")
    (caption,) = captioner.caption(near, window=0).captions
    assert (caption.start, caption.end) == (0.0, 28.0)
    far = write(tmp_path / "b.mka", [(0.0, tone(4.0, RATE)), (9 * 3600.0, tone(4.0, RATE))], "pcm_s16le")
    first, second = captioner.stream([far, near], window=0)
    assert isinstance(first, Failure) and "use --window 10" in str(first.error)
    assert isinstance(second, CaptionResult)


PEAK = """
import resource, sys
from enclap.audio.read import open_audio
from enclap.audio.window import split_windows
for path in sys.argv[1:]:
    with open_audio(path) as audio:
        ends = [window.end for window in split_windows(audio.blocks, audio.rate)]
    print(round(ends[-1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_gap_of_hours_takes_no_memory(tmp_path: Path) -> None:
    sound = tone(4.0, RATE)
    paths = [
        write(tmp_path / f"{hours}.mka", [(0.0, sound), (3600.0 * hours + 8.0, sound)], "flac") for hours in (0, 23)
    ]
    command = [sys.executable, "-c", PEAK, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (near, first_peak), (far, second_peak) = (map(int, line.split()) for line in lines)
    assert (near, far) == (12, 23 * 3600 + 12)
    assert second_peak - first_peak < 8_000  # kilobytes


def test_tracks_without_sound_at_the_beginning_of_a_broadcast_are_found(tmp_path: Path) -> None:
    """FFmpeg looks at the first seconds alone, and knows neither rate nor channels of a track that is empty there."""
    path = write(tmp_path / "a.ts", [(30.0, tone(4.0, RATE))], "mp2", video="mpeg2video", seconds_of_video=36.0)
    with open_audio(path) as audio:
        assert (audio.rate, audio.channels) == (RATE, 1)
    assert times(path) == [pytest.approx((30.0, 34.0), abs=0.15)]


def test_progress_is_told_on_the_time_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [(20.0, tone(8.0, RATE))], "aac", video="mpeg4", seconds_of_video=40.0)
    with open_audio(path) as audio:
        assert audio.declared_seconds == pytest.approx(28.0, abs=0.1)


def test_arrays_and_plain_files_are_placed_alike(tmp_path: Path) -> None:
    samples = np.round(noise(1.0) * 32768).astype(np.int16)
    for source in (write_wav(tmp_path / "a.wav", samples, 16_000), (samples, 16_000)):
        with open_audio(source) as audio:
            blocks = list(audio.blocks)
        assert blocks[0].start == 0
        assert blocks[-1].end == 16_000
