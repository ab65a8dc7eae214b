"""What is answered when a route fails: the server's own errors, the framework's, and faults that nobody foresaw."""

from __future__ import annotations

import logging
import re

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from enclap.errors import EnclapError
from enclap.serving.captions import ClientGone
from enclap.serving.problems import RequestRefused, problem_response

logger = logging.getLogger("enclap.serving")

ERROR_CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed_request"}
PARAMETER = re.compile(r"\{\w+\}")
GONE = 499  # nginx's number for a client that went away; nobody reads it


def answer_failures(app: FastAPI) -> None:
    """From now on the application answers every failure in one shape, and none with a traceback."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, EnclapError) or error.http_status >= 500:
            logger.error("request %s failed", request.state.request_id, exc_info=error)
        return problem_response(error, request.state.request_id)

    @app.exception_handler(EnclapError)
    async def known(request: Request, error: EnclapError) -> Response:
        return answer(request, error)

    @app.exception_handler(ClientGone)
    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return answer(request, RequestRefused(400, "invalid_option", faults))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        code = ERROR_CODES.get(error.status_code, "refused")
        response = answer(request, RequestRefused(error.status_code, code, str(error.detail).lower()))
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            path = request.scope["path"].removeprefix(request.scope["root_path"])
            tables = app.openapi()["paths"].items()
            of_path = [table for name, table in tables if re.fullmatch(PARAMETER.sub("[^/]+", name), path)]
            methods = {
                method.upper() for table in of_path for method in table
            }  # Starlette names the first route's alone
            response.headers["Allow"] = ", ".join(sorted(methods))
        return response

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return answer(request, error)
