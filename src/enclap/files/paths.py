"""Questions about paths before anything is written: what is there, what it leads to, and whether it will do."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enclap.errors import EnvironmentFault, UsageError
from enclap.text import printable

GIGABYTE = 1e9
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # the disk, or the share of it that the user may fill
DESCRIPTOR_FOLDERS = ("/dev/fd", "/proc/self/fd")  # whose entries stand for open files of this process
MOST_LINKS = 40  # that are followed one after the other, as in Linux


@contextmanager
def translate_write_errors(path: str | Path) -> Iterator[None]:
    """Turns an OSError of the block into an EnvironmentFault that names the path; BrokenPipeError is left alone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EnvironmentFault(f"{printable(str(path))}: cannot be written: {error.strerror or error}") from error


def is_folder(path: str | Path) -> bool:
    """Whether the path leads to a folder; False too where that cannot be seen, which `Path.is_dir` may raise for."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: str | Path) -> bool:
    """Whether the path leads to an ordinary file; False too where that cannot be seen."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def exists(path: Path) -> bool:
    """Whether there is anything at the path, a dangling link too; OSError when that cannot be seen."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def file_identity(path: str | int | Path) -> tuple[int, int] | None:
    """What all names of one ordinary file have in common; None where there is none. path: or an open file's number."""
    try:
        facts = os.stat(path)  # noqa: PTH116  (an open file has no Path)
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if stat.S_ISREG(facts.st_mode) else None


def is_stream(path: Path) -> bool:
    """Whether the path leads to something that is written to and not replaced: a device, a pipe, an open file."""
    mode = _mode(path)
    if mode is None:
        return False
    return descriptor_of(path) is not None or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def descriptor_of(path: Path) -> int | None:
    """The number of the open file that the path stands for, as /dev/stdout stands for 1; None for other paths."""
    folders = {Path(os.path.realpath(folder)) for folder in DESCRIPTOR_FOLDERS}
    step = path
    for _ in range(MOST_LINKS):
        parent = Path(os.path.realpath(step.parent))
        if parent in folders and step.name.isdecimal():
            return int(step.name)
        step = parent / step.name
        try:
            step = parent / step.readlink()
        except OSError:
            return None  # no link, or one that cannot be seen
    return None


def is_full(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says that the disk is full; some libraries say so in words only."""
    while True:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        if error.__cause__ in (None, error):
            return False
        error = error.__cause__


def is_too_long(fault: EnvironmentFault) -> bool:
    """Whether it says that a file could not be written because its name or path is longer than the system takes."""
    return isinstance(fault.__cause__, OSError) and fault.__cause__.errno == errno.ENAMETOOLONG


def stays_inside(name: str) -> bool:
    """Whether a file name with forward slashes, from elsewhere, leads to nothing outside the folder it is put in."""
    return "\\" not in name and ":" not in name and not name.startswith("/") and ".." not in name.split("/")


def check_free(target: Path) -> None:
    """Raises UsageError when there is something at `target` that a new folder would replace."""
    with translate_write_errors(target):
        is_empty_folder = is_folder(target) and not any(target.iterdir())
        if not is_empty_folder and exists(target):
            raise UsageError(f"{printable(str(target))}: exists already; give a new name, or remove it first")


def require_parent(path: Path) -> None:
    """Raises UsageError unless the folder in which the file `path`, or what it links to, is to stand is there."""
    real = Path(os.path.realpath(path)).parent
    if is_folder(real):
        return
    with translate_write_errors(path):
        fault = "is not a folder" if exists(real) else "does not exist; make it first"
        shown = real if path.is_symlink() else path.parent
    raise UsageError(f"{printable(str(path))}: the folder {printable(str(shown))} {fault}")


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Raises EnvironmentFault unless the disk under `folder`, which need not exist yet, has `needed` bytes free."""
    present = next(path for path in (folder, *folder.absolute().parents) if is_folder(path))
    free = shutil.disk_usage(present).free
    if free < needed:
        room = f"{purpose} needs {needed / GIGABYTE:.2f} GB, {free / GIGABYTE:.2f} GB are free"
        raise EnvironmentFault(f"{printable(str(folder))}: no room on the disk: {room}")


def _mode(path: str | Path) -> int | None:
    """Kind and permissions of what the path leads to; None where nothing is, or it cannot be seen."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116  (Path("") is the current folder)
    except OSError:
        return None
