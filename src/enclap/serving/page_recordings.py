"""The recordings of the page, dropped or made with the microphone: kept for an hour, under ids that nobody guesses."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import wave
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from enclap.audio.source import ReadLimits
from enclap.captioner import SHORTEST_WINDOW, Captioner
from enclap.errors import AudioEmpty
from enclap.files import require_room
from enclap.serving.page_pictures import Outline
from enclap.serving.problems import RequestRefused
from enclap.serving.recordings import NamedFile
from enclap.serving.settings import HIGHEST_RATE, ServeSettings
from enclap.types import CaptionResult, Waveform, Window

RECORDINGS = "/page/recordings"  # below which the page sends them and asks for them
KEPT_SECONDS = 3600.0  # after a recording came
LINGER_SECONDS = 30.0  # after it was forgotten
QUOTA = 4 * 2**30  # bytes of all recordings together
UNHEARD_SECONDS = 60.0  # that a microphone may send nothing; then its recording has ended
LOWEST_RATE = 8000  # Hz, of a microphone
HEADER_BYTES, SAMPLE_BYTES = 44, 2  # of the files that `wave` writes


class LiveSound:
    """Sound that is written while it is read: 16-bit mono samples in a WAV file, which is complete after `end`."""

    def __init__(self, path: Path, rate: int, limits: ReadLimits) -> None:
        self.path = path
        self.rate = rate
        self._most = min(int(limits.seconds * rate) * SAMPLE_BYTES, limits.bytes - HEADER_BYTES)
        self._file = path.open("xb", buffering=0)  # what is written can be read at once
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115 - `end` closes it
        self._wave.setnchannels(1)
        self._wave.setsampwidth(SAMPLE_BYTES)
        self._wave.setframerate(rate)
        self._wave.writeframesraw(b"")
        self._bytes = 0
        self.has_ended = False
        self._changed = threading.Condition()

    def append(self, at: int, piece: bytes) -> int:
        """Bytes that are there afterwards; what has come before is passed over, so that a piece may be sent again.

        at: bytes before the piece. Raises RequestRefused for sound that does not follow, or is too much.
        """
        with self._changed:
            if self.has_ended:
                raise RequestRefused(409, "recording_ended", "this recording has ended; begin another one")
            if not 0 <= at <= self._bytes or (at + len(piece)) % SAMPLE_BYTES:
                raise RequestRefused(409, "sound_missing", f"sound is missing: {self._bytes} bytes are here; send on")
            fresh = piece[self._bytes - at :]
            if self._bytes + len(fresh) > self._most:
                self._end()
                longest = self._most / SAMPLE_BYTES / self.rate
                raise RequestRefused(413, "too_large", f"a recording has {longest:.0f} s at most; it ends here")
            self._wave.writeframesraw(fresh)
            self._bytes += len(fresh)
            self._changed.notify_all()
            return self._bytes

    def end(self) -> None:
        """Nothing is added any more."""
        with self._changed:
            self._end()

    def wait_for(self, samples: int) -> int:
        """`samples`, as soon as so many are there, or the fewer that there are at the end."""
        with self._changed:
            while self._bytes < samples * SAMPLE_BYTES and not self.has_ended:
                before = self._bytes
                if not self._changed.wait(UNHEARD_SECONDS) and self._bytes == before:
                    self._end()
            return min(samples, self._bytes // SAMPLE_BYTES)

    def _end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._wave.close()  # writes the length into the header
            self._file.close()
            self._changed.notify_all()


class LiveFile(NamedFile):
    """The sound of a microphone, whose windows come as soon as they are recorded."""

    def __init__(self, file: BinaryIO, name: str, sound: LiveSound) -> None:
        super().__init__(file, name)
        self._sound = sound

    def windows(
        self, captioner: Captioner, seconds: float, limits: ReadLimits
    ) -> Generator[tuple[Window, float | None], None, None]:
        """Windows of `seconds`, and of the rest at the end; the float32 samples that the finished file decodes to."""
        rate = self._sound.rate
        start, size = 0, round(seconds * rate)
        self.seek(HEADER_BYTES)
        while (end := self._sound.wait_for(start + size)) - start >= (SHORTEST_WINDOW * rate if start else 1):
            samples = np.frombuffer(self.read((end - start) * SAMPLE_BYTES), "<i2").astype(np.float32) / np.float32(
                2**15
            )
            yield Window(Waveform(samples, rate), start / rate, end / rate), None
            start = end
        if not start:
            raise AudioEmpty(f"{self.name}: no sound came from the microphone; record again")


@dataclass(eq=False, slots=True)
class PageRecording:
    """A recording of the page.

    owner: whose key it came with. size: in bytes. outline: its waveform, once it was drawn. run: the latest captioning
    of it. rows: that one's captions so far, as the page shows them. result: its captions, once all are there.
    """

    id: str
    owner: str | None
    name: str
    path: Path
    size: int = 0
    sound: LiveSound | None = None
    outline: Outline | None = None
    run: str = ""
    rows: list[str] = field(default_factory=list)
    result: CaptionResult | None = None

    def opened(self) -> NamedFile:
        """The recording for a reader; while it is being recorded, its `windows` wait for what is not there yet."""
        file = self.path.open("rb")
        if self.sound is None or self.sound.has_ended:
            return NamedFile(file, self.name)
        return LiveFile(file, self.name, self.sound)

    @property
    def is_live(self) -> bool:
        """Whether more sound comes."""
        return self.sound is not None and not self.sound.has_ended

    def end(self) -> None:
        """No more sound comes from the microphone."""
        if self.sound is not None:
            self.sound.end()


class PageRecordings:
    """All recordings of the page, in a folder that goes with the process. Used on the event loop alone."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="enclap-page-", ignore_cleanup_errors=True)
        self._recordings: dict[str, PageRecording] = {}

    async def append(self, recording: PageRecording, at: int, piece: bytes) -> int:
        """Add sound to a recording of the microphone; see `LiveSound.append`."""
        if recording.sound is None:
            raise RequestRefused(409, "recording_ended", "this recording is complete; begin another one")
        self._require_room(len(piece))
        recording.size = await asyncio.to_thread(recording.sound.append, at, piece)
        return recording.size

    async def receive(self, name: str, owner: str | None, pieces: AsyncIterator[bytes]) -> PageRecording:
        """The recording that is sent, once it is on the disk; RequestRefused when there is no room for it."""
        recording = self._new(name, owner)
        try:
            with recording.path.open("xb") as file:
                async for piece in pieces:
                    self._require_room(len(piece))
                    recording.size += len(piece)
                    await asyncio.to_thread(file.write, piece)
        except BaseException:
            del self._recordings[recording.id]
            recording.path.unlink(missing_ok=True)
            raise
        return recording

    def begin(self, name: str, owner: str | None, rate: int) -> PageRecording:
        """A recording whose sound follows piece by piece, `rate` samples per second."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise RequestRefused(400, "invalid_option", f"{rate} Hz: a microphone has {LOWEST_RATE} to {HIGHEST_RATE}")
        self._require_room(0)
        recording = self._new(name, owner)
        recording.sound = LiveSound(recording.path, rate, self._settings.read_limits)
        return recording

    def find(self, id: str, owner: str | None) -> PageRecording:
        """The recording; RequestRefused when it is not here, or came with another key."""
        recording = self._recordings.get(id)
        if recording is None or recording.owner != owner:
            raise RequestRefused(404, "recording_gone", "this recording is no longer here; drop it or record it again")
        return recording

    def forget(self, id: str, owner: str | None) -> None:
        """Remove a recording that its owner has replaced; another one's, or none, is left alone."""
        recording = self._recordings.get(id)
        if recording is not None and recording.owner == owner:
            self.remove(recording)

    def remove(self, recording: PageRecording) -> None:
        """Forget it; whoever is about to read it has time to open the file."""
        self._recordings.pop(recording.id, None)
        recording.end()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, recording.path.unlink, True)

    def _new(self, name: str, owner: str | None) -> PageRecording:
        id = secrets.token_urlsafe(16)
        recording = self._recordings[id] = PageRecording(id, owner, name, Path(self._folder.name, id))
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._expire, recording)
        return recording

    def _expire(self, recording: PageRecording) -> None:
        if not recording.is_live:
            self.remove(recording)
        else:
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._expire, recording)

    def _require_room(self, size: int) -> None:
        if size + sum(recording.size for recording in self._recordings.values()) > QUOTA:
            raise RequestRefused(429, "quota_exceeded", "no room for more recordings now; try again later", 60)
        require_room(Path(self._folder.name), size, "a recording")
