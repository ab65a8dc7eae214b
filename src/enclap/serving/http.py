"""The application: routes, health, figures, and one shape for every failure; the gate stands before all of it."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from enclap.errors import EnclapError
from enclap.serving.access import KeyRing
from enclap.serving.captions import ClientGone, captions_router
from enclap.serving.deferred import Deferred, running
from enclap.serving.documents import problems
from enclap.serving.gate import Gate
from enclap.serving.job_runner import JobRunner
from enclap.serving.jobs import jobs_router
from enclap.serving.login import login_router
from enclap.serving.metrics import CONTENT_TYPE_PLAIN_0_0_4
from enclap.serving.openai import openai_router
from enclap.serving.problems import RequestRefused, problem_response
from enclap.serving.recordings import CaptionService
from enclap.version import __version__

logger = logging.getLogger("enclap.serving")

ERROR_CODES = {404: "not_found", 405: "method_not_allowed", 400: "malformed_request"}
PARAMETER = re.compile(r"\{\w+\}")
GONE = 499  # nginx's number for a client that went away; nobody reads it


def build_app(
    service: CaptionService, runner: JobRunner, *, with_page: bool = False, log_requests: bool = False
) -> ASGIApp:
    """The application with every check before it; the caller starts and stops `service` and `runner`."""
    settings = service.settings
    tools = Deferred(partial(_tools_app, runner))
    page = [Deferred(partial(_page_app, service))] if with_page else []
    app = FastAPI(
        lifespan=lambda app: running([tools, *page]),
        title="enclap",
        summary="Describes sounds in English sentences.",
        version=__version__,
        root_path=settings.root_path,
        docs_url=None,  # its scripts come from another host
        redoc_url=None,
    )
    _add_failures(app)
    _add_health(app, service)
    app.include_router(captions_router(service))
    app.include_router(openai_router(service))
    app.include_router(jobs_router(runner))
    app.router.routes.append(Route("/mcp", endpoint=tools))
    keys = KeyRing(settings.keys)
    if with_page:
        app.include_router(login_router(keys, settings.root_path))
        app.mount("/", page[0])
    guarded: ASGIApp = app
    if settings.cors_origins:
        exposed = ["X-Request-Id", "Retry-After"]
        guarded = CORSMiddleware(
            guarded, settings.cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed
        )
    return Gate(guarded, service, keys, has_login=with_page, log_requests=log_requests)


def _page_app(service: CaptionService) -> Starlette:
    from enclap.serving.page import page_app  # here: Gradio takes seconds to load

    return page_app(service)


def _tools_app(runner: JobRunner) -> Starlette:
    """The tools for agents; the gate has checked Host and Origin before."""
    from mcp.server.transport_security import TransportSecuritySettings  # here: it takes a second to load

    from enclap.serving.mcp import http_server

    logging.getLogger("mcp").setLevel(logging.WARNING)  # it reports every start and end of its sessions
    return http_server(runner).streamable_http_app(
        stateless_http=True,
        max_request_body_size=runner.service.settings.max_upload,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


def _add_health(app: FastAPI, service: CaptionService) -> None:
    @app.get("/healthz", tags=["operation"], summary="The process runs", responses=problems())
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz", tags=["operation"], summary="The model is loaded and requests are taken", responses=problems(503)
    )
    async def readyz() -> dict[str, str]:
        if not service.is_ready:
            raise RequestRefused(503, "stopping", "the server is stopping; try again later")
        return {"status": "ready", "model": service.model}

    @app.get(
        "/metrics", tags=["operation"], summary="Figures for Prometheus", responses=problems(), response_class=Response
    )
    async def metrics() -> Response:
        content = await asyncio.to_thread(service.metrics.exposition)
        return Response(content, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods of every route of that path; Starlette names those of the first alone."""
    paths = app.openapi()["paths"].items()
    found = (table for template, table in paths if re.fullmatch(PARAMETER.sub("[^/]+", template), path))
    return sorted({method.upper() for table in found for method in table})


def _add_failures(app: FastAPI) -> None:
    """Every failure is answered in one shape, and none with a traceback."""

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
            response.headers["Allow"] = ", ".join(_methods(app, request.scope["path"]))
        return response

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return answer(request, error)
