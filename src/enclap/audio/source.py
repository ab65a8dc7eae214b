"""Where audio comes from: a path, bytes, a file object, standard input, as one seekable, bounded byte stream.

FFmpeg never sees a path: it reads through `BoundedReader`, so it cannot open a second file by itself, and
the number of bytes it may read is limited. File objects are other people's code: whatever they raise becomes an
InputError of one line, so that one bad source never ends a batch.
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
from typing import BinaryIO, cast

from enclap.errors import AudioNotFound, AudioRefused, AudioUnreadable, EnclapError, InputError
from enclap.files import translate_write_errors
from enclap.text import printable

STANDARD_INPUT = "-"
SPOOL_BYTES = 16 * 2**20  # of a stream that cannot seek, kept in memory; the rest goes to a temporary file
COPY_BYTES = 2**20
TEMPORARY_FOLDER = "the temporary folder (TMPDIR)"
REASON_LENGTH = 200  # characters of a foreign error message that are shown

ByteSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What is accepted as input; bytes, rate and channels are checked before memory is taken for them.

    bytes: size of the container. seconds: length of the audio, counted while it is decoded, because the length that a
    file declares may be wrong. rates: samples per second.
    window_seconds: longest piece that is held in memory at once, as `window=0` asks for.
    """

    bytes: int = 64 * 2**30
    seconds: float = 24 * 3600.0
    channels: int = 64
    lowest_rate: int = 100
    highest_rate: int = 1_536_000
    window_seconds: float = 3600.0


