"""Reading: every source, container, rate and channel count gives the same mono samples, in little memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.read import open_audio, read_audio
from enclap.audio.source import ReadLimits
from enclap.errors import AudioEmpty, AudioNotFinite, AudioNotFound, AudioRefused, AudioUnreadable
from sounds import noise, tone, write_audio, write_silent_video, write_wav

LOSSLESS = [("a.wav", "pcm_s16le"), ("a.wav", "pcm_f32le"), ("a.wav", "pcm_s24le"), ("a.wav", "pcm_f64le")]
LOSSLESS += [("a.flac", None), ("a.mka", "flac"), ("a.aiff", None), ("a.au", None), ("a.caf", None), ("a.w64", None)]
LOSSY = [("a.mp3", None), ("a.ogg", "libopus"), ("a.opus", "libopus"), ("a.m4a", "aac"), ("a.webm", "libopus")]
LOSSY += [("a.ac3", None), ("a.wma", "wmav2"), ("a.mp4", "aac"), ("a.mkv", "mp3"), ("a.avi", "mp3"), ("a.flv", "mp3")]


@pytest.mark.parametrize(("name", "codec"), LOSSLESS)
def test_lossless_files_give_the_samples_that_were_written(tmp_path: Path, name: str, codec: str | None) -> None:
    samples = noise(0.5, 44_100, 2)
    waveform = read_audio(write_audio(tmp_path / name, samples, 44_100, codec=codec))
    assert waveform.rate == 44_100
    np.testing.assert_allclose(waveform.samples, samples.mean(axis=1), atol=1 / 32768)


@pytest.mark.parametrize(("name", "codec"), LOSSY)
def test_lossy_files_and_videos_give_about_the_sound_that_was_written(
    tmp_path: Path, name: str, codec: str | None
) -> None:
    video = name.endswith((".mp4", ".mkv", ".avi"))
    path = write_audio(tmp_path / name, tone(1.0, 48_000, channels=2), 48_000, codec=codec, video=video)
    waveform = read_audio(path)
    spectrum = np.abs(np.fft.rfft(waveform.samples[:48_000], 48_000))
    assert 0.9 < waveform.seconds < 1.15
    assert abs(int(spectrum.argmax()) - 440) <= 1


@pytest.mark.parametrize("kind", ["u8", "s16", "s32"])
def test_integer_formats_have_unit_full_scale(tmp_path: Path, kind: str) -> None:
    width = {"u8": 1, "s16": 2, "s32": 4}[kind]
    zero = {"u8": 128, "s16": 0, "s32": 0}[kind]
    half = 2 ** (8 * width - 1)
    values = np.array([zero, zero + half // 2, zero - half // 2, zero - half], f"<{'u' if width == 1 else 'i'}{width}")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, width, 8000, 0, "NONE", ""))
        file.writeframes(values.tobytes())
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, [0.0, 0.5, -0.5, -1.0])
    np.testing.assert_array_equal(read_audio((values, 8000)).samples, [0.0, 0.5, -0.5, -1.0])


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 16, 64])
def test_equal_channels_give_exactly_the_mono_file(tmp_path: Path, channels: int) -> None:
    mono = np.random.default_rng(1).integers(-32768, 32768, (2000, 1)).astype(np.int16)
    one = read_audio(write_wav(tmp_path / "mono.wav", mono, 16_000))
    many = read_audio(write_wav(tmp_path / "many.wav", np.repeat(mono, channels, axis=1), 16_000))
    np.testing.assert_array_equal(one.samples, many.samples)


@pytest.mark.parametrize(("name", "codec", "layout"), [("a.m4a", "aac", "7.1"), ("a.wv", "wavpack", None)])
def test_many_planar_channels_are_averaged(tmp_path: Path, name: str, codec: str, layout: str | None) -> None:
    """Planar frames of eight channels or more are where PyAV reads past its pointers."""
    channels = 8 if layout else 16
    weights = np.linspace(0, 1, channels, dtype=np.float32)
    weights[3] = 0.0  # of 7.1 this one is for deep tones only
    samples = tone(0.5, 48_000, channels=channels) * weights
    waveform = read_audio(write_audio(tmp_path / name, samples, 48_000, codec=codec, layout=layout))
    peak = float(np.abs(waveform.samples[4800:19_200]).max())
    assert peak == pytest.approx(0.5 * weights.mean(), abs=0.01)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 96_000, 192_000, 384_000])
def test_every_rate_is_kept(tmp_path: Path, rate: int) -> None:
    waveform = read_audio(write_audio(tmp_path / "a.wav", noise(0.1, rate), rate))
    assert (waveform.rate, len(waveform.samples)) == (rate, round(0.1 * rate))


def test_a_hundredth_of_a_second_and_a_single_sample_are_read(tmp_path: Path) -> None:
    assert len(read_audio(write_audio(tmp_path / "a.wav", noise(0.01), 16_000)).samples) == 160
    assert len(read_audio(write_audio(tmp_path / "b.wav", noise(1 / 16_000), 16_000)).samples) == 1


def test_all_sources_of_the_same_file_agree(recording: Callable[..., Path]) -> None:
    path = recording("a.flac", channels=2)
    expected = read_audio(path).samples
    content = path.read_bytes()
    inside = io.BytesIO(b"skipped" + content)
    inside.seek(len(b"skipped"))
    for source in (str(path), content, bytearray(content), io.BytesIO(content), inside, Unseekable(content)):
        np.testing.assert_array_equal(read_audio(source).samples, expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_audio(file).samples, expected)
        assert not file.closed


class Unseekable(io.RawIOBase):
    """A pipe: reads on, never back."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._inner.readinto(buffer)


