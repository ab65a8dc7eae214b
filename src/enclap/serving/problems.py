"""What a client gets when a request fails: one JSON shape, which is OpenAI's too, and a status for each kind."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse

from enclap.errors import EnclapError

CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
INTERNAL = "the server failed; its log, under this request id, says why"


class RequestRefused(EnclapError):
    """A request that is turned away; status and code say why.

    retry_after: when to come again, in seconds. location: where a browser goes instead.
    """

    exit_code = 2

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.http_status = status
        self.code = code
        self.retry_after = retry_after
        self.location: str | None = None


def problem_response(error: Exception, request_id: str) -> JSONResponse:
    """The answer to a failed request; nothing is said about faults of the server but that there was one."""
    values = {"Retry-After": getattr(error, "retry_after", None), "Location": getattr(error, "location", None)}
    headers = {name: str(value) for name, value in values.items() if value is not None}
    return JSONResponse(problem_table(error, request_id), status_of(error), headers)


def problem_table(error: Exception, request_id: str) -> dict[str, Any]:
    """What a client is shown of an error, in OpenAI's shape."""
    status = status_of(error)
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    known = status < 500 or isinstance(error, RequestRefused)
    code = getattr(error, "code", None) or CAMEL.sub("_", type(error).__name__).lower()
    table = {"code": code if known else "internal_error", "message": str(error) if known else INTERNAL, "type": kind}
    return {"error": {**table, "param": None, "request_id": request_id}}


def status_of(error: Exception) -> int:
    """The HTTP status that an error stands for."""
    return error.http_status if isinstance(error, EnclapError) else 500
