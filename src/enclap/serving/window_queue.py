"""Windows of all requests on their way to the model: bounded in memory, taken in turn, in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from enclap.audio.window import DEFAULT_WINDOW
from enclap.decoding.options import DecodingOptions
from enclap.types import Caption, Window

MOST_WAITING = 0.02  # seconds that a batch waits for windows that are on their way
HELD_SAMPLES = 2**26  # of all windows that wait: 256 MB


@dataclass(frozen=True, slots=True)
class EndOfRecording:
    """What comes after the last caption of a recording; error says why there are no more, None that it is complete."""

    error: Exception | None = None


@dataclass(eq=False, slots=True)
class WindowStream:
    """One recording on its way through the model.

    name: of the recording, for messages. deliver: called by the model's threads with each caption in order, then with
    the end; must not block. pending: windows that wait, then the end. is_closed: nobody wants its captions any more.
    """

    name: str | None
    options: DecodingOptions
    deliver: Callable[[Caption | EndOfRecording], None]
    pending: deque[Window | EndOfRecording] = field(default_factory=deque)
    is_closed: bool = False


class WindowQueue:
    """Streams whose windows wait; readers put them in, one thread takes batches out.

    most_waiting: seconds that a batch waits for windows that are on their way.
    """

    def __init__(self, batch_size: int, most_waiting: float = MOST_WAITING) -> None:
        self._size = batch_size
        self._most_waiting = most_waiting
        self._streams: deque[WindowStream] = deque()  # the one whose turn is next stands first
        self._held = 0  # samples that wait
        self._changed = threading.Condition()
        self._stopped = False

    def open(self, stream: WindowStream) -> None:
        """From now on windows of the stream are expected, until its end or `close`."""
        with self._changed:
            self._streams.append(stream)

    def put(self, stream: WindowStream, item: Window | EndOfRecording) -> bool:
        """Whether the item is still wanted; waits while too much is waiting."""
        size, most = _samples(item), 2 * self._size

        def settled() -> bool:  # a stream may always have one item waiting, whatever the others have: each goes on
            has_room = not stream.pending or (len(stream.pending) < most and self._held + size <= HELD_SAMPLES)
            return has_room or stream.is_closed or self._stopped

        with self._changed:
            self._changed.wait_for(settled)
            if stream.is_closed or self._stopped:
                return False
            stream.pending.append(item)
            self._held += size
            self._changed.notify_all()
        return True

    def close(self, stream: WindowStream) -> None:
        """Nobody wants the stream's captions any more: what waits is dropped, `put` returns False."""
        with self._changed:
            stream.is_closed = True
            self._held -= sum(map(_samples, stream.pending))
            stream.pending.clear()
            if stream in self._streams:
                self._streams.remove(stream)
            self._changed.notify_all()

    def stop(self) -> list[WindowStream]:
        """The streams whose end was not given out; nothing is given out any more, and whoever waits goes on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            return list(self._streams)

    def next_batch(self) -> list[tuple[WindowStream, Window | EndOfRecording]]:
        """Windows and ends of all streams, one of each in turn; waits for the first, empty after `stop`.

        A batch waits up to 20 ms for streams that are being read and have nothing waiting; a lone one does not wait.
        """
        batch: list[tuple[WindowStream, Window | EndOfRecording]] = []

        def more_may_come() -> bool:
            waiting = sum(len(stream.pending) for stream in self._streams)
            return waiting < self._size and any(not stream.pending for stream in self._streams)

        with self._changed:
            while not batch and not self._stopped:
                self._changed.wait_for(lambda: self._stopped or any(stream.pending for stream in self._streams))
                until = time.monotonic() + self._most_waiting
                while not self._stopped and more_may_come() and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                batch = self._take_batch()
            self._changed.notify_all()
        return batch

    def _take_batch(self) -> list[tuple[WindowStream, Window | EndOfRecording]]:
        batch: list[tuple[WindowStream, Window | EndOfRecording]] = []
        windows, seconds = 0, 0.0
        while not self._stopped and windows < self._size and seconds < self._size * DEFAULT_WINDOW:
            stream = next((stream for stream in self._streams if stream.pending), None)
            if stream is None:
                break
            item = stream.pending.popleft()
            batch.append((stream, item))
            self._held -= _samples(item)
            self._streams.remove(stream)
            if isinstance(item, Window):
                self._streams.append(stream)  # to the end of the line; after its end it is out of it
                windows, seconds = windows + 1, seconds + item.waveform.seconds
        return batch


def _samples(item: Window | EndOfRecording) -> int:
    return len(item.waveform.samples) if isinstance(item, Window) else 0
