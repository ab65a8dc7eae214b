"""Files that appear whole or not at all, and a lock that keeps two runs from one output."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from enclap.cli.exit import discard_output
from enclap.errors import EnvironmentFault, UsageError
from enclap.text import printable

BLOCK_BYTES = 2**20
PARTIAL = re.compile(r"\.(.+)\.\d+\.partial")


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns an OSError of the block into an EnvironmentFault that names the file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EnvironmentFault(f"{printable(path)}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes the place of `path` when the block ends well.

    What is no ordinary file (a device, a pipe) is written to as it stands. The block puts its own writes into
    `writing`. Raises EnvironmentFault when the file cannot be made or completed.
    """
    special = is_special(path)
    temporary = path if special else path.with_name(f".{_shortened(path.name)}.{os.getpid()}.partial")
    with writing(str(path)):
        file = temporary.open("wb" if special else "w+b")
    try:
        yield file
        with writing(str(path)):
            file.flush()
            if not special:
                os.fsync(file.fileno())
                file.close()
                temporary.replace(path)
    finally:
        with suppress(OSError):  # what could not be written a moment ago cannot be written now
            file.close()
        if not special:
            temporary.unlink(missing_ok=True)


def write_standard_output(piece: str) -> None:
    """Write to standard output at once; EnvironmentFault when that fails, after which nothing more is tried."""
    if sys.stdout is None:
        raise EnvironmentFault("standard output: is closed; leave it open, or add --output FILE")
    try:
        with writing("standard output"):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except EnvironmentFault:
        discard_output()
        raise


def file_hash(file: BinaryIO) -> str:
    """The SHA-256 of the whole file in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def is_special(path: Path) -> bool:
    """Whether the path leads to something other than a file or a folder, as /dev/null does."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def remove_partial(targets: Iterable[Path]) -> None:
    """Remove what a killed run left beside the targets; only for one who holds their lock."""
    names: dict[Path, set[str]] = {}
    for target in targets:
        names.setdefault(target.parent, set()).add(_shortened(target.name))
    for folder, wanted in names.items():
        for path in folder.iterdir() if folder.is_dir() else []:
            found = PARTIAL.fullmatch(path.name)
            if found and found[1] in wanted:
                path.unlink(missing_ok=True)


def _shortened(name: str) -> str:
    """At most 200 bytes of the name: with what is added it must not be longer than names may be."""
    return os.fsdecode(os.fsencode(name)[:200])


def need_folder(path: Path) -> None:
    """Raises UsageError unless the folder that `path` is to stand in is there."""
    if not path.parent.is_dir():
        parent = printable(str(path.parent))
        raise UsageError(f"{printable(str(path))}: the folder {parent} does not exist; make it first")


@contextmanager
def locked(path: Path, shown: str) -> Iterator[FileIO]:
    """The file opened for appending without a buffer, made if need be, ours alone until the block ends.

    The operating system gives the lock back when the process dies, however it dies. Raises EnvironmentFault when
    another process holds it, or the file cannot be made.
    """
    advice = "another enclap is writing there; wait, or name another output"
    while True:
        with writing(shown):
            file = path.open("a+b", buffering=0)
        with file:
            if not _lock(file):
                raise EnvironmentFault(f"{printable(shown)}: {advice}")
            if _is_still(path, file):
                yield file
                return


def _is_still(path: Path, file: FileIO) -> bool:
    """Whether `path` still leads to the opened file, which its holder before may have removed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    FAR_BEHIND = 2**40  # Windows forbids others to read what is locked, so a byte that will never exist is

    def _lock(file: FileIO) -> bool:
        """Whether nobody else holds the file, which is now ours."""
        file.seek(FAR_BEHIND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: FileIO) -> bool:
        """Whether nobody else holds the file, which is now ours."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
