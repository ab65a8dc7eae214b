"""A folder of sounds to a library: what is new or changed is heard, what is gone vanishes, the rest stays."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enclap.captioner import Captioner
from enclap.errors import AudioNotFound, AudioUnreadable, InputError
from enclap.files import sha256
from enclap.output.inputs import InputFile, expand
from enclap.search.fingerprint import WORD_TYPE
from enclap.search.hearing import Heard, HeardWindow, hear
from enclap.search.labels import LabelSet
from enclap.search.library import Library
from enclap.search.store import COMMITS_BETWEEN_TIDYING, EMBEDDING, NAMES, ROW_NAMES, quoted, table_of
from enclap.search.words import name_words
from enclap.text import printable

logger = logging.getLogger("enclap")

ROWS_TOGETHER, SECONDS_TOGETHER = 256, 20.0
"""Rows, and time, after which what was heard is kept: a killed run loses no more."""
TAG_PROBABILITY = 0.3
"""From which a label is a tag of a row."""

State = tuple[int, int, str]
"""Of a file: size, time of change in nanoseconds, SHA-256."""


@dataclass(slots=True)
class Indexed:
    """What a run did, in files; windows: rows of those that were heard; seconds: of sound in them."""

    found: int = 0
    heard: int = 0
    copied: int = 0
    unchanged: int = 0
    removed: int = 0
    windows: int = 0
    seconds: float = 0.0
    faults: list[InputError] = field(default_factory=list)

    def __str__(self) -> str:
        """One line: files by what became of them, and how much was heard."""
        files = f"{self.heard} files heard, {self.copied} known by content, {self.unchanged} unchanged"
        audio = f"{self.seconds / 3600:.3g} hours of audio in {self.windows} windows"
        return f"{files}, {self.removed} removed, {len(self.faults)} failed; {audio}"

    @property
    def done(self) -> int:
        """Files that need no more work."""
        return self.heard + self.copied + self.unchanged + len(self.faults)


def update_library(
    library: Library, captioner: Captioner, labels: LabelSet, on_progress: Callable[[Indexed], None] | None = None
) -> Indexed:
    """What was done to make the rows those of the library's folder as it is now.

    labels: of which the rows get tags, and by which similarities are levelled. Raises AudioNotFound when the folder
    holds no sounds at all: a disk that is not mounted must not empty a library.
    """
    run = _Run(library, labels, on_progress or (lambda _: None))
    changed = run.look_around()
    run.copy(changed)  # before what is gone is removed: a file that was moved is not heard again
    run.remove()
    while changed:  # a second time for files whose content is that of one that could not be heard
        first = {state[2]: path for path, state in reversed(changed.items())}
        with closing(hear(captioner, list(first.values())[::-1])) as heard:
            for item in heard:
                run.take(item, changed.pop(item.path))
        run.commit()
        run.copy(changed)
    library.rows.tidy()
    return run.result


class _Run:
    """One run over a folder, and what it has done so far."""

    def __init__(self, library: Library, labels: LabelSet, on_progress: Callable[[Indexed], None]) -> None:
        self.result = Indexed()
        self._library = library
        self._labels = labels
        self._on_progress = on_progress
        self._known = known_files(library)
        self._holders = {state[2]: name for name, state in self._known.items()}
        self._rows: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._kept = time.monotonic()
        self._commits = 0
        self._gone: list[str] = []

    def look_around(self) -> dict[Path, State]:
        """The files that are new or changed; which are gone is noted, unless a folder could not be looked into."""
        found = expand([str(self._library.folder)])
        files = [Path(item.path) for item in found if isinstance(item, InputFile)]
        faults = [item for item in found if isinstance(item, AudioNotFound)]
        if not files:
            raise faults[0]
        self.result.found = len(files)
        self.result.faults += faults
        gone = sorted(self._known.keys() - {self._name(path) for path in files})
        if gone and faults:
            logger.warning("%d files may be gone, but not every folder can be looked into; their rows stay", len(gone))
        else:
            self._gone = gone
        states = {path: self.state_of(path) for path in files}
        return {path: state for path, state in states.items() if state is not None}

    def remove(self) -> None:
        """Drop the rows of files that are gone."""
        for start in range(0, len(self._gone), ROWS_TOGETHER):
            self._replace([], self._gone[start : start + ROWS_TOGETHER])
        self.result.removed = len(self._gone)

    def copy(self, changed: dict[Path, State]) -> None:
        """Give files whose content has rows already, under whatever name, a copy of these; they are done then."""
        waiting = [path for path, state in changed.items() if state[2] in self._holders]
        for start in range(0, len(waiting), ROWS_TOGETHER):
            part = waiting[start : start + ROWS_TOGETHER]
            contents = ", ".join(quoted(changed[path][2]) for path in part)
            rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for row in self._library.rows.columns(ROW_NAMES, f"sha256 IN ({contents})").to_pylist():
                rows.setdefault((row["sha256"], row["path"]), []).append(row)
            found = {content: item for (content, _), item in rows.items()}
            for path in part:
                if changed[path][2] in found:  # else they were replaced meanwhile, and it is heard
                    name, state = self._name(path), changed.pop(path)
                    named = {"path": name, **state_columns(state)}
                    rows_there = [row | named for row in found[state[2]]]
                    self._keep(name, [row | {NAMES: row[NAMES] and name_words(name)} for row in rows_there])
                    self.result.copied += 1
            self.commit()

    def take(self, heard: Heard, state: State) -> None:
        """Keep what was heard of a file."""
        name = self._name(heard.path)
        if heard.fault is not None:
            self.result.faults.append(heard.fault)
            if name in self._known:  # its rows are of another content
                self._keep(name, [])
            return
        self.result.heard += 1
        self.result.windows += len(heard.windows)
        self.result.seconds += heard.windows[-1].caption.end
        rows = window_rows(name, heard.windows, self._labels, self._library.facts.width)
        self._keep(name, [row | state_columns(state) for row in rows])
        self._holders[state[2]] = name
        if len(self._rows) >= ROWS_TOGETHER or time.monotonic() - self._kept > SECONDS_TOGETHER:
            self.commit()

    def commit(self) -> None:
        """Write what waits."""
        if self._names:
            self._replace(self._rows, self._names)
            self._commits += 1
            if self._commits % COMMITS_BETWEEN_TIDYING == 0:
                self._library.rows.tidy()
        self._rows, self._names, self._kept = [], [], time.monotonic()
        self._on_progress(self.result)

    def state_of(self, path: Path) -> State | None:
        """The file's state; None when it is that of its rows, and when the file cannot be read."""
        name = self._name(path)
        try:
            name.encode()
            facts = path.stat()
            known = self._known.get(name)
            if known is not None and known[:2] == (facts.st_size, facts.st_mtime_ns):
                self.result.unchanged += 1
                return None
            return facts.st_size, facts.st_mtime_ns, sha256(path)
        except UnicodeEncodeError:
            fault: InputError = AudioUnreadable(f"{printable(str(path))}: its name is not UTF-8; rename it")
        except OSError as error:
            fault = AudioNotFound(f"{printable(str(path))}: cannot be opened: {error.strerror or error}")
        self.result.faults.append(fault)
        return None

    def _keep(self, name: str, rows: list[dict[str, Any]]) -> None:
        self._names.append(name)
        self._rows += rows

    def _replace(self, rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> None:
        self._library.rows.replace(table_of(rows, self._library.facts.width), names)

    def _name(self, path: Path) -> str:
        """The file as the rows name it: relative to the folder, with forward slashes."""
        return path.relative_to(self._library.folder).as_posix()


def known_files(library: Library) -> dict[str, State]:
    """The state of every file that has rows."""
    names = ("size", "modified", "sha256")
    table = library.rows.columns(["path", *names])
    states = zip(*(table[name].to_pylist() for name in names), strict=True)
    return dict(zip(table["path"].to_pylist(), states, strict=True))


def window_rows(name: str, windows: Sequence[HeardWindow], labels: LabelSet, width: int) -> list[dict[str, Any]]:
    """The rows of a file, without its state."""
    rows = []
    # One row stands for the name, so that a long recording does not fill a whole ranking; a silent one is never asked.
    first = next((number for number, window in enumerate(windows) if not window.caption.silence), 0)
    for number, window in enumerate(windows):
        caption, embedding = window.caption, window.embedding
        level, spread = (0.0, 1.0) if embedding is None else labels.level(embedding)
        row = {
            "path": name,
            NAMES: name_words(name) if number == first else "",
            "start": caption.start,
            "end": caption.end,
            "caption": caption.text,
            "score": caption.score,
            "silence": caption.silence,
            "tags": [] if embedding is None else [tag.label for tag in labels.tags(embedding, TAG_PROBABILITY)],
            EMBEDDING: [0.0] * width if embedding is None else embedding.tolist(),
            "level": level,
            "spread": spread,
            "fingerprint": window.codes.astype(WORD_TYPE).tobytes(),
            "duration": windows[-1].caption.end,
        }
        rows.append(row)
    return rows


def state_columns(state: State) -> dict[str, Any]:
    """A file's state as the columns of its rows."""
    return dict(zip(("size", "modified", "sha256"), state, strict=True))
