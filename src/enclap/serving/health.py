"""Whether the server runs and takes requests, and its figures for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from enclap.serving.documents import problems
from enclap.serving.metrics import CONTENT_TYPE_PLAIN_0_0_4
from enclap.serving.problems import RequestRefused
from enclap.serving.recordings import CaptionService


def health_router(service: CaptionService) -> APIRouter:
    """The routes /healthz, /readyz and /metrics."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="The process runs", responses=problems())
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="The model is loaded and requests are taken", responses=problems(503))
    async def readyz() -> dict[str, str]:
        if not service.is_ready:
            raise RequestRefused(503, "stopping", "the server is stopping; try again later")
        return {"status": "ready", "model": service.model}

    @router.get("/metrics", summary="Figures for Prometheus", responses=problems(), response_class=Response)
    async def metrics() -> Response:
        content = await asyncio.to_thread(service.metrics.exposition)
        return Response(content, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
