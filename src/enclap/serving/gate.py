"""What every request passes first, whatever it asks for: host, origin, key, rate and size, and what is logged of it.

Host and Origin are checked so that no page of another site reaches a server on this machine through a visitor's
browser: a rebound name (DNS rebinding) shows in Host, a request across sites in Origin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enclap.serving.access import SESSION_COOKIE, KeyRing, RateLimit, host_is_allowed, origin_is_allowed
from enclap.serving.problems import RequestRefused, problem_response
from enclap.serving.recordings import CaptionService
from enclap.serving.upload_folder import UploadFolder

logger = logging.getLogger("enclap.serving.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN_ROUTES = {"/healthz", "/readyz", "/login"}
QUEUED_ROUTES = {("POST", "/v1/captions"), ("POST", "/v1/audio/transcriptions")}
"""What takes a place in the queue: refused before its body is read when there is none."""

HEARTBEAT = "/heartbeat/"  # of Gradio: open as long as the page is
POLL_SECONDS = 0.5
IDLE_SECONDS = 30.0  # that an upload, or whoever reads an answer, may pause
DRAINED_BYTES, DRAINED_SECONDS = 4 * 2**20, 10.0
"""What is read of the body of a refused request: a connection that is closed before loses the answer."""


@dataclass(slots=True)
class _Exchange:
    """A request while it is answered, and the way back to its client.

    answered: when the answer began. refusal: why it is refused, whatever the routes say. is_gone: nobody reads what is
    sent.
    """

    scope: Scope
    headers: Headers
    to_client: Send
    request_id: str
    began: float
    received: int = 0
    status: int | None = None
    answered: float = 0.0
    refusal: RequestRefused | None = None
    is_gone: bool = False

    @property
    def path(self) -> str:
        """The path without the prefix under which a proxy serves the application."""
        path: str = self.scope["path"]
        return path.removeprefix(self.scope.get("root_path", "")) or "/"

    async def send(self, message: Message) -> None:
        """Pass a message on to the client, with the request id; the status is kept.

        Raises OSError when the client reads nothing for a while: it would keep its place in the queue for ever.
        """
        if message["type"] == "http.response.start":
            self.status, self.answered = message["status"], time.monotonic()
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers.setdefault("x-content-type-options", "nosniff")
        if self.is_gone:
            return
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self.to_client(message)
        except TimeoutError as error:
            self.is_gone = True
            raise OSError("the client reads nothing") from error

    async def refuse(self, error: RequestRefused, receive: Receive) -> None:
        """Answer at once; then read a little more of the body, so that the client has time to read the answer."""
        response = problem_response(error, self.request_id)
        headers = [*response.raw_headers, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self.send({"type": "http.response.body", "body": response.body, "more_body": True})
        drained, has_more = 0, True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAINED_SECONDS):
                while has_more and drained <= DRAINED_BYTES:
                    message = await receive()
                    drained += len(message.get("body", b""))
                    has_more = message.get("more_body", False)
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


class Gate:
    """The application behind the checks.

    service: for limits, figures and the queue. uploads: counts what is received. has_login: a form asks for the key.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: CaptionService,
        uploads: UploadFolder,
        keys: KeyRing,
        *,
        has_login: bool = False,
        log_requests: bool = False,
    ) -> None:
        self._app = app
        self._service = service
        self._uploads = uploads
        self._settings = service.settings
        self._keys = keys
        self._rate = RateLimit(service.settings.rate)
        self._has_login = has_login
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is no request (the start of the server) is passed on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if prefix := self._settings.root_path:  # in the path, as ASGI has it, whether the proxy passes it on or not
            given = scope["path"]
            is_passed_on = given == prefix or given.startswith(f"{prefix}/")
            scope = {**scope, "root_path": prefix, "path": given if is_passed_on else prefix + given}
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = _Exchange(scope, headers, send, request_id, time.monotonic())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_unless_refused(message: Message) -> None:  # the routes' `send`
            if exchange.refusal is None:
                await exchange.send(message)

        try:
            try:
                self._check(exchange)
                await self._app(scope, self._bounded(exchange, receive), send_unless_refused)
            except RequestRefused as error:
                exchange.refusal = error
            if exchange.refusal is not None:
                await exchange.refuse(exchange.refusal, receive)
        except OSError:
            if not exchange.is_gone:
                raise
        except asyncio.CancelledError:
            if self._service.is_ready:
                raise
            # The grace of a stopping server is over: uvicorn says so in a line, and would add a traceback for each.
        finally:
            self._uploads.forget(exchange.received)
            self._record(exchange)

    def _check(self, exchange: _Exchange) -> None:
        """Raises RequestRefused unless the request may be passed on."""
        headers, path = exchange.headers, exchange.path
        host, origin = headers.get("host", ""), headers.get("origin")
        if not host_is_allowed(host, self._settings.allowed_hosts):
            advice = "the operator may add it by --allowed-host"
            raise RequestRefused(403, "host_not_allowed", f"this server is not reached under that name; {advice}")
        if origin is not None and not origin_is_allowed(origin, host, self._settings.cors_origins):
            advice = "the operator may add it by --cors-origin"
            raise RequestRefused(403, "origin_not_allowed", f"pages of another site may not call this server; {advice}")
        is_preflight = exchange.scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        session = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE)
        owner = self._keys.owner(headers.get("authorization"), session)
        if owner is None and path not in OPEN_ROUTES and not is_preflight:
            refusal = RequestRefused(
                401, "key_required", "a key is needed: send the header 'Authorization: Bearer KEY'"
            )
            if self._has_login and path == "/" and "text/html" in headers.get("accept", ""):
                refusal = RequestRefused(303, "key_required", "a key is needed")
                refusal.location = f"{self._settings.root_path}/login"
            raise refusal
        exchange.scope["state"]["owner"] = owner
        client = exchange.scope.get("client") or ("", 0)
        if path not in OPEN_ROUTES and (wait := self._rate.wait(owner if self._settings.keys else client[0])):
            raise RequestRefused(429, "rate_limited", f"at most {self._settings.rate} requests a minute", wait)
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._settings.max_upload:
            raise self._too_large()
        self._uploads.check_room(int(declared))
        if (exchange.scope["method"], path) in QUEUED_ROUTES and not self._service.has_room:
            raise self._service.full()

    def _bounded(self, exchange: _Exchange, receive: Receive) -> Receive:
        """`receive`, which ends an upload that is too large, too slow, or pauses for too long."""
        is_whole = False

        async def bounded() -> Message:
            nonlocal is_whole
            if is_whole and HEARTBEAT not in exchange.path:
                return await receive()
            if is_whole:  # an open page keeps no server alive
                while self._service.is_ready:
                    with suppress(TimeoutError):
                        return await asyncio.wait_for(receive(), POLL_SECONDS)
                return {"type": "http.disconnect"}
            left = self._settings.timeout - (time.monotonic() - exchange.began)
            try:
                message = await asyncio.wait_for(receive(), min(IDLE_SECONDS, max(0.0, left)))
            except TimeoutError as error:
                advice = "the upload pauses or takes too long; send it again"
                exchange.refusal = RequestRefused(408, "upload_too_slow", advice)
                raise exchange.refusal from error
            size = len(message.get("body", b""))
            try:
                self._uploads.receive(size)
                exchange.received += size
                if exchange.received > self._settings.max_upload:
                    raise self._too_large()
            except RequestRefused as refusal:
                exchange.refusal = refusal
                raise
            is_whole = not message.get("more_body", False)
            return message

        return bounded

    def _too_large(self) -> RequestRefused:
        return RequestRefused(
            413, "too_large", f"larger than {self._settings.max_upload} bytes, the most that is taken"
        )

    def _record(self, exchange: _Exchange) -> None:
        """Count the request, and log it on request: no file name, no query and no content."""
        seconds = time.monotonic() - exchange.began
        found = exchange.scope.get("route")
        route = getattr(found, "path", None) or ("/" if exchange.path == "/" else "other")
        method = exchange.scope["method"]
        method = method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
        status = exchange.status or 499  # the client went away before there was an answer
        self._service.metrics.requests.labels(method, route, status).inc()
        self._service.metrics.latency.labels(route).observe(seconds)
        if status == 429:
            self._service.metrics.refusals.observe(exchange.answered - exchange.began)
        if self._log_requests:
            facts: dict[str, Any] = {"request_id": exchange.request_id, "method": method, "route": route}
            facts |= {"status": status, "seconds": round(seconds, 4), "bytes": exchange.received}
            logger.info(json.dumps(facts))
