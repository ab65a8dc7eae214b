"""Real inputs that once failed (../shared/cases): where their sound lies, what is warned of, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from cli import Run
from enclap.audio.read import open_audio
from enclap.audio.window import is_silent, split_windows
from enclap.errors import AudioRefused, InputError

pytestmark = pytest.mark.shared

SPANS = {
    "timestamps_from_100000s.webm": [(0, 3)],
    "timestamps_from_100000s.mkv": [(0, 3)],
    "timestamps_from_100000s.opus": [(0, 3)],
    "timestamps_from_3600s.mkv": [(0, 3)],
    "flac_piped_total.flac": [(0, 2)],
    "fragmented_wrong_header_length.m4a": [(0, 2)],
    "aiff_piped.aiff": [(0, 2)],
    "adts_silent_beginning.aac": [(0, 6), (6, 12)],
    "vbr_without_header.mp3": [(0, 7), (7, 14)],
    "audio_shorter_than_video.webm": [(0, 6)],
    "empty_last_packet.ogg": [(0, 3)],
    "lyrics3_tag.mp3": [(0, 3)],
    "audio_starts_at_20s.mp4": [(20, 28)],
    "gap_of_20s.mp4": [(0, 4), (24, 28)],
    "gap_of_20s.webm": [(0, 4), (24, 28)],
    "chained_other_channels.ogg": [(0, 6)],
    "track_changes_id.ts": [(0, 6)],
    "one_sample.wav": [(0, 0)],
}
"""Seconds of each window; all of these files are healthy, so nothing is warned of."""
WARNED = {
    "header_says_less.wav": (2.0, "its header leaves out 28000 bytes of sound; they are read too"),
    "opposite_channels.wav": (1.0, "the channels cancel each other out"),
}


@pytest.mark.parametrize("name", SPANS)
def test_healthy_files_are_read_whole_where_their_sound_is(
    shared: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "enclap"), open_audio(shared / "cases" / name) as audio:
        windows = list(split_windows(audio.blocks, audio.rate))
    np.testing.assert_allclose([(window.start, window.end) for window in windows], SPANS[name], atol=0.1)
    assert not caplog.records


@pytest.mark.parametrize("name", WARNED)
def test_what_is_odd_is_read_with_a_warning(shared: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    seconds, words = WARNED[name]
    with caplog.at_level(logging.WARNING, "enclap"), open_audio(shared / "cases" / name) as audio:
        [window] = split_windows(audio.blocks, audio.rate)
    assert window.waveform.seconds == pytest.approx(seconds) and not is_silent(window.waveform.samples)
    assert words in caplog.text


def test_an_offset_alone_is_silence(shared: Path) -> None:
    with open_audio(shared / "cases" / "silence_with_offset.wav") as audio:
        assert all(is_silent(window.waveform.samples) for window in split_windows(audio.blocks, audio.rate))


def test_a_sample_that_no_recording_holds_is_refused(shared: Path) -> None:
    with pytest.raises(InputError, match=r"1e\+22"), open_audio(shared / "cases" / "one_sample_of_1e22.wav") as audio:
        list(audio.blocks)


def test_a_folder_leaves_out_text_and_fails_alone_for_what_it_cannot_caption(shared: Path, enclap: Run) -> None:
    done = enclap("caption", shared / "cases", "--format", "csv")
    assert done.returncode == 1 and "App.sln" not in done.stdout + done.stderr
    failures = [line for line in done.stderr.splitlines() if line.startswith("enclap: ") and "captioned" not in line]
    assert len(failures) == 1 and "one_sample_of_1e22.wav" in failures[0]
    assert all(name in done.stdout for name in (*SPANS, *WARNED))


def test_one_sample_gets_a_cue_that_players_accept(shared: Path, enclap: Run) -> None:
    done = enclap("caption", shared / "cases" / "one_sample.wav", "--format", "srt")
    times = done.stdout.splitlines()[1]
    assert times.startswith("00:00:00,000 --> 00:00:00,") and not times.endswith(",000")


def test_longer_than_the_limit_is_found_while_decoding(shared: Path) -> None:
    from enclap.audio.source import ReadLimits

    limits = ReadLimits(seconds=5.0)
    with open_audio(shared / "cases" / "audio_starts_at_20s.mp4", limits) as audio, pytest.raises(AudioRefused):
        list(audio.blocks)
