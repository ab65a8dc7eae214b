"""The form that asks for the key, and the cookie that the page has afterwards; the key itself is kept nowhere."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from enclap.serving.access import SESSION_COOKIE, SESSION_SECONDS, KeyRing

FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body{{font:1rem system-ui,sans-serif;max-width:24rem;margin:4rem auto;padding:0 1rem}}
input,button{{font:inherit;padding:.5rem;margin:.5rem 0;width:100%;box-sizing:border-box}}</style>
<h1>{title}</h1><p>{text}</p><p role="alert">{message}</p><form method="post"><label for="key">{label}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>{button}</button></form></html>"""
WRONG = "This key is not one of the server's; ask the one who runs it."


def code_form(title: str, text: str, message: str, label: str, button: str) -> str:
    """A page that asks for a secret, which it sends as `key`. message: what was wrong with the last one."""
    return FORM.format(title=title, text=text, message=message, label=label, button=button)


def login_router(keys: KeyRing, root_path: str) -> APIRouter:
    """The form at /login."""
    router = APIRouter(include_in_schema=False)

    def key_form(message: str) -> str:
        return code_form("enclap", "", message, "Key of this server", "Open the page")

    @router.get("/login")
    async def form() -> Response:
        return HTMLResponse(key_form(""))

    @router.post("/login")
    async def login(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=1, max_part_size=4096) as fields:
            given = fields.get("key")
        token = keys.open_session(given) if isinstance(given, str) else None
        if token is None:
            return HTMLResponse(key_form(WRONG), 401)
        answer = RedirectResponse(f"{root_path}/", 303)
        is_https = request.url.scheme == "https"
        path = root_path or "/"
        answer.set_cookie(
            SESSION_COOKIE, token, int(SESSION_SECONDS), path=path, secure=is_https, httponly=True, samesite="strict"
        )
        return answer

    return router
