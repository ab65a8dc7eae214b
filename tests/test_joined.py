"""Several recordings in one file, tracks after each other: all of the sound is read, or what is missing is said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.read import open_audio, read_audio
from sounds import tone, write_audio, write_timed

RATE = 48_000
LOW, HIGH, OTHER = 440.0, 880.0, 620.0  # Hz

# Extension and codec of files that FFmpeg stops reading at the end of the first one.
JOINED = [("wav", None), ("aiff", None), ("w64", None), ("caf", None), ("tta", None), ("voc", "pcm_s16le")]
JOINED += [("m4a", "aac"), ("mov", "pcm_s16le"), ("wma", "wmav2"), ("flv", "mp3")]
# And of those that it reads on.
JOINED += [
    ("mp3", None),
    ("flac", None),
    ("aac", None),
    ("ac3", None),
    ("mka", "flac"),
    ("webm", "libopus"),
    ("ts", "aac"),
]


def write(path: Path, seconds: float, hertz: float, codec: str | None, rate: int = RATE, channels: int = 1) -> bytes:
    channels = 2 if codec == "vorbis" else channels
    return write_audio(path, tone(seconds, rate, hertz, channels), rate, codec=codec).read_bytes()


def heard(path: Path | bytes) -> list[float]:
    """The loudest frequency in Hz of each second, at any rate."""
    waveform = read_audio(path)
    seconds = len(waveform.samples) // waveform.rate
    parts = [waveform.samples[number * waveform.rate :][: waveform.rate] for number in range(seconds)]
    return [float(np.abs(np.fft.rfft(part)).argmax()) for part in parts]


def check_heard(path: Path | bytes, expected: Sequence[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "enclap"):
        assert heard(path) == [pytest.approx(hertz, abs=15) for hertz in expected]
    assert caplog.messages == []


@pytest.mark.parametrize(("extension", "codec"), JOINED)
def test_a_file_behind_a_file_is_read_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str | None
) -> None:
    rate = 44_100 if extension == "flv" else RATE
    path = tmp_path / f"a.{extension}"
    path.write_bytes(write(path, 3.0, LOW, codec, rate) + write(path, 3.3, HIGH, codec, rate))
    check_heard(path, [LOW, LOW, LOW, HIGH, HIGH, HIGH], caplog)


@pytest.mark.parametrize(("extension", "codec"), [("wav", None), ("aiff", None), ("m4a", "aac"), ("mov", "pcm_s16le")])
def test_the_second_file_may_have_another_rate_and_other_channels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str | None
) -> None:
    path = tmp_path / f"a.{extension}"
    parts = [
        write(path, 2.0, LOW, codec),
        write(path, 2.0, HIGH, codec, 32_000, 2),
        write(path, 2.3, LOW, codec, 22_050),
    ]
    path.write_bytes(b"".join(parts))
    check_heard(path, [LOW, LOW, HIGH, HIGH, LOW, LOW], caplog)


LINKS = {
    "vorbis": ("vorbis", 44_100, 2),
    "vorbis at 32 kHz": ("vorbis", 32_000, 2),
    "opus": ("libopus", 48_000, 1),
    "opus in stereo": ("libopus", 48_000, 2),
    "flac": ("flac", 44_100, 1),
    "flac in stereo": ("flac", 22_050, 2),
}


@pytest.mark.parametrize("first", LINKS)
@pytest.mark.parametrize("second", LINKS)
def test_chained_ogg_of_any_codec_rate_and_channels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str, second: str
) -> None:
    path = tmp_path / "a.ogg"
    chain = b""
    for link, hertz in ((first, LOW), (second, HIGH), (first, LOW)):
        codec, rate, channels = LINKS[link]
        chain += write(path, 2.0, hertz, codec, rate, channels)
    path.write_bytes(chain)
    check_heard(path, [LOW, LOW, HIGH, HIGH, LOW, LOW], caplog)
    with open_audio(path) as audio:
        blocks = list(audio.blocks)
    assert blocks[-1].end == pytest.approx(6.0 * audio.rate, abs=0.2 * audio.rate)


def test_a_link_that_cannot_be_read_is_said_and_the_next_one_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ogg"
    good, bad = write(path, 2.0, LOW, "libopus"), bytearray(write(path, 2.0, HIGH, "libopus", channels=2))
    bad[28:36] = b"Unknown!"
    path.write_bytes(good + bytes(bad) + write(path, 2.3, OTHER, "flac"))
    with caplog.at_level(logging.WARNING, "enclap"):
        assert heard(path) == [pytest.approx(hertz, abs=15) for hertz in (LOW, LOW, OTHER, OTHER)]
    (message,) = caplog.messages
    assert "what follows 2.0 s" in message and f"{len(bad)}" not in message


def transport(path: Path, hertz: float, identifier: int, **options: object) -> bytes:
    settings = {"mpegts_start_pid": str(identifier)}
    codec = options.pop("codec", "aac")
    return write_timed(
        path, [[(0.0, tone(3.0, RATE, hertz))]], RATE, codec=codec, options=settings, **options
    ).read_bytes()  # type: ignore[arg-type]


@pytest.mark.parametrize("first_second", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3"])
def test_a_new_track_in_a_transport_stream_is_read_on(tmp_path: Path, codec: str, first_second: float) -> None:
    """A change of programme: the old track ends, a new one goes on, and perhaps the old one again."""
    path = tmp_path / "a.ts"
    one = transport(path, LOW, 257)
    two = transport(path, HIGH, 300, codec=codec, first_second=first_second)
    path.write_bytes(one + two)
    assert heard(path)[:6] == [pytest.approx(hertz, abs=15) for hertz in (LOW, LOW, LOW, HIGH, HIGH, HIGH)]
    path.write_bytes(one + two + one)
    assert [heard(path)[second] for second in (1, 4, 7)] == [pytest.approx(hertz, abs=15) for hertz in (LOW, HIGH, LOW)]


def test_a_new_track_beside_a_picture_and_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    picture = {"video": "mpeg2video", "seconds_of_video": 3.0}
    one = transport(path, LOW, 256, **picture)
    path.write_bytes(one + transport(path, HIGH, 500, first_second=20.0, **picture))
    with open_audio(path) as audio:
        starts = [block.start for block in audio.blocks]
    gaps = np.diff(starts)
    assert gaps.max() == pytest.approx(17.0 * RATE, abs=0.5 * RATE)
    assert heard(path) == [pytest.approx(hertz, abs=15) for hertz in (LOW, LOW, LOW, HIGH, HIGH, HIGH)]


@pytest.mark.parametrize("extension", ["ts", "mpg", "mkv", "mp4"])
@pytest.mark.parametrize("seconds", [0.5, 6.0])
def test_a_second_language_is_not_read_as_well(tmp_path: Path, extension: str, seconds: float) -> None:
    codec = "mp2" if extension == "mpg" else "aac"
    tracks = [[(0.0, tone(seconds, RATE, LOW))], [(0.0, tone(seconds + 0.4, RATE, HIGH))]]
    waveform = read_audio(write_timed(tmp_path / f"a.{extension}", tracks, RATE, codec=codec))
    assert waveform.seconds == pytest.approx(seconds + 0.2, abs=0.3)
    spectrum = np.abs(np.fft.rfft(waveform.samples, RATE))
    loud, quiet = sorted((float(spectrum[430:450].max()), float(spectrum[870:890].max())), reverse=True)
    assert quiet < 0.05 * loud


@pytest.mark.parametrize("start", [3.0, 3.9, 4.0])
def test_tracks_that_follow_each_other_in_a_transport_stream(tmp_path: Path, start: float) -> None:
    tracks = [[(0.0, tone(4.0, RATE, LOW))], [(start, tone(4.0, RATE, HIGH))]]
    found = heard(write_timed(tmp_path / "a.ts", tracks, RATE, codec="aac"))
    assert found[:3] == [pytest.approx(LOW, abs=15)] * 3
    if start > 3.5:  # what they share for longer is another language
        assert found[5:] == [pytest.approx(HIGH, abs=15)] * len(found[5:])
        assert len(found) >= 7
