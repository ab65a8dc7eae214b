"""The server of the page: a link that nobody guesses, a form for the rater's code, recordings by number."""

from __future__ import annotations

import hmac
import logging
import signal
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enclap.rating.answers import AnswerStore
from enclap.rating.study import Study
from enclap.serving.connections import server_config
from enclap.serving.login import code_form
from enclap.serving.run import AnnouncingServer

COOKIE = "enclap_rater"
COOKIE_SECONDS = 90 * 24 * 3600
WELCOME = "You were given a code beside this link. It keeps your answers apart from those of others, without your name."
WRONG = "There is no such code in this study; compare it with the one that you were given."
PRIVATE = {"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "X-Robots-Tag": "noindex"}
"""Headers that keep the link from others."""
GRACE_SECONDS = 5


def build_app(study: Study, answers: AnswerStore) -> ASGIApp:
    """The application; outside of the link there is nothing, and without a code only the form that asks for it."""
    from enclap.rating.page import add_page  # here: Gradio takes seconds to load

    root = f"/{study.token}"
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get(f"{root}/login")
    async def form() -> Response:
        return HTMLResponse(code_form("Rate captions", WELCOME, "", "Your code", "Begin"))

    @app.post(f"{root}/login")
    async def login(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=1, max_part_size=4096) as fields:
            given = fields.get("key")
        rater = study.rater_of(given) if isinstance(given, str) else None
        if rater is None:
            return HTMLResponse(code_form("Rate captions", WELCOME, WRONG, "Your code", "Begin"), 401)
        answer = RedirectResponse(f"{root}/", 303)
        is_https = request.url.scheme == "https"
        code = study.codes[rater - 1]
        answer.set_cookie(COOKIE, code, COOKIE_SECONDS, path=root, secure=is_https, httponly=True, samesite="lax")
        return answer

    @app.get(f"{root}/audio/{{number}}")
    async def recording(number: int) -> Response:
        if not 0 <= number < len(study.clips):
            return PlainTextResponse("no such recording", 404)
        path = Path(study.audio, study.clips[number].path)
        return FileResponse(path, headers={"Cache-Control": "private, max-age=3600"})

    return RaterGate(add_page(app, root, study, answers), study)


class RaterGate:
    """The application behind the link and the code. The number of the rater is `rater` in a request's state."""

    def __init__(self, app: ASGIApp, study: Study) -> None:
        self._app = app
        self._study = study

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is no request (the start of the server) is passed on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        first, _, rest = scope["path"].removeprefix("/").partition("/")

        async def private(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(PRIVATE)
            await send(message)

        app: ASGIApp = self._app
        rater = self._study.rater_of(cookie_of(scope, COOKIE))
        if not hmac.compare_digest(first.encode(), self._study.token.encode()):
            app = PlainTextResponse("not found", 404)
        elif rater is None and rest != "login":
            is_page = "text/html" in Headers(scope=scope).get("accept", "")
            form = RedirectResponse(f"/{self._study.token}/login", 303)
            app = form if is_page else PlainTextResponse("a code is needed", 401)
        scope.setdefault("state", {})["rater"] = rater
        await app(scope, receive, private)


def cookie_of(scope: Scope, name: str) -> str:
    """The value of a cookie, empty when there is none."""
    try:
        found = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def listen(app: ASGIApp, host: str, port: int, on_listening: Callable[[int], None]) -> None:
    """Answer requests until SIGTERM or SIGINT. on_listening: called with the port as soon as they are answered."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has stopped
    config = server_config(app, host=host, port=port, timeout_graceful_shutdown=GRACE_SECONDS)
    AnnouncingServer(config, on_listening).run()
