"""Who gets the processor's cores: all of them one clip, operator by operator, or each of them clips of its own.

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

ENOUGH = 2
"""Clips per core from which each core gets its own."""
PATIENCE = 2
"""Calls in a row that must want the other way before it is taken: a session is bound to its number of threads, so the
networks are loaded again. The last, short batch of a folder is not worth that."""


class CoreSharing:
    """The way in which the calls of an engine share `cores` cores."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._apart: bool | None = None
        self._contrary = 0

    def workers(self, clips: int) -> int:
        """How many threads shall work side by side at a call of so many clips, with `cores` / workers cores each."""
        wanted = clips >= ENOUGH * self.cores
        self._contrary = 0 if wanted == self._apart else self._contrary + 1
        if self._apart is None or self._contrary == PATIENCE:
            self._apart, self._contrary = wanted, 0
        return self.cores if self._apart else 1


class Cancelled(Exception):
    """Raised within work whose result nobody waits for any more."""


class CancelToken:
    """Whether a call's results are still waited for: other parts have not failed and the caller was not interrupted."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def end(self) -> None:
        """From now on `check` raises Cancelled."""
        self._ended.set()

    def check(self) -> None:
        """To be called between operations that take long."""
        if self._ended.is_set():
            raise Cancelled


def side_by_side(run: Callable[[Part, CancelToken], Result], parts: Sequence[Part], workers: int) -> list[Result]:
    """The results of `run` for each part, in order, computed by so many threads; the first failure is raised."""
    wanted = CancelToken()
    if workers == 1 or len(parts) == 1:
        return [run(part, wanted) for part in parts]
    with ThreadPoolExecutor(workers, "enclap-core") as pool:
        futures = [pool.submit(run, part, wanted) for part in parts]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            wanted.end()
            pool.shutdown(cancel_futures=True)
            raise