class BoundedReader:
    """A seekable binary file as PyAV reads it: `size` bytes from `origin` on, also when it grows meanwhile.

    An exception inside a read (Ctrl-C, a broken file object) cannot travel through FFmpeg; it is kept in
    `failure`, FFmpeg sees the end of the file, and the caller raises it.
    """

    def __init__(self, file: BinaryIO, name: str, origin: int, size: int) -> None:
        suffix = Path(name).suffix
        is_plain = suffix[1:].isascii() and suffix[1:].isalnum()
        self.name = "audio" + (suffix if is_plain else "")  # FFmpeg takes a hint from the extension; it sees no more
        self.size = size
        self.failure: BaseException | None = None
        self.patches: tuple[tuple[int, bytes], ...] = ()  # (offset, bytes) that are read in the place of the file's
        self._file = file
        self._path = name
        self._origin = origin
        self._position = 0
        self.seek(0)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end or after a failure."""
        wanted = min(size, self.size - self._position)
        if self.failure is not None or wanted <= 0:
            return b""
        try:
            piece = _checked_bytes(self._file.read(wanted))
            if len(piece) > wanted:  # FFmpeg would write past the end of its buffer
                raise ValueError(f"read({wanted}) returned {len(piece)} bytes")
        except BaseException as error:
            self.failure = foreign_error(error, self._path, "reading failed")
            return b""
        for offset, patch in self.patches:
            start = offset - self._position
            if -len(patch) < start < len(piece):
                patch, start = patch[max(0, -start) :][: len(piece) - max(0, start)], max(0, start)
                piece = piece[:start] + patch + piece[start + len(patch) :]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, counted from `origin`; -1 where it cannot be."""
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if target < 0:
            return -1
        if target <= self.size:  # damaged files send FFmpeg anywhere; beyond the end there is nothing to read
            try:
                self._file.seek(self._origin + target)
            except BaseException as error:
                self.failure = self.failure or foreign_error(error, self._path, "seeking failed")
                return -1
        self._position = target
        return target

    def tell(self) -> int:
        """The position, counted from `origin`."""
        return self._position

    def piece(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end; the position stays as it was."""
        before = self._position
        if offset >= self.size:
            return b""
        self.seek(offset)
        pieces = []
        while size > 0 and (piece := self.read(size)):
            pieces.append(piece)
            size -= len(piece)
        self.seek(before)
        return b"".join(pieces)

    def part(self, start: int, end: int) -> BoundedReader:
        """A reader of the bytes from `start` up to `end`; this one must not be read while that one is."""
        return BoundedReader(self._file, self._path, self._origin + start, end - start)


def foreign_error(error: BaseException, name: str, what: str) -> BaseException:
    """The error of somebody else's object as an AudioUnreadable of one line.

    Interruptions, a lack of memory and our own errors stay what they are.
    """
    if isinstance(error, EnclapError | MemoryError) or not isinstance(error, Exception):
        return error
    return AudioUnreadable(f"{printable(name)}: {what}: {error_reason(error)}")


def error_reason(error: Exception) -> str:
    """What an exception says, as one line of moderate length; its kind when it says nothing."""
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return printable(text.splitlines()[0])[:REASON_LENGTH]


def source_name(source: object) -> str | None:
    """What the caller named the source: its path, "-" for standard input, a file object's name, else None."""
    try:
        if isinstance(source, str | os.PathLike):
            return os.fsdecode(os.fspath(source))
        name = getattr(source, "name", None)
    except Exception:  # a property of somebody else's class; opening the source will say what is wrong with it
        return None
    return name if isinstance(name, str) else None


@contextmanager
def open_bytes(source: ByteSource, limits: ReadLimits) -> Iterator[BoundedReader]:
    """A reader over the source; a file opened here is closed at the end, the caller's own is not.

    Raises AudioNotFound, AudioUnreadable (empty, or a file object that fails) or AudioRefused (too large).
    """
    name = source_name(source) or "audio"
    shown = printable(name)
    with _binary_file(source, name) as file, _seekable(file, name, limits.bytes) as (seekable, origin, end):
        size = end - origin
        if end <= 0:
            raise AudioUnreadable(f"{shown}: the file is empty")
        if size <= 0:
            raise AudioUnreadable(f"{shown}: the file object stands at its end; call seek(0) on it first")
        if size > limits.bytes:
            raise AudioRefused(f"{shown}: {size} bytes; at most {limits.bytes} are read")
        yield BoundedReader(seekable, name, origin, size)


@contextmanager
def _binary_file(source: ByteSource, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        try:
            content = source.tobytes() if isinstance(source, memoryview) else source  # strided views too
        except ValueError as error:  # released
            raise AudioUnreadable(f"memoryview: {error_reason(error)}") from error
        yield BytesIO(content)
    elif isinstance(source, str | os.PathLike):
        if name == STANDARD_INPUT:
            if sys.stdin is None:
                raise AudioNotFound("-: standard input is closed")
            # Unbuffered: a thread that waits in a buffered read would hold a lock that Python wants when it ends.
            yield cast(BinaryIO, getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))
            return
        shown = printable(name)
        try:
            path = Path(os.fsdecode(os.fspath(source)))
            if path.is_dir():
                raise AudioNotFound(f"{shown}: is a folder; name the files in it")
            file = path.open("rb")
        except FileNotFoundError as error:
            raise AudioNotFound(f"{shown}: no such file") from error
        except InputError:
            raise
        except Exception as error:  # OSError; ValueError: a null byte in the name; what a foreign __fspath__ raises
            raise AudioNotFound(f"{shown}: cannot be opened: {error_reason(error)}") from error
        with file:
            yield file
    elif callable(getattr(source, "read", None)):
        yield source
    else:
        kind = type(source).__name__
        raise AudioUnreadable(f"{kind}: give a path, bytes, a file object or (array, rate)")


@contextmanager
def _seekable(file: BinaryIO, name: str, limit: int) -> Iterator[tuple[BinaryIO, int, int]]:
    """The file itself when it can seek, else a copy that can: MP4 and others keep their index at the end.

    With it come the position where it stands and the one where it ends.
    """
    span = _span(file)
    if span is not None:
        yield file, *span
        return
    spool, size = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES), 0  # noqa: SIM115  (closed below)
    try:
        try:
            while piece := _checked_bytes(file.read(COPY_BYTES)):
                size += len(piece)
                if size > limit:
                    raise AudioRefused(f"{printable(name)}: larger than {limit} bytes, the most that is read")
                with translate_write_errors(TEMPORARY_FOLDER):
                    spool.write(piece)
            with translate_write_errors(TEMPORARY_FOLDER):
                spool.flush()
        except (EnclapError, MemoryError):
            raise
        except Exception as error:
            raise foreign_error(error, name, "reading failed") from error
        yield cast(BinaryIO, spool), 0, size
    finally:
        with suppress(OSError):  # what could not be written a moment ago cannot be written now
            spool.close()


def _span(file: BinaryIO) -> tuple[int, int] | None:
    """Where the file stands and where it ends; None when it cannot seek, or says that it can and fails."""
    try:
        seekable = getattr(file, "seekable", None)
        if callable(seekable) and not seekable():
            return None
        origin = file.tell()
        file.seek(0, os.SEEK_END)
        end = file.tell()
        file.seek(origin)
    except Exception:  # what is wrong shows when it is read from beginning to end instead
        return None
    return (origin, end) if isinstance(origin, int) and isinstance(end, int) else None


def _checked_bytes(piece: object) -> bytes:
    """What a foreign `read` returned, as bytes; TypeError, fit for messages, when it is something else."""
    if isinstance(piece, str):
        raise TypeError("opened as text; open it with mode 'rb'")
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise TypeError(f"read() returned {type(piece).__name__}, not bytes")
    return piece if isinstance(piece, bytes) else bytes(piece)
