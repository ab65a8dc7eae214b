"""Jobs in SQLite: what was asked, how far it is, and every caption as soon as it is there; uploads that wait for one.

A process that is killed loses nothing that was answered: a job is kept before its client is answered, and a caption
is kept once (its number is its key), so that a server that starts again goes on after the last one.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from enclap.types import Caption, CaptionResult

CAPTION = TypeAdapter(Caption)
QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
UNFINISHED, ENDED = (QUEUED, RUNNING), (DONE, FAILED)
PENDING, DELIVERED = "pending", "delivered"
"""States of a callback, beside FAILED."""
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, name TEXT, options TEXT NOT NULL,
    size INTEGER NOT NULL, fingerprint TEXT NOT NULL, idempotency_key TEXT, model TEXT,
    created REAL NOT NULL, updated REAL NOT NULL, declared REAL, error TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, UNIQUE (owner, idempotency_key)
);
CREATE TABLE IF NOT EXISTS captions (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL, caption TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS callbacks (
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, url TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT, size INTEGER NOT NULL, created REAL NOT NULL
);
"""
SELECT = "SELECT jobs.*, url AS callback, callbacks.state AS callback_state FROM jobs LEFT JOIN callbacks ON job = id"


@dataclass(frozen=True, slots=True)
class Job:
    """One recording that is captioned in its own time.

    options: of the request. size: bytes of the upload. fingerprint: a hash of upload and options. model: what captions
    were made with. created, updated: seconds since 1970. declared: what the container says of its length, in seconds.
    error: the table that a client is shown. attempts: how often it was begun since its last caption. callback: the
    address that is told when the job has ended; callback_state: whether it was.
    """

    id: str
    owner: str
    state: str
    name: str | None
    options: dict[str, Any]
    size: int
    fingerprint: str
    idempotency_key: str | None = None
    model: str | None = None
    created: float = 0.0
    updated: float = 0.0
    declared: float | None = None
    error: dict[str, Any] | None = None
    attempts: int = 0
    callback: str | None = None
    callback_state: str | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """An ended job whose callback is due. state: of the job. attempts: how often it was tried."""

    job: str
    url: str
    state: str
    attempts: int


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """A recording of no job yet. size: in bytes. created: seconds since 1970."""

    id: str
    owner: str
    name: str | None
    size: int
    created: float


