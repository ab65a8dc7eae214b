"""The disk space that recordings of clients take, and the folder in which those of jobs wait to be captioned."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection
from pathlib import Path

from enclap.files import require_room
from enclap.serving.problems import RequestRefused
from enclap.serving.recordings import NamedFile

COPY_BYTES = 2**20
RETRY_SECONDS = 60


class UploadFolder:
    """A file for each job, under the job's id.

    quota: bytes of all uploads together: those that wait here, and those that are being received for any route.
    """

    def __init__(self, folder: Path, quota: int) -> None:
        self.folder = folder
        self._quota = quota
        self._receiving = 0
        self._sizes: dict[str, int] = {}
        self._counting = threading.Lock()

    def open(self) -> None:
        """Make the folder, and count what a server before this one has left in it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}

    def path(self, id: str) -> Path:
        """Where the recording of a job is, or would be."""
        return self.folder / id

    def receive(self, size: int) -> None:
        """Count bytes that have come, until `forget`; RequestRefused when they are too many."""
        with self._counting:
            self._require(self._receiving + size)
            self._receiving += size

    def forget(self, size: int) -> None:
        """Bytes that were received are kept no longer, or are those of a job now."""
        with self._counting:
            self._receiving -= size

    def check_room(self, size: int) -> None:
        """Raises RequestRefused unless an upload of that many bytes fits beside all that is there."""
        self._require(self._receiving + size)

    def keep(self, id: str, recording: NamedFile) -> tuple[int, str]:
        """Size and SHA-256 of the recording, which is on the disk afterwards; RequestRefused when there is no room."""
        size = recording.seek(0, os.SEEK_END)
        recording.seek(0)
        self._require(size)  # without what is being received, of which it was a part
        require_room(self.folder, size, "an upload")
        digest = hashlib.sha256()
        try:
            with self.path(id).open("xb") as file:
                while piece := recording.read(COPY_BYTES):
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            self.path(id).unlink(missing_ok=True)
            raise
        with self._counting:
            self._sizes[id] = size
        return size, digest.hexdigest()

    def remove(self, id: str) -> None:
        """Remove the recording of a job, if it is there."""
        self.path(id).unlink(missing_ok=True)
        with self._counting:
            self._sizes.pop(id, None)

    def remove_others(self, ids: Collection[str]) -> None:
        """Remove the recordings of all jobs but these."""
        for path in self.folder.iterdir():
            if path.name not in ids:
                self.remove(path.name)

    def _require(self, size: int) -> None:
        """Raises RequestRefused when that many bytes are too many beside those of waiting jobs."""
        taken = sum(self._sizes.values())
        if taken + size > self._quota:
            message = f"uploads may take {self._quota} bytes together, and waiting jobs take {taken}; try again later"
            raise RequestRefused(429, "quota_exceeded", message, RETRY_SECONDS)
