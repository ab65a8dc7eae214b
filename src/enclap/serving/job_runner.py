"""Threads that work off the jobs, one recording each."""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import secrets
import sqlite3
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from enclap.errors import EnvironmentFault
from enclap.files.locks import locked
from enclap.output.resume import model_fingerprint
from enclap.serving.callbacks import CallbackSender, callback_is_allowed
from enclap.serving.captions import CaptionForm
from enclap.serving.job_store import QUEUED, Job, JobStore, KeptUpload
from enclap.serving.problems import RequestRefused, problem_table
from enclap.serving.recordings import BACKGROUND_READERS, CaptionService, NamedFile
from enclap.serving.upload_folder import UploadFolder
from enclap.serving.window_queue import EndOfRecording
from enclap.text import printable
from enclap.types import Caption
from enclap.version import __version__

logger = logging.getLogger("enclap.serving")

MOST_UNFINISHED = 1000  # jobs
ID_BYTES = 18  # of chance: nobody guesses an id
IDLE_SECONDS = 1.0
SWEEP_SECONDS = 600.0
UPLOAD_SECONDS = 3600.0  # that an upload is kept for a job
MOST_UPLOADS = 1000
MOST_ATTEMPTS = 3  # at a window that ends the server each time


class _Cancelled(Exception):
    """The job is not wanted any more, or the server stops."""