class JobStore:
    """The jobs in one database file; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._database.execute(f"PRAGMA {pragma}")
        [version] = self._database.execute("PRAGMA user_version").fetchone()
        if version not in {0, SCHEMA_VERSION}:
            raise sqlite3.DatabaseError(f"{path}: version {version} is not known")
        self._database.executescript(SCHEMA)
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add(self, job: Job) -> Job:
        """The job as it is kept: the one that came before under the same owner and idempotency key, if there is one."""
        now = time.time()
        with self._transaction() as run:
            if job.idempotency_key is not None:
                query = f"{SELECT} WHERE owner = ? AND idempotency_key = ?"
                if row := run(query, (job.owner, job.idempotency_key)).fetchone():
                    return _job(row)
            values = (job.id, job.owner, job.state, job.name, json.dumps(job.options), job.size, job.fingerprint)
            columns = "id, owner, state, name, options, size, fingerprint, idempotency_key, created, updated"
            query = f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            run(query, (*values, job.idempotency_key, now, now))
            if job.callback is not None:
                run("INSERT INTO callbacks (job, url, state) VALUES (?, ?, ?)", (job.id, job.callback, PENDING))
            return _job(run(f"{SELECT} WHERE id = ?", (job.id,)).fetchone())

    def find(self, id: str, owner: str) -> Job | None:
        """The owner's job of that id."""
        with self._transaction() as run:
            row = run(f"{SELECT} WHERE id = ? AND owner = ?", (id, owner)).fetchone()
            return row and _job(row)

    def of_owner(self, owner: str, limit: int) -> list[Job]:
        """The owner's jobs, the newest first."""
        with self._transaction() as run:
            query = f"{SELECT} WHERE owner = ? ORDER BY created DESC LIMIT ?"
            return [_job(row) for row in run(query, (owner, limit))]

    def captions(self, id: str, after: int = 0) -> list[Caption]:
        """The captions of a job, from number `after` on."""
        with self._transaction() as run:
            query = "SELECT caption FROM captions WHERE job = ? AND number >= ? ORDER BY number"
            return [CAPTION.validate_json(row["caption"]) for row in run(query, (id, after))]

    def unfinished(self) -> int:
        """How many jobs wait or run."""
        with self._transaction() as run:
            [count] = run("SELECT COUNT(*) FROM jobs WHERE state IN (?, ?)", UNFINISHED).fetchone()
            return int(count)

    def ids_with_upload(self) -> set[str]:
        """The jobs whose upload is still needed, and the uploads of no job yet."""
        with self._transaction() as run:
            query = "SELECT id FROM jobs WHERE state IN (?, ?) UNION SELECT id FROM uploads"
            return {row["id"] for row in run(query, UNFINISHED)}

    def add_upload(self, upload: KeptUpload) -> None:
        """Keep what is known of an upload."""
        with self._transaction() as run:
            run("INSERT INTO uploads VALUES (?, ?, ?, ?, ?)", astuple(upload))

    def uploads_since(self, moment: float) -> list[KeptUpload]:
        """The uploads that came after `moment`, in seconds since 1970; older ones are forgotten."""
        with self._transaction() as run:
            run("DELETE FROM uploads WHERE created <= ?", (moment,))
            return [KeptUpload(*row) for row in run("SELECT id, owner, name, size, created FROM uploads")]

    def remove_upload(self, id: str) -> None:
        """Forget an upload."""
        with self._transaction() as run:
            run("DELETE FROM uploads WHERE id = ?", (id,))

    def requeue_running(self) -> None:
        """Jobs that a server that ended had begun wait again."""
        with self._transaction() as run:
            run("UPDATE jobs SET state = ? WHERE state = ?", (QUEUED, RUNNING))

    def take(self, model: str) -> Job | None:
        """The job that waits longest, now running; captions that another model has made are dropped."""
        with self._transaction() as run:
            row = run("SELECT * FROM jobs WHERE state = ? ORDER BY created, id LIMIT 1", (QUEUED,)).fetchone()
            if row is None:
                return None
            if row["model"] != model:
                run("DELETE FROM captions WHERE job = ?", (row["id"],))
            query = "UPDATE jobs SET state = ?, model = ?, updated = ?, attempts = attempts + 1 WHERE id = ?"
            run(query, (RUNNING, model, time.time(), row["id"]))
            return _job(run(f"{SELECT} WHERE id = ?", (row["id"],)).fetchone())

    def add_caption(self, id: str, number: int, caption: Caption, declared: float | None) -> bool:
        """Whether the job is still there; the caption is then kept."""
        with self._transaction() as run:
            found = run(
                "UPDATE jobs SET updated = ?, declared = ?, attempts = 0 WHERE id = ?", (time.time(), declared, id)
            )
            if found.rowcount == 0:
                return False
            run("INSERT INTO captions VALUES (?, ?, ?)", (id, number, json.dumps(asdict(caption))))
            return True

    def finish(self, id: str, error: dict[str, Any] | None = None) -> None:
        """The job is done, or has failed for the reason in `error`."""
        state = DONE if error is None else FAILED
        reason = None if error is None else json.dumps(error)
        with self._transaction() as run:
            run("UPDATE jobs SET state = ?, error = ?, updated = ? WHERE id = ?", (state, reason, time.time(), id))

    def due_callback(self) -> Callback | None:
        """The callback of an ended job that is due the longest."""
        with self._transaction() as run:
            query = (
                "SELECT job, url, jobs.state, callbacks.attempts FROM callbacks JOIN jobs ON job = id"
                " WHERE callbacks.state = ? AND jobs.state IN (?, ?) AND due <= ? ORDER BY due, updated LIMIT 1"
            )
            row = run(query, (PENDING, *ENDED, time.time())).fetchone()
            return row and Callback(*row)

    def settle_callback(self, callback: Callback, state: str, due: float = 0.0) -> None:
        """It was tried once more, and is in this state now; due: when it is tried again, in seconds since 1970."""
        with self._transaction() as run:
            query = "UPDATE callbacks SET state = ?, attempts = ?, due = ? WHERE job = ?"
            run(query, (state, callback.attempts + 1, due, callback.job))

    def remove(self, id: str) -> None:
        """Forget the job and its captions."""
        with self._transaction() as run:
            run("DELETE FROM jobs WHERE id = ?", (id,))

    def remove_finished_before(self, moment: float) -> None:
        """Forget jobs that ended before `moment`, in seconds since 1970."""
        with self._transaction() as run:
            run("DELETE FROM jobs WHERE state IN (?, ?) AND updated < ?", (*ENDED, moment))

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """`execute` of one transaction, which is kept when the block ends well."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database.execute
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def result_of(job: Job, captions: list[Caption]) -> CaptionResult:
    """The captions of a job so far, as the formats take them."""
    return CaptionResult(job.name, captions[-1].end if captions else 0.0, tuple(captions))


def _job(row: sqlite3.Row) -> Job:
    table = dict(row)
    table["options"] = json.loads(table["options"])
    table["error"] = None if table["error"] is None else json.loads(table["error"])
    return Job(**table)
