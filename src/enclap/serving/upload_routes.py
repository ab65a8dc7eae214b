"""Recordings that are sent first and captioned later, by a tool for agents that names their id."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from enclap.serving.documents import problems, upload_body
from enclap.serving.job_runner import UPLOAD_SECONDS, JobRunner
from enclap.serving.problems import RequestRefused
from enclap.serving.uploads import read_form, receive_upload


class UploadForm(BaseModel, extra="forbid"):
    """POST /v1/uploads has no options."""


def uploads_router(runner: JobRunner) -> APIRouter:
    """The routes below /v1/uploads."""
    router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

    @router.post(
        "",
        summary="Keep a recording for an hour, for the tool caption_audio",
        status_code=201,
        responses=problems(400, 415, 422, 503),
        openapi_extra=upload_body(UploadForm, many=False, raw=True),
    )
    async def keep(request: Request) -> JSONResponse:
        """Answers once the recording is safe on the disk; whether it can be captioned is found out later."""
        with ExitStack() as held:
            upload = await receive_upload(request)
            held.callback(upload.close)
            if len(upload.recordings) > 1:
                raise RequestRefused(400, "invalid_option", "file: one recording an upload; send several uploads")
            read_form(UploadForm, upload.fields)
            kept = await asyncio.to_thread(runner.keep_upload, request.state.owner, upload.recordings[0])
        table: dict[str, Any] = {"id": kept.id, "path": kept.name, "size": kept.size}
        return JSONResponse(
            table | {"created": round(kept.created, 3), "expires": round(kept.created + UPLOAD_SECONDS, 3)}, 201
        )

    @router.delete("/{id}", summary="Forget an upload", status_code=204, responses=problems(404))
    async def remove(id: str, request: Request) -> Response:
        """Captions that were begun from it go on."""
        await asyncio.to_thread(runner.remove_upload, request.state.owner, id)
        return Response(status_code=204)

    return router
