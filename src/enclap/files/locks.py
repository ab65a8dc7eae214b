"""A lock on a file, which keeps two processes from writing one output."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

from enclap.errors import EnvironmentFault
from enclap.files.paths import translate_write_errors
from enclap.text import printable

logger = logging.getLogger("enclap")

ATTEMPTS = 100  # to lock a file that others keep removing
HELD = {errno.EACCES, errno.EDEADLK} if sys.platform == "win32" else {errno.EAGAIN, errno.EWOULDBLOCK}
"""What is answered where another process holds the lock."""
TURN_SECONDS = 0.5  # after which a lock that another process holds is tried again
BEYOND_THE_END = 2**40  # Windows forbids others to read what is locked, so a byte that will never exist is


class Locked(EnvironmentFault):
    """Another process holds a lock."""


@contextmanager
def locked_in_turn(path: Path, shown: str) -> Iterator[FileIO]:
    """What `locked` gives, as soon as no other process holds it."""
    with ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(locked(path, shown))
                break
            except Locked:
                time.sleep(TURN_SECONDS)
        yield file


@contextmanager
def locked(path: Path, shown: str) -> Iterator[FileIO]:
    """The file opened for appending without a buffer, made if need be, ours alone until the block ends.

    The operating system gives the lock back when the process dies, however it dies. Where the file system has no
    locks, a warning says so and the file is used without. Raises Locked when another process holds it, EnvironmentFault
    when the file cannot be made. shown: the output that it stands for, in messages.
    """
    for _ in range(ATTEMPTS):
        with translate_write_errors(shown):
            file = path.open("a+b", buffering=0)
        with file:
            try:
                is_ours = _lock(file)
            except OSError as error:
                reason = f"this file system has no locks ({error.strerror or error})"
                logger.warning("%s: %s; do not start a second run on this output", printable(shown), reason)
                is_ours = True
            if not is_ours:
                break
            is_current = False
            with suppress(FileNotFoundError):  # its holder before may have removed it
                is_current = os.path.samestat(path.stat(), os.fstat(file.fileno()))
            if is_current:
                yield file
                return
    raise Locked(f"{printable(shown)}: another enclap is writing there; wait, or name another output")


def _lock(file: FileIO) -> bool:
    """Whether nobody else holds the file, which is now ours; OSError when it cannot be locked at all."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(BEYOND_THE_END)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        raise
    return True
