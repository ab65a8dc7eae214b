"""Listens: uvicorn around the application, which ends with exit code 0 when it is stopped."""

from __future__ import annotations

import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import uvicorn

from enclap.serving.connections import server_config
from enclap.serving.http import build_app
from enclap.serving.job_runner import JobRunner
from enclap.serving.recordings import CaptionService

OPEN_FILES = 65_536  # wanted: a connection is a file


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how a server listens; grace: seconds that running requests get when it is stopped."""

    host: str = "127.0.0.1"
    port: int = 8000
    grace: int = 30
    certificate: str | None = None
    key: str | None = None
    with_page: bool = True
    log_requests: bool = False


class AnnouncingServer(uvicorn.Server):
    """A server that says when it listens, and where: port 0 lets the system choose."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_listening(self.servers[0].sockets[0].getsockname()[1])


class _Server(AnnouncingServer):
    """The server of captions, which drains its queue before it ends."""

    def __init__(self, config: uvicorn.Config, service: CaptionService, on_listening: Callable[[int], None]) -> None:
        super().__init__(config, on_listening)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new requests, not even over connections that are open, and wait for those that run."""
        self._service.drain()
        await super().shutdown(sockets)


def serve(
    service: CaptionService, runner: JobRunner, listening: Listening, on_listening: Callable[[int], None]
) -> None:
    """Listen until SIGTERM or SIGINT; running requests get `grace` seconds to end.

    service: started, its model is warm. on_listening: called with the port as soon as requests are taken.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(OPEN_FILES, hard)), hard))
    # uvicorn raises the signal again when it has stopped; a server that was stopped ends with exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with ExitStack() as started:
        started.callback(service.stop)
        runner.start()
        started.callback(runner.stop)
        config = server_config(
            build_app(service, runner, with_page=listening.with_page, log_requests=listening.log_requests),
            host=listening.host,
            port=listening.port,
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
            timeout_graceful_shutdown=listening.grace,
        )
        _Server(config, service, on_listening).run()
