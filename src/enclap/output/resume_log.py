"""The resume log: what a run has done, kept beside its output, so that a later run with --resume can go on.

A resume log is a file of JSON lines, only ever appended to. A line holds either a finished recording, under a key made
of the recording's bytes and of everything that decides its captions, or the name and hash of a file about to be
written, and a checksum of that. A line that a crash or a power cut has damaged is passed over: its recording is
captioned again.
"""

from __future__ import annotations

import json
import logging
import math
import zlib
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydantic import TypeAdapter

from enclap.errors import EnvironmentFault
from enclap.files import translate_write_errors
from enclap.text import printable
from enclap.types import CaptionResult

logger = logging.getLogger("enclap")

HEAD = b'{"enclap": "ledger", "version": 1}\n'
BLOCK_BYTES = 2**20
CHECKSUM = "crc32"  # of the rest of a line, as json.dumps writes it
RESULT = TypeAdapter(CaptionResult)


class ResumeLog:
    """The resume log at `path`; two threads may use it, one to find and one to append.

    file: `path` opened for appending, without a buffer, so that a full disk shows at once and only once.
    reader: the same for reading.
    """

    def __init__(self, path: Path, file: FileIO, reader: BinaryIO) -> None:
        self._shown = str(path)
        self._file = file
        self._reader = reader
        self._end = 0
        self._offsets: dict[str, int] = {}  # of a key's line in the file: results stay on the disk
        self._files: dict[str, str] = {}
        with translate_write_errors(path):
            self._read()

    @property
    def is_empty(self) -> bool:
        """Whether it holds no finished recording."""
        return not self._offsets

    def find(self, key: str, path: str) -> CaptionResult | None:
        """The result recorded under the key, for a recording that is now called `path`."""
        offset = self._offsets.get(key)
        if offset is None:
            return None
        self._reader.seek(offset)
        return _result(_parsed(self._reader.readline()), path)

    def record(self, key: str, result: CaptionResult) -> None:
        """Keep a result, unless the key has one."""
        if key not in self._offsets:
            table = {name: value for name, value in asdict(result).items() if name != "path"}
            self._offsets[key] = self._append({"key": key, "result": table})

    def announce(self, name: str, digest: str) -> None:
        """Keep that the file `name` is going to hold what has this hash."""
        if self._files.get(name) != digest:
            self._append({"file": name, "sha256": digest})
            self._files[name] = digest

    def written(self, name: str) -> str | None:
        """The hash of what was last written to the file `name`, None when it is not one of ours."""
        return self._files.get(name)

    def _append(self, entry: dict[str, Any]) -> int:
        """The offset in the file of the new line."""
        offset = self._end
        self._write(line_of(entry))
        return offset

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        with translate_write_errors(self._shown):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._end += len(line)

    def _read(self) -> None:
        """Take in what is there; a last line that was cut off when its writer was killed is removed."""
        if self._starts_anew():
            self._file.truncate(0)
            self._write(HEAD)
            return
        damaged: list[tuple[int, int]] = []
        self._end = len(HEAD)
        self._reader.seek(self._end)
        for line in self._reader:
            if not line.endswith(b"\n"):
                break
            entry = _parsed(line)
            key, name, digest = (entry.get(field) for field in ("key", "file", "sha256"))
            if isinstance(key, str) and _result(entry, "") is not None:
                self._offsets[key] = self._end
            elif isinstance(name, str) and isinstance(digest, str):
                self._files[name] = digest
            elif line.strip(b" \n"):
                damaged.append((self._end, len(line)))
            self._end += len(line)
        self._file.truncate(self._end)
        if damaged:
            with Path(self._shown).open("r+b") as file:
                for offset, length in damaged:  # made blank, so that they are reported once
                    file.seek(offset)
                    file.write(b" " * (length - 1))
            message = "%s: damaged in %d of its lines; what they recorded is done again"
            logger.warning(message, printable(self._shown), len(damaged))

    def _starts_anew(self) -> bool:
        """Whether nothing can be read because nothing was written: no bytes, a beginning, or a power cut's NULs.

        Raises EnvironmentFault when the file is not a resume log.
        """
        self._reader.seek(0)
        head = self._reader.readline(len(HEAD))
        if head == HEAD:
            return False
        if HEAD.startswith(head):
            return True
        self._reader.seek(0)
        if not any(block.strip(b"\0") for block in iter(lambda: self._reader.read(BLOCK_BYTES), b"")):
            logger.warning("%s: emptied by a crash or a power cut; begun anew", printable(self._shown))
            return True
        fault = "not a resume log of enclap, but has the name of one; move it"
        raise EnvironmentFault(f"{printable(self._shown)}: {fault}")


def line_of(entry: dict[str, Any]) -> bytes:
    """The line that holds an entry, with its checksum."""
    return json.dumps(entry | {CHECKSUM: zlib.crc32(json.dumps(entry).encode())}).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """The object in a line, its checksum taken off; an empty one when the line is damaged."""

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else _refused(text)

    try:
        entry = json.loads(line.decode("ascii"), parse_float=finite, parse_constant=_refused)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(entry, dict):
        return {}
    stated = entry.pop(CHECKSUM, None)  # without it a flipped bit in a sentence would be a sentence too
    return entry if stated == zlib.crc32(json.dumps(entry).encode()) else {}


def _result(entry: dict[str, Any], path: str) -> CaptionResult | None:
    """The result in an entry, for a recording called `path`; None when it holds none or a damaged one."""
    table = entry.get("result")
    try:
        return RESULT.validate_python({**table, "path": path}) if isinstance(table, dict) else None
    except ValueError:  # pydantic's ValidationError is one
        return None


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that a caption can have")
