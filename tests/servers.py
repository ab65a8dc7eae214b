"""Servers on loopback for tests, each in a thread of its own, and the engines behind them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import uvicorn

from enclap.captioner import Captioner
from enclap.serving.connections import server_config
from enclap.serving.http import build_app
from enclap.serving.job_runner import JobRunner
from enclap.serving.recordings import CaptionService
from enclap.serving.settings import ServeSettings
from enclap.types import Features, Window
from fakes import EchoEngine

PATIENCE = 20.0  # seconds for what takes milliseconds, on a machine that is busy


@dataclass
class Running:
    """A server that listens: its address, and what it is made of."""

    url: str
    service: CaptionService
    runner: JobRunner
    client: httpx2.Client = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str = "/v1/captions", **content: Any) -> httpx2.Response:
        return self.client.post(path, **content)


@contextmanager
def running(
    captioner: Captioner,
    settings: ServeSettings | None = None,
    folder: Path | None = None,
    quota: int = 2**30,
    *,
    with_page: bool = False,
) -> Iterator[Running]:
    """A server over the captioner, which ends with the block; its jobs are kept in `folder`, or forgotten."""
    with ExitStack() as started:
        service = CaptionService(captioner, settings or ServeSettings())
        service.start()
        started.callback(service.stop)
        runner = JobRunner(service, folder or Path(started.enter_context(TemporaryDirectory())), quota, 3600.0)
        runner.start()
        started.callback(runner.stop)
        yield from _listening(service, runner, with_page)


def _listening(service: CaptionService, runner: JobRunner, with_page: bool) -> Iterator[Running]:
    config = server_config(build_app(service, runner, with_page=with_page), port=0, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            yield Running(url, service, runner, client)
    finally:
        service.drain()
        server.should_exit = True
        thread.join()


class GatedEngine(EchoEngine):
    """An engine whose batches wait until the test lets them through, one by one or all."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(1)  # the warm-up
        self.entered = threading.Semaphore(0)
        self.is_open = False

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        self.entered.release()
        if not self.is_open:
            assert self.permits.acquire(timeout=PATIENCE), "nobody let the batch through"
        return super().extract(windows)

    def let_all_through(self) -> None:
        self.is_open = True
        self.permits.release()