def test_a_pipe_gives_a_file_whose_index_is_at_its_end(tmp_path: Path, recording: Callable[..., Path]) -> None:
    path = recording("a.m4a", rate=48_000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(read_audio(pipe).samples, read_audio(path).samples)
    writer.join()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.uint8])
def test_arrays_of_every_type_agree(dtype: type[np.generic]) -> None:
    values = noise(0.1)[:, 0]
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)  # type: ignore[arg-type]
        scaled = np.round(values * info.max) if info.min < 0 else np.round(values * (info.max // 2)) + 128
        array, tolerance = scaled.astype(dtype), 2.0 / info.max * (1 if info.min < 0 else 2)
    else:
        array, tolerance = values.astype(dtype), 1e-3
    waveform = read_audio((array, 16_000))
    assert waveform.samples.dtype == np.float32
    np.testing.assert_allclose(waveform.samples, values, atol=tolerance)


def test_the_longer_axis_of_an_array_is_time() -> None:
    samples = noise(0.2, 16_000, 3)
    upright, lying = read_audio((samples, 16_000)), read_audio((samples.T, 16_000))
    np.testing.assert_array_equal(upright.samples, lying.samples)
    np.testing.assert_allclose(upright.samples, samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(
    ("source", "fault", "words"),
    [
        ((np.zeros(0), 16_000), AudioEmpty, "no samples"),
        ((np.zeros((0, 2)), 16_000), AudioEmpty, "no samples"),
        ((np.zeros((2, 2, 2)), 16_000), AudioUnreadable, "give"),
        ((np.zeros(9, complex), 16_000), AudioUnreadable, "complex128"),
        ((np.array(["a"]), 16_000), AudioUnreadable, "integer or floating-point"),
        ((np.zeros(9), 0), AudioRefused, "whole number"),
        ((np.zeros(9), 11_025.5), AudioRefused, "11025.5"),
        ((np.zeros(9), True), AudioRefused, "whole number"),
        ((np.zeros(9), 5), AudioRefused, "5 Hz"),
        ((np.zeros((999, 65)), 16_000), AudioRefused, "65 channels"),
        ((np.zeros(9),), AudioUnreadable, "give (array, rate)"),
        ((np.array([0.0, np.nan]), 16_000), AudioNotFinite, "first at 0.000 s"),
        ((np.full(9, np.inf), 16_000), AudioNotFinite, "infinite"),
        (io.StringIO("text"), AudioUnreadable, "'rb'"),
        (b"", AudioUnreadable, "empty"),
        (42, AudioUnreadable, "int"),
        ("a\0b", AudioNotFound, "cannot be opened"),
    ],
)
def test_unfit_sources_are_refused_in_one_line(source: object, fault: type[Exception], words: str) -> None:
    with pytest.raises(fault) as caught:
        read_audio(source)  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ReadLimits(bytes=1000), "at most 1000"),
        (ReadLimits(channels=1), "2 channels"),
        (ReadLimits(highest_rate=8000), "16000 Hz"),
        (ReadLimits(lowest_rate=44_100), "16000 Hz"),
    ],
)
def test_limits_come_before_the_first_block(recording: Callable[..., Path], limits: ReadLimits, words: str) -> None:
    with pytest.raises(AudioRefused, match=words), open_audio(recording(channels=2), limits):
        pytest.fail("the recording was opened")


