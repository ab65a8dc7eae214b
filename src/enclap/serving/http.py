"""The application: all routes, with the gate before them."""

from __future__ import annotations

import logging
from functools import partial

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from enclap.serving.access import KeyRing
from enclap.serving.captions import captions_router
from enclap.serving.deferred import Deferred, running
from enclap.serving.failures import answer_failures
from enclap.serving.gate import Gate
from enclap.serving.health import health_router
from enclap.serving.job_runner import JobRunner
from enclap.serving.jobs import jobs_router
from enclap.serving.login import login_router
from enclap.serving.openai import openai_router
from enclap.serving.recordings import CaptionService
from enclap.serving.settings import ServeSettings
from enclap.serving.upload_routes import uploads_router
from enclap.version import __version__


def build_app(
    service: CaptionService, runner: JobRunner, *, with_page: bool = False, log_requests: bool = False
) -> ASGIApp:
    """The application with every check before it; the caller starts and stops `service` and `runner`."""
    settings = service.settings
    tools = Deferred(partial(tools_app, runner))

    def page_app() -> Starlette:
        from enclap.serving import page  # here: Gradio takes seconds to load

        return page.page_app(service)

    page = [Deferred(page_app)] if with_page else []
    app = FastAPI(
        lifespan=lambda app: running([tools, *page]),
        title="enclap",
        summary="Describes sounds in English sentences.",
        version=__version__,
        docs_url=None,  # its scripts come from another host
        redoc_url=None,
    )
    answer_failures(app)
    app.include_router(health_router(service))
    app.include_router(captions_router(service))
    app.include_router(openai_router(service))
    app.include_router(jobs_router(runner))
    app.include_router(uploads_router(runner))
    include_search(app, settings)
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
    return Gate(guarded, service, runner.uploads, keys, has_login=with_page, log_requests=log_requests)


def include_search(app: FastAPI, settings: ServeSettings) -> None:
    """Add the routes of the library, where there is one."""
    if settings.library is not None:
        from enclap.serving.search import library_search, search_router  # here: it needs the extra search

        app.include_router(search_router(library_search(settings.library)))


def tools_app(runner: JobRunner) -> Starlette:
    """The tools for agents; the gate has checked Host and Origin before."""
    from mcp.server.transport_security import TransportSecuritySettings  # here: it takes a second to load

    from enclap.serving.mcp import http_server

    logging.getLogger("mcp").setLevel(logging.WARNING)  # it reports every start and end of its sessions
    return http_server(runner).streamable_http_app(
        stateless_http=True,
        max_request_body_size=runner.service.settings.max_upload,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
