"""What headers say about lengths: never a reason to refuse, warned of only where it is certain; what is no damage."""

from __future__ import annotations

import io
import logging
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.headers import is_placeholder
from enclap.audio.read import open_audio, read_audio
from enclap.audio.source import ReadLimits
from enclap.errors import AudioRefused
from sounds import noise, tone, write_audio, write_timed

SECONDS = 2.0
WORDS = np.round(tone(SECONDS, 8000)[:, 0] * 32767).astype("<i2")
SOUND = WORDS.tobytes()
FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16)
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"


def wav(size: int, riff: int | None = None, end: bytes = b"") -> bytes:
    content = b"WAVE" + FORMAT + b"data" + struct.pack("<I", size) + SOUND + end
    return b"RIFF" + struct.pack("<I", len(content) if riff is None else riff) + content


def rf64(size: int, name: bytes = b"RF64", short_size: int = 2**32 - 1) -> bytes:
    sizes = b"ds64" + struct.pack("<IQQQI", 28, size, size, size // 2, 0)
    return name + b"\xff" * 4 + b"WAVE" + sizes + FORMAT + b"data" + struct.pack("<I", short_size) + SOUND


def aiff(size: int, frames: int, form: int | None = None) -> bytes:
    common = b"COMM" + struct.pack(">IHIH", 18, 1, frames, 16) + bytes.fromhex("400bfa00000000000000")
    content = b"AIFF" + common + b"SSND" + struct.pack(">III", size, 0, 0) + WORDS.astype(">i2").tobytes()
    return b"FORM" + struct.pack(">I", len(content) if form is None else form) + content


def au(size: int) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, size, 3, 8000, 1) + WORDS.astype(">i2").tobytes()


def patched(name: str, mark: bytes, offset: int, field: bytes) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        content = bytearray(write_audio(folder / name, tone(SECONDS, 8000), 8000).read_bytes())
        at = content.index(mark) + offset
        content[at : at + len(field)] = field
        return bytes(content)

    return make


def flac(samples: int) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        content = bytearray(write_audio(folder / "a.flac", tone(SECONDS, 8000), 8000).read_bytes())
        field = int.from_bytes(content[18:26], "big") & ~(2**36 - 1) | samples
        content[18:26] = field.to_bytes(8, "big")
        return bytes(content)

    return make


UNKNOWN = [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0x7F000000]
PIPED: dict[str, bytes | Callable[[Path], bytes]] = {
    **{f"wav {size:x} in {riff:x}": wav(size, riff) for size in UNKNOWN for riff in (0, 0xFFFFFFFF, 0x7FFFFFFF)},
    **{f"rf64 {size:x}": rf64(size) for size in (0, 2**50, 2**63 - 1, 2**64 - 1, 2**64 - 100, 32_000)},
    **{f"bw64 {size:x}": rf64(size, b"BW64", short) for size, short in ((0, 0), (2**64 - 1, 2**32 - 1))},
    **{f"aiff {size:x}": aiff(size, size // 2, size) for size in UNKNOWN},
    **{f"aiff {size:x} with frames": aiff(size, 16_000, size) for size in UNKNOWN},
    **{f"au {size:x}": au(size) for size in UNKNOWN},
    **{
        f"w64 {size:x}": patched("a.w64", b"data\xf3\xac", 16, struct.pack("<Q", size))
        for size in (0, 24, 2**63 - 1, 2**64 - 1)
    },
    **{f"caf {size:x}": patched("a.caf", b"data", 4, struct.pack(">q", size)) for size in (-1, 0, 2**62)},
    **{f"flac {samples:x}": flac(samples) for samples in (0, 2**30 - 1, 2**31 - 1, 2**32 - 1, 2**36 - 1, 8000)},
}


@pytest.mark.parametrize("case", PIPED)
def test_lengths_that_were_never_filled_in_refuse_nothing_and_warn_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    content = PIPED[case]
    with caplog.at_level(logging.WARNING, "enclap"):
        waveform = read_audio(content if isinstance(content, bytes) else content(tmp_path))
    assert caplog.messages == []
    np.testing.assert_allclose(waveform.samples, WORDS / 32768, atol=1e-4)


@pytest.mark.parametrize(
    "content",
    [
        *(wav(size) for size in (2, 4000, 31_000)),
        *(rf64(size) for size in (2, 4000)),
        *(aiff(size, 2000) for size in (10, 4008)),
        wav(4000, 4036),
    ],
)
def test_a_header_that_says_less_than_the_file_holds(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """As when a recorder passes 4 GiB and the size begins again at zero."""
    with caplog.at_level(logging.WARNING, "enclap"):
        assert len(read_audio(content).samples) == len(WORDS)
    (message,) = caplog.messages
    assert "its header leaves out " in message and "bytes of sound; they are read too" in message


@pytest.mark.parametrize(
    "end", [LIST, LIST * 3, bytes(3), bytes(512), b"\1\2" * 10, b"id3 " + struct.pack("<I", 300) + bytes(300)]
)
@pytest.mark.parametrize("odd", [False, True])
def test_what_stands_behind_the_sound_of_a_wav_is_not_taken_for_sound(
    end: bytes, odd: bool, caplog: pytest.LogCaptureFixture
) -> None:
    content = wav(len(SOUND), end=end)
    if odd:  # an odd number of 8-bit samples, after which some writers leave out the padding
        content = content.replace(
            struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16), struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
        )
        content = content.replace(struct.pack("<I", len(SOUND)) + SOUND, struct.pack("<I", 31_999) + SOUND[:31_999])
    with caplog.at_level(logging.WARNING, "enclap"):
        assert len(read_audio(content).samples) == (31_999 if odd else len(WORDS))
    assert caplog.messages == []


def cut(path: Path, share: float) -> bytes:
    content = path.read_bytes()
    return content[: round(share * len(content))]


CUT = [("wav", None), ("aiff", None), ("au", None), ("w64", None), ("flac", None), ("tta", None), ("mp3", None)]
CUT += [("mka", "flac"), ("webm", "libopus"), ("avi", "libmp3lame")]


@pytest.mark.parametrize(("extension", "codec"), CUT)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_was_cut_off_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str | None, share: float
) -> None:
    path = write_audio(tmp_path / f"a.{extension}", noise(8.0, 48_000), 48_000, codec=codec)
    with caplog.at_level(logging.WARNING, "enclap"):
        assert read_audio(cut(path, share)).seconds < 7.6
    ends = [re.search(r"ends after .* of ([\d.]+) s", message) for message in caplog.messages]
    assert [float(end[1]) for end in ends if end] == [pytest.approx(8.0, abs=0.8)]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "enclap"):
        read_audio(path)
    assert caplog.messages == []


