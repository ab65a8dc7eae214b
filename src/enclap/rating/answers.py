"""The answers of all raters in SQLite: each is on the disk before its rater is told that it is kept."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import DataError
from enclap.text import printable

ANSWERS = "answers.sqlite"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    rater INTEGER NOT NULL, clip INTEGER NOT NULL, item INTEGER NOT NULL, scale TEXT NOT NULL,
    value INTEGER NOT NULL CHECK (value BETWEEN 1 AND 4), changed REAL NOT NULL,
    PRIMARY KEY (rater, clip, item, scale)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a rater said of one caption on one scale. clip, item: by number in the study. value: 1 to 4."""

    rater: int
    clip: int
    item: int
    scale: str
    value: int


class AnswerStore:
    """The answers in one database file; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                self._database.execute(f"PRAGMA {pragma}")
            [version] = self._database.execute("PRAGMA user_version").fetchone()
            if version not in {0, SCHEMA_VERSION}:
                raise DataError(f"{printable(str(path))}: answers of a newer version of this program")
            self._database.executescript(SCHEMA)
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise DataError(f"{printable(str(path))}: cannot be used as a table of answers: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def keep(self, rater: int, clip: int, item: int, values: Mapping[str, int]) -> None:
        """Keep a rater's values of some scales, in place of earlier ones; they are on the disk when this returns."""
        rows = [(rater, clip, item, scale, value, time.time()) for scale, value in values.items()]
        query = (
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "value = excluded.value, changed = excluded.changed WHERE value <> excluded.value"
        )
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(query, rows)
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise

    def of_rater(self, rater: int) -> dict[tuple[int, int], dict[str, int]]:
        """A rater's values by scale, for each caption (clip, item) that has some."""
        found: dict[tuple[int, int], dict[str, int]] = {}
        for answer in self._select("WHERE rater = ?", (rater,)):
            found.setdefault((answer.clip, answer.item), {})[answer.scale] = answer.value
        return found

    def all(self) -> list[Answer]:
        """Every answer, by rater, clip, item and scale."""
        return self._select("", ())

    def _select(self, condition: str, values: tuple[int, ...]) -> list[Answer]:
        query = f"SELECT rater, clip, item, scale, value FROM answers {condition} ORDER BY rater, clip, item, scale"
        with self._lock:
            return [Answer(*row) for row in self._database.execute(query, values)]
