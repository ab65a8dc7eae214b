"""Files and folders that appear whole or not at all.

What is being written stands beside its target under a temporary name, `.NAME.PROCESS-THREAD.partial`. It takes the
target's name when it is complete and flushed, so whoever looks finds the old content or the new one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from enclap.errors import EnvironmentFault
from enclap.files.hashing import shortened
from enclap.files.paths import check_free, descriptor_of, is_folder, is_full, is_stream, translate_write_errors
from enclap.text import printable

UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
"""What file systems answer that cannot flush."""
PARTIAL = re.compile(r"\.(.+)\.(\d+)(?:-\d+)?\.partial")
"""A temporary name: the target's name and the number of the process that writes."""
SHORT_NAME = 100  # bytes of the target's name in a temporary name; some file systems allow 143 in all


@contextmanager
def replacement_path(path: Path) -> Iterator[Path]:
    """A name beside `path` for the block to write a file at, which takes the place of `path` when the block ends well.

    Links are followed: what they lead to is replaced. Raises EnvironmentFault for an OSError, of the block too.
    """
    with translate_write_errors(path), _renamed(path) as temporary:
        yield temporary


@contextmanager
def replacement_file(path: Path) -> Iterator[BinaryIO]:
    """An open file whose content takes the place of what is at `path` when the block ends well.

    What is no ordinary file (a device, a pipe, /dev/stdout) is written to as it is. Raises EnvironmentFault when the
    file cannot be made or completed; the block puts its own writes into `translate_write_errors`.
    """
    if is_stream(path):
        with translate_write_errors(path):
            descriptor = descriptor_of(path)
            stream = path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")
        with _closed_at_last(stream):
            yield stream
            with translate_write_errors(path), suppress(BrokenPipeError):  # raised by the write that met it
                stream.flush()
        return
    with _renamed(path) as temporary:
        with translate_write_errors(path):
            file = temporary.open("w+b")
        with _closed_at_last(file):
            yield file
            with translate_write_errors(path):
                file.flush()


def write_whole(path: Path, content: str | bytes) -> None:
    """Make `path` a file of this content; text becomes UTF-8. Raises EnvironmentFault when that fails."""
    with replacement_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder under a temporary name, which becomes `target` when the block ends well.

    What the block leaves in it is flushed first, so `target` is whole or not there. Raises UsageError when `target`
    holds something already, and what `scratch_folder` raises.
    """
    check_free(target)
    target = Path(os.path.realpath(target))
    with scratch_folder(target) as temporary:
        yield temporary
        flush_tree(temporary)
        temporary.replace(target)
        _flush(target.parent)


@contextmanager
def replacement_folder(target: Path) -> Iterator[Path]:
    """An empty folder, which takes the place of the folder `target`, if there is one, when the block ends well.

    Raises what `scratch_folder` raises.
    """
    with scratch_folder(target) as scratch:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        flush_tree(fresh)
        replace_folder(fresh, target, scratch / "old")


def replace_folder(new: Path, target: Path, retired: Path) -> None:
    """Rename `new` to `target`; what stood there becomes `retired`, on the same disk."""
    if os.path.lexists(target):
        target.rename(retired)
    new.rename(target)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, removed after the block; what killed processes left of theirs is removed too.

    Raises EnvironmentFault when the disk cannot take what the block writes.
    """
    shown = printable(str(target))
    temporary = target.with_name(_temporary_name(target.name))
    try:
        make_folders(target.parent)
        remove_partial([target])
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
    except Exception as error:
        if is_full(error):
            raise EnvironmentFault(f"{shown}: no room left on the disk; free some and try again") from error
        if isinstance(error, OSError):
            raise EnvironmentFault(f"{shown}: cannot be written: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folders(folder: Path) -> None:
    """Make a folder and those that it stands in, as deep as it may be; `mkdir` calls itself for each of them."""
    missing = []
    while not is_folder(folder):
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)


def remove_partial(targets: Iterable[Path]) -> None:
    """Remove what processes that no longer run left under temporary names of the targets."""
    names: dict[Path, set[str]] = {}
    for target in targets:
        real = Path(os.path.realpath(target))
        names.setdefault(real.parent, set()).add(shortened(real.name, SHORT_NAME))
    for folder, ours in names.items():
        try:
            present = list(folder.iterdir())
        except OSError:  # it is not there yet, or may be written but not listed
            continue
        for path in present:
            found = PARTIAL.fullmatch(path.name)
            if found is None or found[1] not in ours or _runs(int(found[2])):
                continue
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # a folder, which is gone, or a file that others may write and we may not
                path.unlink()


def flush_tree(folder: Path) -> None:
    """Have the system write every file below a folder to the disk."""
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            _flush(path)


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A temporary name whose file is flushed and renamed when the block ends well, else removed."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(_temporary_name(target.name))
    with translate_write_errors(path):
        if target.is_symlink():  # only of links that form a loop is one left
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    try:
        yield temporary
        with translate_write_errors(path):
            _flush(temporary)
            if target.is_file():
                with suppress(OSError):
                    shutil.copymode(target, temporary)
            temporary.replace(target)
    finally:
        with suppress(OSError):  # it never came to be, or the folder may no longer be written
            temporary.unlink(missing_ok=True)


@contextmanager
def _closed_at_last(file: BinaryIO) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # what could not be written a moment ago cannot be written now
            file.close()


def _temporary_name(name: str) -> str:
    return f".{shortened(name, SHORT_NAME)}.{os.getpid()}-{threading.get_native_id()}.partial"


def _runs(process: int) -> bool:
    """Whether a process of that number exists; True where asking would be harmful (Windows ends what one signals)."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # which cannot open folders
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if is_folder:
            return  # it may be written, not read
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)
