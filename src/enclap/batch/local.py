"""The stages in processes of this machine: each has the model loaded once, and takes a shard after the other.

A worker that dies gives its shards back, and another one starts; a worker whose driver dies ends by itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from enclap import errors
from enclap.batch.decode import Decoded, DecodedWindow, Position, decode_slice
from enclap.batch.listing import Listing
from enclap.batch.shards import ShardPaths, ShardReport, ShardWriter, read_report
from enclap.batch.work import ModelRun, Work
from enclap.captioner import Captioner
from enclap.errors import EnclapError, EnvironmentFault
from enclap.prefetch import Prefetcher

CPU_TOGETHER, GPU_TOGETHER = 16, 64
"""Windows in a batch that a worker is given; its engine may divide them further."""
MOST_DEATHS = 3
"""Of workers while they hold one shard, before the run gives up: a recording may bring its reader down each time."""
PATIENCE = 5.0  # seconds for a worker that is asked to end


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run is given; see `ShardWriter`.

    devices: one for each worker, as "cuda" or "cuda:1". together: items and windows that go through the stages as one.
    """

    listing: str
    work: Work
    paths: ShardPaths
    settings: str
    model: ModelRun
    strict: bool = False
    devices: tuple[str, ...] = ("auto",)
    together: int = CPU_TOGETHER


@dataclass(frozen=True, slots=True)
class Fault:
    """An EnclapError on its way from a worker to the driver, and its class by name."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: EnclapError) -> Fault:
        """The fault of an error."""
        kind = type(error).__name__
        return cls(kind if kind != errors.MissingExtra.__name__ else EnvironmentFault.__name__, str(error))

    def error(self) -> EnclapError:
        """The error, to be raised."""
        found: EnclapError = getattr(errors, self.kind, EnvironmentFault)(self.message)
        return found


def on_accelerator(device: str) -> bool:
    """Whether a device is an accelerator, or may be one: `auto` on a machine that seems to have a GPU."""
    name = device.partition(":")[0]
    return name in ("cuda", "mps") or (name == "auto" and any(map(os.path.exists, ("/dev/nvidia0", "/dev/kfd"))))


def batched(runs: Iterable[list[Decoded]], captioner: Captioner) -> Iterator[list[Decoded]]:
    """Each run of events, cut into pieces of as many windows as the engine takes together."""
    for run in runs:
        batch: list[Decoded] = []
        windows = 0
        for event in run:
            batch.append(event)
            windows += isinstance(event, DecodedWindow)
            if windows == captioner.engine.windows_together:
                yield batch
                batch, windows = [], 0
        if batch:
            yield batch


def run_shards(
    job: Job, captioner: Captioner, listing: Listing, shards: Iterator[int]
) -> Generator[ShardReport, None, None]:
    """Go through the shards, one after the other, in this process; decoding runs ahead of the model."""

    def decoded() -> Generator[list[Decoded], None, None]:
        for shard in shards:
            items = listing.items(shard)
            for place in range(0, len(items), job.together):
                part = items[place : place + job.together]
                yield from decode_slice(Position(shard, place), part, job.work.window, job.together)

    writer = ShardWriter(listing, job.work, job.paths, job.settings, strict=job.strict)
    ahead = Prefetcher(decoded(), 1)
    try:
        for parts in job.work.parts(captioner, batched(ahead, captioner)):
            yield from writer.add(parts)
    finally:
        ahead.stop()
        ahead.join(1.0)


def run_locally(job: Job, listing: Listing, shards: Sequence[int]) -> Generator[ShardReport, None, None]:
    """The reports of these shards as they are written, by a process for each device of the job.

    Raises the EnclapError that stopped a worker, and EnvironmentFault when workers die again and again.
    """
    waiting, deaths = deque(shards), Counter[int]()
    workers = [_Worker(job, device) for device in job.devices[: max(1, len(shards))]]
    left = len(shards)
    try:
        while left:
            for handle in wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is handle)
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    written = list(written_shards(job, listing, worker.shards))  # but not told any more
                    left -= len(written)
                    yield from written
                    lost = [shard for shard in worker.shards if shard not in {report.shard for report in written}]
                    waiting.extendleft(reversed(lost))
                    deaths.update(lost or [-1])
                    if max(deaths.values()) >= MOST_DEATHS:
                        raise EnvironmentFault(worker.last_words(listing)) from None
                    workers[workers.index(worker)] = _Worker(job, worker.device)
                    continue
                if isinstance(message, Fault):
                    raise message.error()
                if isinstance(message, ShardReport):
                    worker.shards.remove(message.shard)
                    left -= 1
                    yield message
                else:
                    worker.give(waiting.popleft() if waiting else None)
    finally:
        for worker in workers:
            worker.end()


def written_shards(job: Job, listing: Listing, shards: Sequence[int]) -> Iterator[ShardReport]:
    """The reports of those of the shards that stand whole in their files, made of these recordings and settings."""
    for shard in shards:
        with suppress(ValueError):
            report, key, settings = read_report(job.paths.path(shard))
            if (key, settings) == (listing.key(shard), job.settings):
                yield report


class _Worker:
    """A process that takes shards, as the driver sees it. shards: those that it was given and has not written."""

    def __init__(self, job: Job, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.device = device
        self.shards: list[int] = []
        job = replace(job, model=replace(job.model, device=device))
        self._process = context.Process(target=work_for_driver, args=(job, other), name=f"enclap-{device}")
        self._process.start()
        other.close()

    def give(self, shard: int | None) -> None:
        """Answer that this shard is next, or that there is none now."""
        if shard is not None:
            self.shards.append(shard)
        with suppress(OSError):  # it has died, which its pipe will say
            self.pipe.send(shard)

    def last_words(self, listing: Listing) -> str:
        """What is known of a worker that died, in one line."""
        self._process.join(PATIENCE)
        code = self._process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        where = f"shard {self.shards[0]}, from {listing.items(self.shards[0])[0].id} on" if self.shards else "its start"
        return f"a worker ended {MOST_DEATHS} times ({how}) at {where}; too little memory, or a file that ends it"

    def end(self) -> None:
        """Have the process end, now."""
        self.pipe.close()
        self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def work_for_driver(job: Job, pipe: Connection[Any, Any]) -> None:
    """The life of a worker: load the model, ask for shards until there are no more, send reports."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the driver ends this one
    threading.Thread(target=end_with_driver, daemon=True).start()
    logging.getLogger("enclap").setLevel(logging.ERROR)  # a line for each odd file would be millions

    sending = threading.Lock()  # the thread that decodes asks, this one reports

    def send(message: ShardReport | Fault | None) -> None:
        with sending:
            pipe.send(message)

    def asked() -> Iterator[int]:
        while True:
            send(None)
            shard = pipe.recv()
            if shard is None:
                return
            yield shard

    try:
        captioner = job.work.load(job.model)
        listing = Listing(job.paths.folder / job.listing)
        with closing(run_shards(job, captioner, listing, asked())) as reports:
            for report in reports:
                send(report)
    except EnclapError as error:
        send(Fault.of(error))
    except (EOFError, BrokenPipeError):
        return  # the driver has gone
    threading.Event().wait()  # until the driver ends this process: it alone knows whether shards come back


def end_with_driver() -> None:
    """Wait for the driver to end, however it does, and end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
