"""Recordings -> captions, window by window, for code that runs on an event loop or in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, cast

from enclap.audio.read import Source
from enclap.audio.source import ReadLimits
from enclap.captioner import Captioner
from enclap.decoding.options import DecodingOptions
from enclap.serving.metrics import Metrics
from enclap.serving.model_worker import ModelWorker
from enclap.serving.problems import RequestRefused
from enclap.serving.settings import ServeSettings
from enclap.serving.window_queue import EndOfRecording, WindowStream
from enclap.types import Caption, CaptionResult, Window

RETRY_SECONDS = 1  # at least, for a client that was refused
BACKGROUND_READERS = 2  # beside one for each place in the queue: jobs


class NamedFile:
    """A binary file under the name that a client gave it: what messages and results call it."""

    def __init__(self, file: BinaryIO, name: str | None) -> None:
        self.name = name
        self.is_read = False  # whoever reads it closes it
        self.declared_seconds: float | None = None  # known when its first window is
        self.read, self.seek, self.tell, self.close = file.read, file.seek, file.tell, file.close

    def seekable(self) -> bool:
        """True: uploads are whole when they are read."""
        return True

    def windows(
        self, captioner: Captioner, seconds: float, limits: ReadLimits
    ) -> Generator[tuple[Window, float | None], None, None]:
        """The windows of the recording in order, and the length that it declares; see `Captioner.windows`."""
        return captioner.windows(self.source, seconds, limits)

    @property
    def source(self) -> Source:
        """The file as the reader takes it."""
        return cast(BinaryIO, self)


@dataclass(frozen=True, slots=True)
class Settings:
    """How one recording is to be captioned; see `Captioner.caption`."""

    options: DecodingOptions
    window: float


class CaptionService:
    """One loaded model, shared by all requests.

    Reading happens in threads of their own, the model in the worker's; nothing here blocks an event loop.
    """

    def __init__(self, captioner: Captioner, settings: ServeSettings, model: str | None = None) -> None:
        self.captioner = captioner
        self.model = captioner.model if model is None else model
        self.settings = settings
        self.metrics = Metrics()
        self.worker = ModelWorker(captioner, self.metrics)
        self.is_ready = False
        self._active = 0
        self._readers = ThreadPoolExecutor(settings.queue + BACKGROUND_READERS, "enclap-read")

    def start(self) -> None:
        """Load and warm up the model; afterwards requests are taken."""
        self.worker.start()
        self.is_ready = True

    def drain(self) -> None:
        """Take no more requests; those that run go on."""
        self.is_ready = False

    def stop(self) -> None:
        """Take no more requests and end all threads."""
        self.drain()
        self.worker.stop()
        self._readers.shutdown(cancel_futures=True)

    def check(self, settings: Settings) -> None:
        """Raises UsageError or ModelError when the model cannot caption with these settings."""
        self.captioner.check_window(settings.window)
        try:
            self.captioner.check_rerank(settings.options)
        except Exception as error:  # a fault of the request here, not of the server
            raise RequestRefused(400, "rerank_not_available", f"{self.model}: {error}") from error

    @property
    def active(self) -> int:
        """Requests that are captioned or wait for it."""
        return self._active

    @property
    def has_room(self) -> bool:
        """Whether one more request would be taken."""
        return self._active < self.settings.queue

    def enter(self) -> None:
        """Take a place in the queue, until `leave`; RequestRefused when all are taken."""
        if not self.is_ready:
            raise RequestRefused(503, "stopping", "the server is stopping; try again later")
        if not self.has_room:
            raise self.full()
        self._active += 1
        self.metrics.active.set(self._active)

    def leave(self) -> None:
        """Give the place back."""
        self._active -= 1
        self.metrics.active.set(self._active)

    def full(self) -> RequestRefused:
        """The answer to a request that finds no place."""
        self.metrics.refused.inc()
        taken = f"{self.settings.queue} requests are in work, the most that this server takes"
        return RequestRefused(429, "queue_full", f"{taken}; try again", RETRY_SECONDS + self._active // 16)

    async def stream(self, recording: NamedFile, settings: Settings) -> AsyncGenerator[Caption, None]:
        """The captions of a recording, each as soon as the model has it.

        Raises the InputError of a recording that cannot be captioned. Closing the generator stops the work.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Caption | EndOfRecording] = asyncio.Queue()

        def deliver(item: Caption | EndOfRecording) -> None:
            loop.call_soon_threadsafe(found.put_nowait, item)

        stream = self.begin(recording, settings, deliver)
        try:
            while not isinstance(item := await found.get(), EndOfRecording):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self.end(stream)

    async def caption(self, recording: NamedFile, settings: Settings) -> CaptionResult:
        """All captions of a recording; raises what `stream` raises."""
        captions = [caption async for caption in self.stream(recording, settings)]
        return CaptionResult(recording.name, captions[-1].end, tuple(captions))

    def begin(
        self,
        recording: NamedFile,
        settings: Settings,
        deliver: Callable[[Caption | EndOfRecording], None],
        skip: int = 0,
    ) -> WindowStream:
        """A stream whose recording is being read by a thread from now on, and closed by it; `end` it.

        deliver: called from another thread with each caption in order, then with the end. skip: windows at the start
        that need no caption.
        """
        stream, windows = WindowStream(recording.name, settings.options, deliver), self.worker.windows

        def read() -> None:
            try:
                pieces = recording.windows(self.captioner, settings.window, self.settings.read_limits)
                with closing(pieces):
                    for number, (piece, recording.declared_seconds) in enumerate(pieces):
                        if number >= skip and not windows.put(stream, piece):
                            return
                windows.put(stream, EndOfRecording())
            except Exception as error:  # raised where the captions are awaited
                windows.put(stream, EndOfRecording(error))
            finally:
                recording.close()

        windows.open(stream)
        recording.is_read = True
        self._readers.submit(read)
        return stream

    def end(self, stream: WindowStream) -> None:
        """Nobody wants the captions of the stream any more: its work is stopped."""
        self.worker.windows.close(stream)
