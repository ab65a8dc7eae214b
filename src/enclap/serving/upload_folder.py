"""The folder in which the recordings of jobs wait to be captioned."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from enclap.files import require_room
from enclap.serving.problems import RequestRefused
from enclap.serving.recordings import NamedFile

COPY_BYTES = 2**20


class UploadFolder:
    """A file for each job, under the job's id. quota: bytes of all that wait."""

    def __init__(self, folder: Path, quota: int) -> None:
        self.folder = folder
        self._quota = quota

    def path(self, id: str) -> Path:
        """Where the recording of a job is, or would be."""
        return self.folder / id

    def keep(self, id: str, recording: NamedFile) -> tuple[int, str]:
        """Size and SHA-256 of the recording, which is on the disk afterwards; RequestRefused when there is no room."""
        size = recording.seek(0, os.SEEK_END)
        recording.seek(0)
        waiting = sum(path.stat().st_size for path in self.folder.iterdir())
        if waiting + size > self._quota:
            message = f"the uploads of waiting jobs take {waiting} bytes, {self._quota} are the most; try again later"
            raise RequestRefused(429, "quota_exceeded", message, 60)
        require_room(self.folder, size, "an upload")
        digest = hashlib.sha256()
        with self.path(id).open("xb") as file:
            while piece := recording.read(COPY_BYTES):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return size, digest.hexdigest()

    def remove(self, id: str) -> None:
        """Remove the recording of a job, if it is there."""
        self.path(id).unlink(missing_ok=True)

    def remove_others(self, ids: Collection[str]) -> None:
        """Remove the recordings of all jobs but these."""
        for path in self.folder.iterdir():
            if path.name not in ids:
                path.unlink(missing_ok=True)
