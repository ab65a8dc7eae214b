"""What a client is told when a request fails: one JSON shape, which is OpenAI's too, and a status for each kind."""

from __future__ import annotations

import re

from starlette.responses import JSONResponse

from enclap.errors import EnclapError

CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
INTERNAL = "the server failed; its log, under this request id, says why"


class RequestRefused(EnclapError):
    """A request that is turned away; status and code say why, retry_after when to come again, in seconds."""

    exit_code = 2

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.http_status = status
        self.code = code
        self.retry_after = retry_after


def problem_response(error: Exception, request_id: str) -> JSONResponse:
    """The answer to a failed request; nothing is said about faults of the server but that there was one."""
    status = error.http_status if isinstance(error, EnclapError) else 500
    code = error_code(error) if status < 500 or isinstance(error, RequestRefused) else "internal_error"
    message = INTERNAL if code == "internal_error" else str(error)
    retry_after = getattr(error, "retry_after", None)
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse(problem(code, message, request_id, status), status, headers)


def problem(code: str, message: str, request_id: str, status: int) -> dict[str, object]:
    """The table that every failed request is answered with."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"code": code, "message": message, "type": kind, "param": None, "request_id": request_id}}


def error_code(error: Exception) -> str:
    """A word for programs: audio_unreadable for AudioUnreadable."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else CAMEL.sub("_", type(error).__name__).lower()
