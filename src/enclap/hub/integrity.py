"""The checksum file of a model folder: written when the folder is made, and what it is held to ever after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import ModelError
from enclap.files import is_file, sha256, stays_inside, write_whole
from enclap.hub.layout import read_configuration
from enclap.text import printable

CHECKSUMS = "SHA256SUMS"
REMEDY = "the model is damaged, install or fetch it again"
SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
SIZE_LINE = re.compile(r"# (\d+) (.+)")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of one file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def check_folder(folder: Path, hashes: bool = False) -> None:
    """Raises ModelError unless the folder has a readable config.json and all that its checksum file lists.

    Sizes are compared always, contents only with `hashes`, which reads every file.
    """
    read_configuration(folder)
    for name, record in read_checksums(folder).items():
        path = folder / name
        with _translate_read_errors(path):
            size = path.stat().st_size if is_file(path) else None
            if size != record.size:
                found = "is missing" if size is None else f"has {size} bytes where {record.size} belong"
                raise ModelError(f"{printable(str(path))}: {found}; {REMEDY}")
            if hashes and sha256(path) != record.sha256:
                raise ModelError(f"{printable(str(path))}: wrong checksum; {REMEDY}")


def read_checksums(folder: Path) -> dict[str, FileRecord]:
    """What the folder's SHA256SUMS records, by file name with forward slashes; empty when there is none."""
    path = folder / CHECKSUMS
    if not is_file(path):
        return {}
    sizes: dict[str, int] = {}
    records: dict[str, FileRecord] = {}
    with _translate_read_errors(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        size_line, sum_line = SIZE_LINE.fullmatch(line), SUM_LINE.fullmatch(line)
        if size_line:
            sizes[size_line[2]] = int(size_line[1])
        elif sum_line and sum_line[2] in sizes and stays_inside(sum_line[2]):
            records[sum_line[2]] = FileRecord(sizes[sum_line[2]], sum_line[1])
        else:
            raise ModelError(f"{printable(str(path))}: cannot be read; {REMEDY}")
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


def folder_size(folder: Path) -> int:
    """Bytes of all files in the folder."""
    return sum(path.stat().st_size for path in _files(folder))


@contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the block, but that nothing is there, into a ModelError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{printable(str(path))}: cannot be read: {reason}; see that you may read it") from error


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith((".", CHECKSUMS)):
            yield path
