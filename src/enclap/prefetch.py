"""Work that runs ahead of the one who uses its results: decoding beside the model, one batch beside the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

CLOSING_SECONDS = 1.0
"""To wait, when no more items are wanted, for a read that may never return."""


class Prefetcher(Iterator[Item], Generic[Item]):
    """The items of a generator, in order, made by a thread of its own that is at most `depth` items ahead.

    What the generator raises is raised here, after the items that came before it. Call `stop` and `join` when no
    more items are wanted; then the generator is closed, by the thread that ran it.
    """

    def __init__(self, items: Generator[Item, None, None], depth: int) -> None:
        self._items = items
        self._depth = depth
        self._ready: deque[Item] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._ended = False
        self._error: BaseException | None = None
        # A daemon: a read that never returns (a pipe that nobody writes to) must not keep the process alive.
        self._thread = threading.Thread(target=self._walk, name="enclap-prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._stopped)
            if self._stopped:
                raise StopIteration
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def stop(self) -> None:
        """Ask for no more items; whoever waits for one gets StopIteration."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()

    def join(self, patience: float | None = None) -> None:
        """Wait until the thread has ended, at most `patience` seconds."""
        self._thread.join(patience)

    def _walk(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._stopped)
                    if self._stopped:
                        break
                    self._ready.append(item)
                    self._changed.notify_all()
            self._items.close()
        except BaseException as error:  # raised again where the items are used
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def in_turn(parts: Iterable[Iterator[Item]], together: int) -> Generator[Item, None, None]:
    """The items of each part, one part after the other; `together` parts are taken from `parts` at a time.

    A part that is a Prefetcher makes its items from when it is taken. Those that are not walked to their end are
    stopped, or closed, when this generator is.
    """
    held: deque[Iterator[Item]] = deque()
    try:
        for part in parts:
            held.append(part)
            if len(held) == together:
                yield from held[0]
                held.popleft()
        while held:
            yield from held[0]
            held.popleft()
    finally:
        running = [part for part in held if isinstance(part, Prefetcher)]
        for part in running:
            part.stop()
        for part in running:
            part.join(CLOSING_SECONDS)
        for part in held:
            if isinstance(part, Generator):
                part.close()