class JobRunner:
    """Keeps and works off the jobs of a server; `start` once the model is loaded, `stop` before it is.

    folder: for the database and the uploads, ours alone while the server runs. quota: bytes of all uploads that wait.
    keep_seconds: how long the captions of a finished job can be asked for.
    """

    def __init__(self, service: CaptionService, folder: Path, quota: int, keep_seconds: float) -> None:
        self.service = service
        self._folder = folder
        self.uploads = UploadFolder(folder / "uploads", quota)
        self._keep_seconds = keep_seconds
        self._held = ExitStack()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._running: dict[str, queue.SimpleQueue[Caption | EndOfRecording]] = {}
        self._threads: list[threading.Thread] = []
        self._space = threading.Lock()

    def start(self) -> None:
        """Open the folder and go on with the jobs in it.

        Raises EnvironmentFault when it cannot be written, is damaged, or another server uses it.
        """
        shown = printable(str(self._folder))
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held.enter_context(locked(self._folder / "lock", str(self._folder)))
            self.uploads.open()
            self.store = JobStore(self._folder / "jobs.sqlite3")
        except (OSError, sqlite3.Error) as error:
            advice = "name another folder by --state-dir"
            raise EnvironmentFault(f"{shown}: the jobs cannot be kept there: {error}; {advice}") from error
        self._held.callback(self.store.close)
        self.store.requeue_running()
        self._sweep()
        folder = self.service.captioner.folder
        self._model = f"{__version__} {self.service.model} {model_fingerprint(folder) if folder else ''}"
        self.service.metrics.jobs.set_function(self.store.unfinished)
        sender = CallbackSender(self.store, self.service.settings.callback_prefixes)
        sender.start()
        self._held.callback(sender.stop)
        for _ in range(BACKGROUND_READERS):
            thread = threading.Thread(target=self._work, name="enclap-jobs", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads; jobs that run go on when the server is started again."""
        with self._changed:
            self._stopping.set()
            for found in self._running.values():
                found.put(EndOfRecording(_Cancelled()))
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._held.close()

    def submit(
        self,
        owner: str,
        recording: NamedFile,
        options: dict[str, Any],
        idempotency_key: str | None = None,
        callback: str | None = None,
    ) -> Job:
        """The job, which is kept from now on whatever happens to the server. callback: address that is told its end.

        Raises RequestRefused when too much waits, the callback may not be made, or the key stood for another request.
        """
        if callback is not None and not callback_is_allowed(callback, self.service.settings.callback_prefixes):
            message = "callback: not below an address that the operator lists by --callback-prefix"
            raise RequestRefused(400, "callback_not_allowed", message)
        if self.store.unfinished() >= MOST_UNFINISHED:
            raise RequestRefused(429, "queue_full", f"{MOST_UNFINISHED} jobs wait, the most that are kept", 60)
        id = secrets.token_urlsafe(ID_BYTES)
        with self._space:  # held until the job is kept: no sweep takes its upload for one that nobody needs
            size, content = self.uploads.keep(id, recording)
            facts = json.dumps([content, recording.name, options, callback], sort_keys=True)
            fingerprint = hashlib.sha256(facts.encode("utf-8", "backslashreplace")).hexdigest()
            job = Job(id, owner, QUEUED, recording.name, options, size, fingerprint, idempotency_key, callback=callback)
            job = self.store.add(job)
        if job.id != id:
            self.uploads.remove(id)
            if job.fingerprint != fingerprint:
                message = "this Idempotency-Key stood for another request before; use a new one"
                raise RequestRefused(422, "idempotency_key_reused", message)
        with self._changed:
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """End the job and forget it, with its upload and its captions."""
        self.store.remove(job.id)
        with self._changed:
            if job.id in self._running:
                self._running[job.id].put(EndOfRecording(_Cancelled()))
        self.uploads.remove(job.id)

    def keep_upload(self, owner: str, recording: NamedFile) -> KeptUpload:
        """The recording, which is kept for an hour from now on; RequestRefused when there is no room for it."""
        upload_id = secrets.token_urlsafe(ID_BYTES)
        with self._space:  # as in `submit`
            if len(self._kept_uploads()) >= MOST_UPLOADS:
                raise RequestRefused(429, "quota_exceeded", f"{MOST_UPLOADS} uploads wait, the most that are kept", 60)
            size, _ = self.uploads.keep(upload_id, recording)
            upload = KeptUpload(upload_id, owner, recording.name, size, time.time())
            self.store.add_upload(upload)
        return upload

    def open_upload(self, owner: str, id: str) -> NamedFile:
        """The recording; RequestRefused when it is not there (any more) or came with another key."""
        with self._space:
            upload = self._find_upload(owner, id)
            return NamedFile(self.uploads.path(id).open("rb"), upload.name)

    def remove_upload(self, owner: str, id: str) -> None:
        """Forget the recording; raises as `open_upload` does."""
        with self._space:
            self._find_upload(owner, id)
            self.store.remove_upload(id)
            self.uploads.remove(id)

    def _find_upload(self, owner: str, id: str) -> KeptUpload:
        for upload in self._kept_uploads():
            if (upload.id, upload.owner) == (id, owner):
                return upload
        raise RequestRefused(
            404, "upload_not_found", "there is no such upload, or it came with another key; send it again"
        )

    def _kept_uploads(self) -> list[KeptUpload]:
        """Those that are not too old; the files of the others go with the next sweep."""
        return self.store.uploads_since(time.time() - UPLOAD_SECONDS)

    def _work(self) -> None:
        """One thread: job after job, until the server stops."""
        swept = time.monotonic()
        while not self._stopping.is_set():
            if time.monotonic() - swept > SWEEP_SECONDS:
                swept = time.monotonic()
                self._sweep()
            job = self.store.take(self._model)
            if job is None:
                with self._changed:
                    self._changed.wait(IDLE_SECONDS)
                continue
            found: queue.SimpleQueue[Caption | EndOfRecording] = queue.SimpleQueue()
            with self._changed:
                self._running[job.id] = found
                if self._stopping.is_set():
                    found.put(EndOfRecording(_Cancelled()))
            self._caption(job, found)
            with self._changed:
                del self._running[job.id]

    def _caption(self, job: Job, found: queue.SimpleQueue[Caption | EndOfRecording]) -> None:
        """Caption what is not captioned yet; the job's end is kept unless the server stops before."""
        error = None
        try:
            if job.attempts > MOST_ATTEMPTS:
                raise RequestRefused(500, "gave_up", f"the server ended {MOST_ATTEMPTS} times at this recording")
            number = len(self.store.captions(job.id))
            recording = NamedFile(self.uploads.path(job.id).open("rb"), job.name)  # closed by the thread that reads it
            settings = CaptionForm.model_validate(job.options).settings
            stream = self.service.begin(recording, settings, found.put, skip=number)
            try:
                while not isinstance(item := found.get(), EndOfRecording):
                    if not self.store.add_caption(job.id, number, item, recording.declared_seconds):
                        raise _Cancelled
                    number += 1
                if item.error is not None:
                    raise item.error
            finally:
                self.service.end(stream)
        except _Cancelled:
            return
        except Exception as fault:
            error = problem_table(fault, job.id)
            logger.warning("job %s failed: %s", job.id, type(fault).__name__)
        self.store.finish(job.id, error)
        self.uploads.remove(job.id)

    def _sweep(self) -> None:
        """Forget old jobs, and uploads that no job needs."""
        self.store.remove_finished_before(time.time() - self._keep_seconds)
        with self._space:
            self._kept_uploads()
            self.uploads.remove_others(self.store.ids_with_upload())
