"""Lengths that headers state, held against the file: sizes that were never filled in, that are cut off or too small.

An encoder that writes to a pipe cannot go back to its header; a recorder that passes 4 GiB loses the highest bits of a
size; a broken download ends before its stated end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from enclap.audio.signatures import Readable, synchsafe

ByteOrder = Literal["little", "big"]

SMALLEST_PLACEHOLDER = 0x7F000000  # what SoX writes where a size is not known; others write more
NEAR = 2**16  # bytes below or above a power of two that stand for "unknown": headers are taken off
UNLIKELY_PART = 16  # a file that holds less of its stated size than this part was not cut off
SHORTEST_REST, LONGEST_PADDING = 64, 2**20  # bytes after the sound; between them it is padding where it is all zeros
MOST_CHUNKS = 10_000
CHUNK_NAME = re.compile(rb"[ -~]{4}")
FILE_NAMES = (b"RIFF", b"RF64", b"BW64", b"FORM")  # of an outermost chunk: another file follows
W64_RIFF, W64_WAVE, W64_DATA = (
    name + bytes.fromhex(rest)
    for name, rest in (
        (b"riff", "2e91cf11a5d628db04c10000"),
        (b"wave", "f3acd3118cd100c04f8edb8a"),
        (b"data", "f3acd3118cd100c04f8edb8a"),
    )
)


@dataclass(frozen=True, slots=True)
class HeaderCheck:
    """What is wrong with the lengths in a header.

    patches: (offset, bytes) to read in the place of what stands there, so that all of the sound is read.
    left_out: bytes of sound that the header leaves out. cut: how many times the sound that is there was stated; 1 for
    a whole file.
    """

    patches: tuple[tuple[int, bytes], ...] = ()
    left_out: int = 0
    cut: float = 1.0


def check_header(reader: Readable) -> HeaderCheck:
    """The lengths that the header of a WAV, RF64, Wave64, AIFF, AU, AVI or Matroska file states, checked."""
    head = reader.piece(0, 40)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _check_wav(reader, has_64_bits=head[:4] != b"RIFF")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _check_aiff(reader)
    if head.startswith(W64_RIFF) and head[24:] == W64_WAVE:
        return _check_w64(reader)
    if head.startswith(b".snd"):
        start, stated = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        present = reader.size - start
        patches = ((8, b"\xff" * 4),) if stated == 0 or stated > present else ()
        return HeaderCheck(patches, cut=_cut(stated, present))
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return HeaderCheck(cut=_cut(int.from_bytes(head[4:8], "little"), reader.size - 8))
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        header_size, start = _ebml_number(head, 4)
        segment = reader.piece(start + header_size, 16)
        if segment.startswith(b"\x18\x53\x80\x67"):  # a Matroska segment; a live recording does not say its size
            stated, content = _ebml_number(segment, 4)
            return HeaderCheck(cut=_cut(stated, reader.size - start - header_size - content))
    return HeaderCheck()


def states_frame_count(reader: Readable) -> bool:
    """Whether an MP3 file says in its first frame how many frames follow (Xing's header), and means all of the file.

    Of files that were joined only the first is counted; FFmpeg then estimates the length from the bit rate.
    """
    offset = 0
    while (head := reader.piece(offset, 256)).startswith(b"ID3"):
        offset += 10 + synchsafe(head[6:10])
    mark = re.search(rb"Xing|Info", head)
    if mark is None:
        return False
    flags, _frames, stated = (int.from_bytes(head[mark.end() + at :][:4], "big") for at in (0, 4, 8))
    has_frames, has_bytes = bool(flags & 1), flags & 3 == 3
    return has_frames and not (has_bytes and reader.size - offset - stated > stated // 16)


def is_placeholder(count: int) -> bool:
    """Whether a stated number of bytes or samples stands for "unknown": a number close to a power of two."""
    return count == SMALLEST_PLACEHOLDER or any(abs(2**power - count) <= NEAR for power in range(30, 65))


def _cut(stated: int, present: int) -> float:
    """How many times the bytes that are there a header states; 1 when it states no more, or nothing believable."""
    is_unlikely = stated >= SMALLEST_PLACEHOLDER and present * UNLIKELY_PART < stated
    return 1.0 if stated <= present or present <= 0 or is_unlikely or is_placeholder(stated) else stated / present


def _check_wav(reader: Readable, has_64_bits: bool) -> HeaderCheck:
    """`has_64_bits`: RF64 and BW64, whose sizes stand in a chunk of their own."""
    sizes = 0  # offset of that chunk's content
    for offset, name, size in _chunks(reader, "little"):
        start, present = offset + 8, reader.size - offset - 8
        if name == b"ds64":
            sizes = start
        if name != b"data":
            continue
        stated = int.from_bytes(reader.piece(sizes + 8, 8), "little") if has_64_bits and sizes else size
        left_out = present - stated if stated and _is_followed_by_sound(reader, start, stated, "little") else 0
        if has_64_bits and sizes:
            patch = (sizes, b"".join(number.to_bytes(8, "little") for number in (reader.size - 8, present, 0)))
        else:
            patch = (offset + 4, bytes(4))  # up to the end
        is_wrong = left_out or stated > present or stated == 0
        return HeaderCheck((patch,) if is_wrong else (), left_out, _cut(stated, present))
    return HeaderCheck()


def _check_aiff(reader: Readable) -> HeaderCheck:
    frames = 0  # offset of their number
    for offset, name, size in _chunks(reader, "big"):
        start, present = offset + 8, reader.size - offset - 8
        if name == b"COMM":
            frames = start + 2
        if name != b"SSND":
            continue
        left_out = present - size if size > 8 and _is_followed_by_sound(reader, start, size, "big") else 0
        if left_out or size > present or size <= 8:
            whole = min(present, SMALLEST_PLACEHOLDER)
            patches = [(4, (whole + start - 8).to_bytes(4, "big")), (offset + 4, whole.to_bytes(4, "big"))]
            patches += [(frames, bytes(4))] if frames else []
            return HeaderCheck(tuple(patches), left_out, _cut(size, present))
    return HeaderCheck()


def _check_w64(reader: Readable) -> HeaderCheck:
    offset = 40
    for _ in range(MOST_CHUNKS):
        header = reader.piece(offset, 24)
        size = int.from_bytes(header[16:], "little")
        if header.startswith(W64_DATA):
            present = reader.size - offset
            if size > present or size <= 24:
                patches = ((16, reader.size.to_bytes(8, "little")), (offset + 16, present.to_bytes(8, "little")))
                return HeaderCheck(patches, cut=_cut(size, present))
            break
        offset += size + -size % 8
    return HeaderCheck()


def _chunks(reader: Readable, order: ByteOrder) -> Iterator[tuple[int, bytes, int]]:
    """Offset, name and stated size of the chunks of a RIFF or AIFF file, up to one that does not fit."""
    offset = 12
    for _ in range(MOST_CHUNKS):
        header = reader.piece(offset, 8)
        if len(header) < 8:
            return
        size = int.from_bytes(header[4:], order)
        yield offset, header[:4], size
        offset += 8 + size + size % 2


def _is_followed_by_sound(reader: Readable, start: int, size: int, order: ByteOrder) -> bool:
    """Whether a chunk of `size` bytes at `start` ends too early: what follows are no chunks, and no padding."""
    for end in (start + size + size % 2, start + size):  # some writers leave the padding byte out
        rest, header = reader.size - end, reader.piece(end, 8)
        is_chunk = CHUNK_NAME.match(header) and int.from_bytes(header[4:], order) <= rest - 8
        if rest < SHORTEST_REST or is_chunk or header[:4] in FILE_NAMES:
            return False
    return rest > LONGEST_PADDING or bool(reader.piece(end, rest).strip(b"\0"))


def _ebml_number(content: bytes, at: int) -> tuple[int, int]:
    """A number of one to eight bytes at `at`, whose leading zeros say how many, and where it ends."""
    first = content[at] if at < len(content) else 0
    length = 9 - first.bit_length() if first else 8
    value = int.from_bytes(content[at : at + length], "big") & (1 << 7 * length) - 1
    return value, at + length