def test_an_mp4_that_was_cut_off_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"movflags": "faststart"}
    path = write_timed(tmp_path / "a.m4a", [[(0.0, noise(8.0, 48_000))]], 48_000, codec="aac", options=options)
    with caplog.at_level(logging.WARNING, "enclap"):
        read_audio(cut(path, 0.5))
    assert "ends after" in caplog.text
    caplog.clear()
    for movflags in ("faststart", "frag_keyframe+empty_moov", "frag_every_frame+empty_moov+default_base_moof"):
        pieces = [(0.0, noise(3.0, 48_000)), (9.0, noise(3.0, 48_000))]
        options = {"movflags": movflags}
        path = write_timed(tmp_path / "b.m4a", [pieces], 48_000, codec="aac", options=options)
        read_audio(path)
    assert caplog.messages == []


@pytest.mark.parametrize(("extension", "codec"), [("mkv", "flac"), ("webm", "libopus"), ("ts", "aac"), ("mp4", "aac")])
def test_sound_that_ends_before_the_picture_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, codec: str
) -> None:
    video = "libvpx" if extension == "webm" else "mpeg4"
    sound = [[(0.0, tone(4.0, 48_000))]]
    path = write_timed(tmp_path / f"a.{extension}", sound, 48_000, codec=codec, video=video, seconds_of_video=30.0)
    with caplog.at_level(logging.WARNING, "enclap"):
        assert read_audio(path).seconds == pytest.approx(4.0, abs=0.1)
    assert caplog.messages == []


def vbr_without_header(folder: Path) -> bytes:
    """Silence at the lowest bit rate, then noise at the highest: FFmpeg estimates the length from the first frames."""
    with_header = write_audio(folder / "a.mp3", np.zeros((44_100, 1), np.float32), 44_100).read_bytes()
    loud = write_audio(folder / "b.mp3", noise(9.0, 44_100), 44_100).read_bytes()
    return frames_of(with_header) + frames_of(loud)


def frames_of(content: bytes) -> bytes:
    """An MP3 without its tag and the frame that counts the others."""
    start = content.index(b"\xff\xfb")
    return content[content.index(b"\xff\xfb", start + 4) :]


def test_estimates_from_the_bit_rate_warn_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    silent = np.concatenate([np.zeros((8 * 44_100, 1), np.float32), noise(4.0, 44_100)])
    for content in (
        vbr_without_header(tmp_path),
        write_audio(tmp_path / "a.aac", silent, 44_100).read_bytes(),
        write_audio(tmp_path / "a.ac3", silent, 44_100).read_bytes(),
    ):
        with caplog.at_level(logging.WARNING, "enclap"):
            read_audio(content)
    assert caplog.messages == []


