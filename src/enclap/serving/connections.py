"""How uvicorn listens, for every server here; a connection on which nothing is asked is closed after a while."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0  # in which a connection must bring the head of a request, the first and each later one


class PunctualProtocol(H11Protocol):
    """uvicorn's protocol, which by itself waits for ever for the first request: each silent client keeps a file open.

    Its own limit between two requests ends with the first byte of the second one.
    """

    _head_is_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is due."""
        super().connection_made(transport)
        self._expect_head()

    def on_response_complete(self) -> None:
        """The next head is due, unless it has come already."""
        super().on_response_complete()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        if self._head_is_due is not None:
            self._head_is_due.cancel()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_is_due is not None:
            self._head_is_due.cancel()
        self._head_is_due = self.loop.call_later(HEAD_SECONDS, self.close_unless_asked)

    def close_unless_asked(self) -> None:
        """The time for the next head is over: close, unless a request is being answered."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def server_config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration for one of our applications; options: those that differ between them."""
    return uvicorn.Config(
        app,
        http=PunctualProtocol,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        **options,
    )
