"""What a run has done, kept beside its output, so that a run that was cut off goes on and a finished one is extended.

A ledger is a file of JSON lines, only ever appended to. A line holds either a finished recording, under a key made of
the recording's bytes and of everything that decides its captions, or the name and hash of a file about to be written.
So whatever a `--resume` writes equals what one uninterrupted run would have written, in every format.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from enclap.errors import EnvironmentFault
from enclap.output.files import file_hash, writing
from enclap.text import printable
from enclap.types import Candidate, Caption, CaptionResult

HEAD = b'{"enclap": "ledger", "version": 1}\n'
SMALL = 2**20  # bytes; larger files of a model folder are told apart by size and time of change, not read


@dataclass(frozen=True, slots=True)
class Key:
    """What a recording is known by, and the signs by which a change of its file shows."""

    name: str
    signs: tuple[int, ...]


class ResumeLog:
    """The record at `path`; two threads may use it, one to find and one to append.

    file: `path` opened for appending, without a buffer, so that a full disk shows at once and only once.
    reader: the same for reading.
    """

    def __init__(self, path: Path, file: FileIO, reader: BinaryIO) -> None:
        self._shown = str(path)
        self._file = file
        self._reader = reader
        self._end = 0
        self._places: dict[str, int] = {}  # of a key's line in the file: results stay on the disk
        self._files: dict[str, str] = {}
        self._read()

    @property
    def is_empty(self) -> bool:
        """Whether it holds no finished recording."""
        return not self._places

    def find(self, key: Key, path: str) -> CaptionResult | None:
        """The result recorded under the key, for a recording that is now called `path`."""
        place = self._places.get(key.name)
        if place is None:
            return None
        self._reader.seek(place)
        return _result(json.loads(self._reader.readline())["result"], path)

    def record(self, key: Key, result: CaptionResult) -> None:
        """Keep a result, unless the key has one."""
        if key.name not in self._places:
            self._places[key.name] = self._append({"key": key.name, "result": _table(result)})

    def announce(self, name: str, content: str) -> None:
        """Keep that the file `name` is going to hold what has this hash."""
        if self._files.get(name) != content:
            self._append({"file": name, "sha256": content})
            self._files[name] = content

    def written(self, name: str) -> str | None:
        """The hash of what was last written to the file `name`, None when it is not one of ours."""
        return self._files.get(name)

    def _append(self, entry: dict[str, Any]) -> int:
        """Where in the file the new line stands."""
        place = self._end
        self._write(json.dumps(entry).encode() + b"\n")
        return place

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        with writing(self._shown):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._end += len(line)

    def _read(self) -> None:
        """Take in what is there; a last line that was cut off when its writer was killed is dropped."""
        lines = iter(self._reader)
        place = len(head := next(lines, b""))
        if not HEAD.startswith(head):
            raise EnvironmentFault(
                f"{printable(self._shown)}: not a record of enclap, but stands in its place; move it"
            )
        if head != HEAD:
            place = 0
        for line in lines:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            if "result" in entry:
                self._places[entry["key"]] = place
            else:
                self._files[entry["file"]] = entry["sha256"]
            place += len(line)
        with writing(self._shown):
            self._file.truncate(place)
        self._end = place
        if place == 0:
            self._write(HEAD)


def recording_key(path: str, settings: str) -> Key | None:
    """The key of a recording under `settings`; None for what is no ordinary file or cannot be read.

    The ending of its name belongs to it, because FFmpeg takes a hint from there.
    """
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            signs = _signs(os.fstat(file.fileno()))
            content = file_hash(file)
    except OSError:
        return None  # reading it for its captions will say why
    facts = content.encode() + b"\0" + os.fsencode(Path(path).suffix) + b"\0" + settings.encode()
    return Key(hashlib.sha256(facts).hexdigest(), signs)


def is_unchanged(key: Key, path: str) -> bool:
    """Whether the file still looks as it did when its key was made."""
    try:
        return _signs(Path(path).stat()) == key.signs
    except OSError:
        return False


def model_fingerprint(folder: Path) -> str:
    """A hash that changes when a file of the model folder does."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        facts = path.stat()
        content = path.read_bytes() if facts.st_size <= SMALL else str(facts.st_mtime_ns).encode()
        digest.update(os.fsencode(path.relative_to(folder)) + f"\0{facts.st_size}\0".encode() + content)
    return digest.hexdigest()


def _signs(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _table(result: CaptionResult) -> dict[str, Any]:
    """Everything but the path, with every digit: Python writes floats so that they read back the same."""
    return {"duration": result.duration, "captions": [asdict(caption) for caption in result.captions]}


def _result(table: dict[str, Any], path: str) -> CaptionResult:
    return CaptionResult(path, table["duration"], tuple(map(caption_from_table, table["captions"])))


def caption_from_table(table: dict[str, Any]) -> Caption:
    """The caption whose `asdict` the table is."""
    found = (Candidate(tuple(item["token_ids"]), item["text"], item["score"]) for item in table["candidates"])
    return Caption(**{**table, "candidates": tuple(found)})
