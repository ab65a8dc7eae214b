"""Where audio comes from: a path, bytes, a file object, standard input, as one seekable, bounded byte stream.

FFmpeg never sees a path: it reads through `BoundedReader`, so it cannot open a second file by itself, and
the number of bytes it may read is limited.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, cast

from enclap.errors import AudioNotFound, AudioRefused, AudioUnreadable
from enclap.files import translate_write_errors
from enclap.text import printable

STANDARD_INPUT = "-"
SPOOL_BYTES = 16 * 2**20  # of a stream that cannot seek, kept in memory; the rest goes to a temporary file
COPY_BYTES = 2**20

ByteSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What is accepted as input; everything beyond is refused before memory is taken for it.

    bytes: size of the container. seconds: length of the audio. rates: samples per second.
    window_seconds: longest stretch that is held in memory at once, as `window=0` asks for.
    """

    bytes: int = 64 * 2**30
    seconds: float = 24 * 3600.0
    channels: int = 64
    lowest_rate: int = 100
    highest_rate: int = 1_536_000
    window_seconds: float = 3600.0


class BoundedReader:
    """A seekable binary file as PyAV reads it: `size` bytes from where it stood, also when it grows meanwhile.

    An exception inside a read (Ctrl-C, a broken file object) cannot travel through FFmpeg; it is kept in
    `failure`, FFmpeg is told that the file ended, and the caller raises it.
    """

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self.name = "audio" + _suffix(name)  # FFmpeg takes a hint from the extension and must not see more
        self.failure: BaseException | None = None
        self._file = file
        self._shown = printable(name)
        self._origin = file.tell()
        self._end = self._origin + size

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end or after a failure."""
        if self.failure is not None:
            return b""
        try:
            piece = self._file.read(max(0, min(size, self._end - self._file.tell())))
            if not isinstance(piece, bytes):
                raise AudioUnreadable(f"{self._shown}: opened as text; open it with mode 'rb'")
            return piece
        except OSError as error:
            self.failure = AudioUnreadable(f"{self._shown}: reading failed: {error.strerror or error}")
            return b""
        except BaseException as error:
            self.failure = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, counted from where the file stood at first."""
        start = {os.SEEK_SET: self._origin, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        return self._file.seek(start + offset) - self._origin

    def tell(self) -> int:
        """The position, counted from where the file stood at first."""
        return self._file.tell() - self._origin

    def head(self, size: int) -> bytes:
        """The first bytes, with the position put back to the start."""
        self.seek(0)
        piece = self.read(size)
        self.seek(0)
        return piece


def source_name(source: object) -> str | None:
    """What the caller named the source: its path, "-" for standard input, a file object's name, else None."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(os.fspath(source))
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else None


@contextmanager
def open_bytes(source: ByteSource, limits: ReadLimits) -> Iterator[BoundedReader]:
    """A reader over the source; a file opened here is closed at the end, the caller's own is not.

    Raises AudioNotFound, AudioUnreadable (empty) or AudioRefused (too large).
    """
    name = source_name(source) or "audio"
    with _binary_file(source, name) as file, _seekable(file, name, limits.bytes) as seekable:
        origin = seekable.tell()
        size = seekable.seek(0, os.SEEK_END) - origin
        seekable.seek(origin)
        if size <= 0:
            raise AudioUnreadable(f"{printable(name)}: the file is empty")
        if size > limits.bytes:
            raise AudioRefused(f"{printable(name)}: {size} bytes; at most {limits.bytes} are read")
        yield BoundedReader(seekable, name, size)


@contextmanager
def _binary_file(source: ByteSource, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        if os.fspath(source) == STANDARD_INPUT:
            if sys.stdin is None:
                raise AudioNotFound("-: standard input is closed")
            # Unbuffered: a thread that waits in a buffered read would hold a lock that Python wants when it ends.
            yield cast(BinaryIO, getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))
        else:
            with _open_path(os.fspath(source), printable(name)) as file:
                yield file
    elif callable(getattr(source, "read", None)):
        yield source
    else:
        kind = type(source).__name__
        raise AudioUnreadable(f"{kind}: give a path, bytes, a file object or (array, rate)")


def _open_path(path: str, shown: str) -> BinaryIO:
    """The opened file; every reason why it cannot be is an AudioNotFound of one line."""
    try:
        if Path(path).is_dir():
            raise AudioNotFound(f"{shown}: is a folder; name the files in it")
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise AudioNotFound(f"{shown}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise AudioNotFound(f"{shown}: cannot be opened: {reason}") from error


@contextmanager
def _seekable(file: BinaryIO, name: str, limit: int) -> Iterator[BinaryIO]:
    """The file itself when it can seek, else a copy that can: MP4 and others keep their index at the end."""
    if _can_seek(file):
        yield file
        return
    with _spool() as spool:
        try:
            _copy(file, spool, printable(name), limit)
        except OSError as error:
            raise AudioUnreadable(f"{printable(name)}: reading failed: {error.strerror or error}") from error
        spool.seek(0)
        yield cast(BinaryIO, spool)


@contextmanager
def _spool() -> Iterator[IO[bytes]]:
    """A file in memory that moves to the temporary folder when it grows."""
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  (closed below)
    try:
        yield cast(IO[bytes], spool)
    finally:
        with suppress(OSError):  # what could not be written a moment ago cannot be written now
            spool.close()


def _copy(file: BinaryIO, spool: IO[bytes], shown: str, limit: int) -> None:
    size = 0
    while piece := file.read(COPY_BYTES):
        if not isinstance(piece, bytes):
            raise AudioUnreadable(f"{shown}: opened as text; open it with mode 'rb'")
        size += len(piece)
        if size > limit:
            raise AudioRefused(f"{shown}: larger than {limit} bytes, the most that is read")
        with translate_write_errors("the temporary folder (TMPDIR)"):
            spool.write(piece)
    with translate_write_errors("the temporary folder (TMPDIR)"):
        spool.flush()


def _can_seek(file: BinaryIO) -> bool:
    if not callable(getattr(file, "seek", None)) or not callable(getattr(file, "tell", None)):
        return False
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else True


def _suffix(name: str) -> str:
    suffix = Path(name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ""