def test_limits_hold_for_streams_that_do_not_say_how_long_they_are(tmp_path: Path) -> None:
    content = write_wav(tmp_path / "a.wav", np.ones((32_000, 1), np.int16), 16_000).read_bytes()
    with pytest.raises(AudioRefused, match="larger than 1000 bytes"):
        read_audio(Unseekable(content), ReadLimits(bytes=1000))
    undeclared = content[:4] + b"\xff" * 4 + content[8:40] + b"\xff" * 4 + content[44:]
    assert read_audio(undeclared).seconds == 2.0
    with pytest.raises(AudioRefused):
        read_audio((noise(2.0)[:, 0], 16_000), ReadLimits(seconds=1.0))


def test_a_broken_file_object_is_named_not_hidden() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(AudioUnreadable, match="reading failed: Input/output error"):
        read_audio(Broken(b"x" * 100))


def test_ctrl_c_inside_a_read_gets_out(recording: Callable[..., Path]) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_audio(Interrupted(recording().read_bytes()))


def test_a_track_that_changes_its_rate_is_converted(tmp_path: Path) -> None:
    """Two recordings of different rates after each other, as broadcasts have them."""
    first = write_audio(tmp_path / "1.aac", tone(1.0, 48_000), 48_000).read_bytes()
    second = write_audio(tmp_path / "2.aac", tone(1.0, 24_000), 24_000).read_bytes()
    waveform = read_audio(first + second)
    assert waveform.rate == 48_000
    assert waveform.seconds == pytest.approx(2.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(waveform.samples[-28_000:-4000], 48_000))
    assert abs(int(spectrum.argmax()) - 440) <= 2


PEAK_OF_READING = """
import resource, sys
from enclap.audio.read import open_audio
from enclap.audio.window import split_windows
for path in sys.argv[1:]:
    with open_audio(path) as audio:
        seconds = sum(window.waveform.seconds for window in split_windows(audio.blocks, audio.rate))
    print(round(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_four_hours_need_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    """A process reads the minute first; its peak must not rise by a fraction of the 58 MB that four hours hold."""
    paths = []
    for minutes in (1, 240):
        samples = np.zeros((minutes * 60 * 1000, 1), np.float32)
        paths.append(write_audio(tmp_path / f"{minutes}.tta", samples, 1000, step=65_536))
    command = [sys.executable, "-c", PEAK_OF_READING, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (minute, first_peak), (hours, second_peak) = (map(int, line.split()) for line in lines)
    assert (minute, hours) == (60, 4 * 3600)
    assert second_peak - first_peak < 8_000  # kilobytes


def test_videos_without_sound_and_empty_recordings_say_so(tmp_path: Path) -> None:
    with pytest.raises(AudioUnreadable, match="no audio track"):
        read_audio(write_silent_video(tmp_path / "film.mp4"))
    with pytest.raises((AudioEmpty, AudioUnreadable)):
        read_audio(write_wav(tmp_path / "a.wav", np.zeros((0, 1), np.int16), 16_000))


def test_nan_in_a_file_is_found_where_it_is(tmp_path: Path) -> None:
    samples = noise(0.5)
    samples[4000] = np.nan
    with pytest.raises(AudioNotFinite, match=r"0\.250 s"):
        read_audio(write_audio(tmp_path / "a.wav", samples, 16_000, codec="pcm_f32le"))


def test_blocks_come_as_they_are_decoded(recording: Callable[..., Path]) -> None:
    with open_audio(recording(seconds=3.0)) as audio:
        first = next(audio.blocks)
        assert first.start == 0
        assert 0 < len(first.samples) < 16_000
        assert audio.declared_seconds == pytest.approx(3.0)


def test_tags_that_are_not_utf8_do_not_matter() -> None:
    tag = b"INFO" + b"INAM" + struct.pack("<I", 6) + b"caf\xe9\xff\0"
    sound = b"\1\0" * 8000
    kind = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16)
    chunks = b"fmt " + kind + b"LIST" + struct.pack("<I", len(tag)) + tag + b"data" + struct.pack("<I", 16_000) + sound
    waveform = read_audio(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    assert (len(waveform.samples), waveform.rate) == (8000, 8000)
