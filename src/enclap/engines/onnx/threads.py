"""How a call's clips share the processor: all cores at one batch, operator by operator, or each core at its own batch.

Two cores at one operator wait for each other a little at every operator, and a decoding step has hundreds. Where enough
clips are there, a core for each takes less work in all; a lone clip is done sooner by all cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

CLIPS_PER_CORE = 2
"""Clips per core from which each core gets its own batch."""
CALLS_BEFORE_CHANGE = 2
"""Calls in a row that must ask for the other way before it is taken: a session is bound to its number of threads, so
the networks are loaded again. The last, short batch of a folder is not worth that."""


class ThreadPolicy:
    """Decides for an engine's calls, one after the other, how many batches run at a time on `cores` cores."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._is_parallel: bool | None = None
        self._calls_against = 0

    def workers(self, clips: int) -> int:
        """Threads that each take a batch in a call of so many clips, with `cores` / workers cores each."""
        parallel = clips >= CLIPS_PER_CORE * self.cores
        self._calls_against = 0 if parallel == self._is_parallel else self._calls_against + 1
        if self._is_parallel is None or self._calls_against == CALLS_BEFORE_CHANGE:
            self._is_parallel, self._calls_against = parallel, 0
        return self.cores if self._is_parallel else 1


class Cancelled(Exception):
    """Raised inside work whose result nobody waits for any more."""


class CancelToken:
    """Tells the parts of one call to stop: another part has failed, or the caller was interrupted."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """From now on `check` raises Cancelled."""
        self._cancelled.set()

    def check(self) -> None:
        """Raises Cancelled after `cancel`; to be called between operations that take long."""
        if self._cancelled.is_set():
            raise Cancelled


def run_parallel(run: Callable[[Part, CancelToken], Result], parts: Sequence[Part], workers: int) -> list[Result]:
    """The results of `run` for each part, in order, computed by so many threads; the first failure is raised."""
    cancel = CancelToken()
    if workers == 1 or len(parts) <= 1:
        return [run(part, cancel) for part in parts]
    with ThreadPoolExecutor(workers, "enclap-core") as pool:
        futures = [pool.submit(run, part, cancel) for part in parts]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            cancel.cancel()
            pool.shutdown(cancel_futures=True)
            raise
