"""Tells an address that a job has ended: the only request that a server makes, and only to what its operator lists."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import time
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from enclap.errors import UsageError
from enclap.serving.access import DEFAULT_PORTS
from enclap.serving.job_store import DELIVERED, FAILED, PENDING, Callback, JobStore
from enclap.text import printable
from enclap.version import __version__

logger = logging.getLogger("enclap.serving")

URL = re.compile(r"https?://[^/?#@\\\s]+(/[!-~]*)?", re.IGNORECASE)
SIDEWAYS = re.compile(r"/[./]|\\|%2[ef5]|%5c", re.IGNORECASE)
"""In a path: what a receiver may read as another path than the one that was compared."""

WAIT_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 14_400.0)  # between tries; the last failure ends them
TIMEOUT_SECONDS = 5.0  # for each step of a request
IDLE_SECONDS = 1.0


def parse_prefixes(typed: list[str]) -> tuple[str, ...]:
    """The addresses below which callbacks may go; UsageError for one that is no http(s) address without a query."""
    for prefix in typed:
        parts = _parts(prefix)
        if parts is None or parts.query:
            advice = "write an address like https://app.example/hooks/"
            raise UsageError(f"--callback-prefix {printable(prefix)}: not an address that can be compared; {advice}")
    return tuple(typed)


def callback_is_allowed(url: str, prefixes: tuple[str, ...]) -> bool:
    """Whether the address lies below one of the prefixes: the same scheme, host and port, and a path inside it.

    A prefix ends where a part of a path ends: `/hooks` holds `/hooks` and `/hooks/a`, never `/hooks-of-others`.
    """
    parts = _parts(url)
    if parts is None:
        return False
    for prefix in prefixes:
        allowed = _parts(prefix)
        if allowed is None or _site(parts) != _site(allowed):
            continue
        inside = allowed.path.rstrip("/") + "/"
        if parts.path.startswith(inside) or parts.path == allowed.path or inside == "/":
            return True
    return False


def _parts(url: str) -> SplitResult | None:
    """The parts of an address that means the same to everybody who reads it, else None."""
    if not url.isascii() or not URL.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return None if not usable or SIDEWAYS.search(parts.path) or "#" in url else parts


def _site(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would lead to where the operator has listed nothing: it is a failure."""

    def redirect_request(self, request: Request, body: IO[bytes], code: int, *_: Any) -> None:
        return None


class CallbackSender:
    """A thread that sends what is due: `{"id": …, "state": "done" | "failed"}` as JSON, until it is answered with 2xx.

    Nothing of the captions is sent: whoever is told asks for them with the key. A callback that was answered just
    before the server was killed may come again. No proxy is asked, no redirect is followed.
    """

    def __init__(self, store: JobStore, prefixes: tuple[str, ...]) -> None:
        self._store = store
        self._prefixes = prefixes
        self._opener = build_opener(ProxyHandler({}), _NoRedirects())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="enclap-callbacks", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request that is on its way; what is left is sent when the server is started again."""
        self._stopping.set()
        self._thread.join()

    def run(self) -> None:
        """One callback after the other, until `stop`."""
        while not self._stopping.is_set():
            try:
                callback = self._store.due_callback()
                if callback is not None:
                    self._store.settle_callback(callback, *self.outcome(callback))
                    continue
            except sqlite3.Error:  # a full disk, say: what is due stays due
                logger.exception("the callbacks of jobs cannot be kept")
            self._stopping.wait(IDLE_SECONDS)

    def outcome(self, callback: Callback) -> tuple[str, float]:
        """The state of the callback after one more try, and when it is due again."""
        if not callback_is_allowed(callback.url, self._prefixes):  # the list was another one when it was taken
            return FAILED, 0.0
        if self.send(callback):
            return DELIVERED, 0.0
        if callback.attempts < len(WAIT_SECONDS):
            return PENDING, time.time() + WAIT_SECONDS[callback.attempts]
        logger.warning("job %s: its callback was never answered, and is given up", callback.job)
        return FAILED, 0.0

    def send(self, callback: Callback) -> bool:
        """Whether the address answered that it has heard of the job."""
        headers = {"Content-Type": "application/json", "User-Agent": f"enclap/{__version__}"}
        content = json.dumps({"id": callback.job, "state": callback.state}).encode()
        request = Request(callback.url, content, headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return 200 <= int(answer.status) < 300
        except HTTPError as error:
            error.close()
            return False
        except (OSError, HTTPException, ValueError):
            return False
