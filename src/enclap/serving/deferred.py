"""Parts of the application whose libraries take a second or more to load: after the first requests are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from enclap.serving.problems import RequestRefused

logger = logging.getLogger("enclap.serving")

LOAD_AFTER_SECONDS = 1.0


class Deferred:
    """An application that `build` makes in a thread: as soon as it is asked for, or some time after the start.

    Requests that come before it is there wait for it.
    """

    def __init__(self, build: Callable[[], Starlette]) -> None:
        self._build = build
        self._app: Starlette | None = None
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; RequestRefused when the part could not be loaded."""
        self._wanted.set()
        await self._settled.wait()
        if self._app is None:
            raise RequestRefused(503, "not_available", "this part of the server could not be loaded; its log says why")
        await self._app(scope, receive, send)

    async def run(self, stopping: asyncio.Event) -> None:
        """Load the part and keep it alive until the server stops."""
        # Loading takes a processor: whoever waits for a first caption comes first.
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._wanted, stopping)]
        await asyncio.wait(waiting, timeout=LOAD_AFTER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if stopping.is_set():
            self._settled.set()
            return
        try:
            app = await asyncio.to_thread(self._build)
            async with app.router.lifespan_context(app):
                self._app = app
                self._settled.set()
                await stopping.wait()
        except Exception:
            logger.exception("a part of the server cannot be loaded; the others go on")
            self._settled.set()


@asynccontextmanager
async def running(parts: Sequence[Deferred]) -> AsyncIterator[None]:
    """Loads the parts beside the block, and ends them with it."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.run(stopping))
        try:
            yield
        finally:
            stopping.set()
