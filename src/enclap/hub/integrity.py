"""Model folders on the disk: whole or not there at all, and held to the checksums that they carry."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.text import printable

CHECKSUMS = "SHA256SUMS"
CONFIGURATION = "config.json"
HASH_BLOCK = 2**20
GIGABYTE = 1e9
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # the disk, or the share of it that the user may fill
PARTIAL = re.compile(r"\..+\.(\d+)\.partial")
"""Name of a folder that is being written, with the number of the process that writes it."""

SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
SIZE_LINE = re.compile(r"# (\d+) (.+)")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of one file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder under a temporary name, which becomes `target` when the block ends well.

    What the block leaves in it is flushed to the disk first, so `target` is whole or not there. Raises UsageError when
    `target` holds something already, and what `scratch_folder` raises.
    """
    check_free(target)
    with scratch_folder(target) as temporary:
        yield temporary
        flush_tree(temporary)
        temporary.replace(target)
        _flush(target.parent)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, gone after the block; what killed processes left of theirs goes too.

    Raises EnvironmentFault when the disk cannot take what the block writes.
    """
    shown = printable(str(target))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
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


def flush_tree(folder: Path) -> None:
    """Have the system write every file below a folder to the disk."""
    for path in sorted(folder.rglob("*")):
        _flush(path)


def check_free(target: Path) -> None:
    """Raises UsageError when there is something at `target` that a new folder would replace."""
    is_empty_folder = target.is_dir() and not any(target.iterdir())
    if os.path.lexists(target) and not is_empty_folder:
        raise UsageError(f"{printable(str(target))}: exists already; give a new name, or remove it first")


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Raises EnvironmentFault unless the disk under `folder`, which need not exist yet, has `needed` bytes free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        room = f"{purpose} needs {needed / GIGABYTE:.2f} GB, {free / GIGABYTE:.2f} GB are free"
        raise EnvironmentFault(f"{printable(str(folder))}: no room on the disk: {room}")


def is_full(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says that the disk is full; some libraries say so in words only."""
    while True:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        if error.__cause__ is None:
            return False
        error = error.__cause__


def check_folder(folder: Path, hashes: bool = False) -> None:
    """Raises ModelError unless the folder has a readable config.json and all that its checksum file lists.

    Sizes are compared always, contents only with `hashes`, which reads every file.
    """
    read_configuration(folder)
    for name, record in read_checksums(folder).items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != record.size:
            found = "is missing" if size is None else f"has {size} bytes where {record.size} belong"
            raise ModelError(f"{printable(str(path))}: {found}; the model is damaged, install or fetch it again")
        if hashes and sha256(path) != record.sha256:
            raise ModelError(f"{printable(str(path))}: wrong checksum; the model is damaged, install or fetch it again")


def read_configuration(folder: Path) -> dict[str, object]:
    """The table in the folder's config.json; ModelError when it is missing or holds none."""
    path = folder / CONFIGURATION
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{printable(str(folder))}: not a model folder, {CONFIGURATION} is missing") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{printable(str(path))}: damaged, it is not JSON; fetch the model again") from error
    if not isinstance(table, dict):
        raise ModelError(f"{printable(str(path))}: damaged, it holds no table; fetch the model again")
    return table


def read_checksums(folder: Path) -> dict[str, FileRecord]:
    """What the folder's SHA256SUMS records, by file name with forward slashes; empty when there is none."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    sizes: dict[str, int] = {}
    records: dict[str, FileRecord] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        size_line, sum_line = SIZE_LINE.fullmatch(line), SUM_LINE.fullmatch(line)
        if size_line:
            sizes[size_line[2]] = int(size_line[1])
        elif sum_line and sum_line[2] in sizes and stays_inside(sum_line[2]):
            records[sum_line[2]] = FileRecord(sizes[sum_line[2]], sum_line[1])
        else:
            raise ModelError(f"{printable(str(path))}: cannot be read; the model is damaged, install or fetch it again")
    return records


def write_checksums(folder: Path) -> Path:
    """The path of the folder's SHA256SUMS, now written; `sha256sum -c` reads it, sizes are its comments."""
    lines = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        lines += [f"# {path.stat().st_size} {name}", f"{sha256(path)}  {name}"]
    target = folder / CHECKSUMS
    write_whole(target, "\n".join(lines) + "\n")
    return target


def write_whole(path: Path, text: str) -> None:
    """Write a small text file by way of a temporary name, so that `path` is the old text or the new one."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def folder_size(folder: Path) -> int:
    """Bytes of all files in the folder."""
    return sum(path.stat().st_size for path in _files(folder))


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def stays_inside(name: str) -> bool:
    """Whether a file name with forward slashes, from elsewhere, leads to no place outside the folder it is put in."""
    return "\\" not in name and ":" not in name and not name.startswith("/") and ".." not in name.split("/")


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of earlier attempts at `target`."""
    for path in target.parent.glob(f".{target.name}.*.partial"):
        match = PARTIAL.fullmatch(path.name)
        if match and not _runs(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether a process of that number exists; True where asking would be harmful (Windows ends what one signals)."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # which cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith((".", CHECKSUMS)):
            yield path
