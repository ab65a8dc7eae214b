"""What the bytes of a file say without FFmpeg: that it is a playlist or text, where tags are, a second recording."""

from __future__ import annotations

import re
from typing import Protocol

HEAD_BYTES = 4096  # of a file that are looked at
PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat version", b"[playlist]", b"[Reference]", b"v=0\n", b"v=0\r\n")
PLAYLIST_TAGS = (b"<MPD", b"<SmoothStreamingMedia", b"<asx", b"<ASX", b"<smil", b"<playlist", b"<AssetMap")
PLAYLIST_SUFFIXES = (".m3u", ".m3u8", ".mpd", ".sdp", ".pls", ".asx", ".xspf", ".ffconcat", ".smil", ".ism")
CONTROL_CHARACTERS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # that no text holds; escape starts a colour
TEXT_BYTES, ASCII_SHARE = 512, 0.2  # so much without a control character is text in whatever encoding
TAG_MARKS = re.compile(rb"ID3[\x02-\x04]|APETAGEX|LYRICSBEGIN|TAG|3DI")
LYRICS_BYTES = 5100  # that version 1 of the tag has at most
SCAN_BYTES = 64 * 2**20  # of what follows the sound, searched for a second recording
CHUNK_BYTES = 2**20
MOST_BOXES = 500_000  # outermost ones of an MP4 file: a day of fragments
BEGINNINGS = (
    re.compile(rb"OggS\x00[\x02\x06]", re.DOTALL),  # the first page of a stream
    re.compile(rb"(?:RIFF|RF64|BW64)....WAVE", re.DOTALL),
    re.compile(rb"FORM....AIF[FC]", re.DOTALL),
    re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"),  # Sony Wave64
    re.compile(rb"caff\x00[\x01\x02]"),
    re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),  # Windows Media
    re.compile(rb"Creative Voice File\x1a"),
    re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09"),
    re.compile(rb"TTA1[\x01-\x03]\x00"),
)
"""How files begin whose demuxers stop at their end, although another file may have been appended."""


class Readable(Protocol):
    """Bytes with random access, as `BoundedReader` gives them."""

    size: int

    def piece(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end."""
        ...


def is_playlist(head: bytes) -> bool:
    """Whether a file that begins with `head` names other files to play."""
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n")  # a byte order mark may come first
    if head.startswith(b"<"):
        return any(tag in head for tag in PLAYLIST_TAGS)
    return head.startswith(PLAYLIST_MARKS)


def looks_like_text(head: bytes) -> bool:
    """Whether a file is text that begins with `head`, its first `HEAD_BYTES` bytes, or all when it has fewer.

    FFmpeg recognises some sound formats by the file's name alone, and so takes a Visual Studio solution (.sln) for
    sound. UTF-8, UTF-16 and older encodings count as text; sound has control characters among its first bytes.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        wide = head[: len(head) // 2 * 2].decode("utf-16", errors="replace")
        head = wide.replace("\ufffd", "\0").encode()
    if not head.strip() or CONTROL_CHARACTERS.search(head):
        return False
    ascii_bytes = sum(byte < 0x80 for byte in head)
    if len(head) >= TEXT_BYTES and ascii_bytes >= ASCII_SHARE * len(head):
        return True
    try:
        head.decode()
    except UnicodeDecodeError:
        return False
    return True


def tag_between_frames(reader: Readable, offset: int, size: int) -> int:
    """Where the tag ends that begins among the `size` bytes at `offset` of a raw stream; 0 when there is none.

    Files that were joined have them in the middle. What is no frame is one only where a frame follows it, or the end.
    """
    packet, ends = reader.piece(offset, size), [0]
    for mark in TAG_MARKS.finditer(packet):
        start = offset + mark.start()
        head = reader.piece(start, 32)
        if mark[0].startswith(b"ID3"):
            length = 10 + synchsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)
        elif mark[0].startswith(b"APE"):
            length = 32 + int.from_bytes(head[12:16], "little")
        else:
            length = 128 if mark[0] == b"TAG" else offset + size - start
        after = reader.piece(start + length, 2)
        if start + length >= reader.size or after[0] == 0xFF or TAG_MARKS.match(reader.piece(start + length, 16)):
            ends.append(start + length)
    return max(ends)


def tags_at_end(reader: Readable) -> int:
    """Bytes that tags take at the end of a file: ID3v1, ID3v2, APEv2, Lyrics3, in any order.

    In raw streams such as MP3 FFmpeg takes them for damaged frames.
    """
    end = reader.size
    while (size := _last_tag(reader, end)) and size <= end:
        end -= size
    return reader.size - end


def _last_tag(reader: Readable, end: int) -> int:
    """Bytes of the tag that ends at `end`, 0 when there is none."""
    start = max(0, end - LYRICS_BYTES - 128)
    tail = reader.piece(start, end - start)
    if tail[-128:-125] == b"TAG":
        return 128 + (227 if tail[-355:-351] == b"TAG+" else 0)
    if tail[-32:-24] == b"APETAGEX":
        has_header = tail[-9] & 0x80
        return int.from_bytes(tail[-20:-16], "little") + (32 if has_header else 0)
    if tail[-10:-7] == b"3DI":
        return synchsafe(tail[-4:]) + 20
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        return int(tail[-15:-9]) + 15
    if tail.endswith(b"LYRICSEND") and b"LYRICSBEGIN" in tail:
        return len(tail) - tail.rindex(b"LYRICSBEGIN")
    return 0


def synchsafe(four: bytes) -> int:
    """The number in ID3's bytes of seven bits."""
    return sum(byte << 7 * index for index, byte in enumerate(reversed(four)))


def next_recording(reader: Readable, after: int) -> int | None:
    """Where another file of the same kind begins that was appended after the byte `after`; None when there is none."""
    head = reader.piece(0, 32)
    if head[4:8] == b"ftyp":
        offset = 0
        for _ in range(MOST_BOXES):
            header = reader.piece(offset, 16)
            size = int.from_bytes(header[:4], "big")
            size = int.from_bytes(header[8:], "big") if size == 1 else size or reader.size - offset
            if size < 8:
                break
            if header[4:8] == b"ftyp" and offset >= max(after, 1):
                return offset
            offset += size
        return None
    for beginning in BEGINNINGS:
        if beginning.match(head):
            return _search(reader, beginning, max(after, 1))
    return None


def own_end(reader: Readable) -> int:
    """Where the first recording in a file ends, if that is certain before it is read: Ogg files in a chain.

    FFmpeg goes on in the next link with the settings and the clock of the first one, and fails where they differ.
    """
    if not BEGINNINGS[0].match(reader.piece(0, 32)):
        return reader.size
    content = _search(reader, re.compile(rb"OggS\x00[\x00\x01\x04\x05]"), 1)  # after the first page of each track
    link = None if content is None else _search(reader, BEGINNINGS[0], content)
    return reader.size if link is None else link


def _search(reader: Readable, pattern: re.Pattern[bytes], start: int) -> int | None:
    for offset in range(start, min(reader.size, start + SCAN_BYTES), CHUNK_BYTES):
        found = pattern.search(reader.piece(offset, CHUNK_BYTES + 32))
        if found:
            return offset + found.start()
    return None