def test_only_what_is_decoded_is_held_against_the_limit(tmp_path: Path) -> None:
    limits = ReadLimits(seconds=1.0)
    for content in (wav(len(SOUND)), wav(0), flac(16_000)(tmp_path)):
        with open_audio(content, limits) as audio, pytest.raises(AudioRefused, match="longer than 1 s"):
            list(audio.blocks)
    assert read_audio(flac(2**36 - 1)(tmp_path)).seconds == SECONDS


def synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def id3v2(size: int, footer: bool = False) -> bytes:
    head = b"ID3\4\0" + (b"\x10" if footer else b"\0") + synchsafe(size)
    return head + picture(size) + (b"3DI" + head[3:] if footer else b"")


def apev2(size: int, header: bool = True) -> bytes:
    def edge(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII", 2000, size + 32, 1, flags) + bytes(8)

    return (edge(0xA0000000) if header else b"") + picture(size) + edge(0x80000000 if header else 0)


def picture(size: int) -> bytes:
    """What a cover picture looks like to a decoder: noise, with what begins like frames in it."""
    return np.random.default_rng(size).bytes(size)


ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
LYRICS = b"LYRICSBEGININD0000210" + b"LYR02000" + b"la " * 666 + b"la"
LYRICS3V2 = LYRICS + b"%06d" % len(LYRICS) + b"LYRICS200"
TAGS = {
    "ID3v1": ID3V1,
    "ID3v1 enhanced": b"TAG+" + bytes(223) + ID3V1,
    "ID3v2 at the end": id3v2(3000, footer=True),
    "APEv2": apev2(5000),
    "APEv2 without header": apev2(5000, header=False),
    "APEv2 with a picture": apev2(200_000),
    "Lyrics3 version 1": b"LYRICSBEGIN" + b"la " * 900 + b"LYRICSEND" + ID3V1,
    "Lyrics3 version 2": LYRICS3V2 + ID3V1,
    "Lyrics3 alone": LYRICS3V2,
    "all of them": apev2(5000) + LYRICS3V2 + ID3V1,
    "in another order": LYRICS3V2 + apev2(5000) + ID3V1,
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("extension", ["mp3", "aac", "flac", "ac3", "wav", "opus", "m4a", "wv"])
def test_tags_at_the_end_are_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, tag: str
) -> None:
    path = write_audio(tmp_path / f"a.{extension}", noise(1.0, 48_000), 48_000)
    expected = read_audio(path).samples
    path.write_bytes(path.read_bytes() + TAGS[tag])
    with caplog.at_level(logging.WARNING, "enclap"):
        np.testing.assert_array_equal(read_audio(path).samples, expected)
    assert caplog.messages == []


BETWEEN = (ID3V1, id3v2(300), id3v2(100_000), ID3V1 + id3v2(100_000), LYRICS3V2 + ID3V1)
JOINED = [("mp3", tag) for tag in BETWEEN] + [("aac", tag) for tag in (id3v2(300), id3v2(100_000), LYRICS3V2 + ID3V1)]


@pytest.mark.parametrize(("extension", "tag"), JOINED)
def test_tags_between_files_that_were_joined_are_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extension: str, tag: bytes
) -> None:
    content = write_audio(tmp_path / f"a.{extension}", noise(2.0, 48_000), 48_000).read_bytes()
    with caplog.at_level(logging.WARNING, "enclap"):
        waveform = read_audio(content + tag + content)
    assert waveform.seconds == pytest.approx(4.1, abs=0.1)
    assert caplog.messages == []


def test_raw_aac_goes_on_after_a_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Offsets of ADTS packets leave out what FFmpeg skipped, so nothing may be skipped by them.

    The picture holds what begins like frames, and with those FFmpeg loses a few real ones, which is said.
    """
    content = write_audio(tmp_path / "a.aac", noise(2.0, 48_000), 48_000).read_bytes()
    with caplog.at_level(logging.WARNING, "enclap"):
        assert read_audio(content + ID3V1 + id3v2(100_000) + content).seconds > 3.4
    assert "left out" in caplog.text


def test_real_damage_is_said_with_its_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(write_audio(tmp_path / "a.aac", noise(4.0, 48_000), 48_000).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    file = io.BytesIO(content)
    file.name = "hit.aac"
    with caplog.at_level(logging.WARNING, "enclap"):
        read_audio(file)
    (message,) = caplog.messages
    assert "hit.aac: " in message and "damaged packet" in message and " s" in message.rsplit("about", 1)[1]


@pytest.mark.parametrize("count", [0x7FFFFFFF, 0x7FFFF000, 2**32 - 36, 2**30 - 1, 2**36 - 1, 2**63, 0x7F000000])
def test_numbers_that_stand_for_unknown(count: int) -> None:
    assert is_placeholder(count)
    assert not is_placeholder(count // 3)
