"""Jobs over HTTP: send a long recording, come back for its captions; a job is seen by the key that made it alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from enclap.output.formats import FORMATS, caption_table
from enclap.serving.captions import EVENT_STREAM, MEDIA_TYPES, CaptionForm, HeldResponse, server_event
from enclap.serving.documents import answers, header, problems, upload_body
from enclap.serving.job_runner import JobRunner
from enclap.serving.job_store import DONE, UNFINISHED, Job, result_of
from enclap.serving.problems import RequestRefused
from enclap.serving.uploads import read_form, receive_upload

LISTED = 1000  # jobs, the newest
POLL_SECONDS = 0.25
KEEP_ALIVE_SECONDS = 15.0  # proxies end a connection that says nothing
IDEMPOTENCY_KEY, EVENT_ID = r"[!-~]{1,255}", r"(-1|[0-9]{1,9})"


def jobs_router(runner: JobRunner) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    _add_submission(router, runner)
    _add_results(router, runner)
    _add_events(router, runner)
    return router


def _add_submission(router: APIRouter, runner: JobRunner) -> None:
    @router.post(
        "",
        summary="Send a recording to be captioned in its own time",
        status_code=202,
        responses=problems(400, 415, 422, 503),
        openapi_extra=upload_body(CaptionForm, many=False, raw=True)
        | {"parameters": [header("Idempotency-Key", IDEMPOTENCY_KEY, "The same key makes no second job.")]},
    )
    async def submit(request: Request) -> JSONResponse:
        """Answers once the upload is safe on the disk; sent again with its Idempotency-Key it makes no second job."""
        key = request.headers.get("idempotency-key")
        if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
            raise RequestRefused(400, "invalid_option", "Idempotency-Key: 1 to 255 visible ASCII characters")
        async with AsyncExitStack() as held:
            upload = await receive_upload(request)
            held.callback(upload.close)
            if len(upload.recordings) > 1:
                raise RequestRefused(400, "invalid_option", "file: one recording a job; send several jobs")
            form = read_form(CaptionForm, upload.fields)
            runner.service.check(form.settings)
            [recording] = upload.recordings
            job = await asyncio.to_thread(runner.submit, _owner(request), recording, form.model_dump(), key)
        return JSONResponse(job_table(job), 202, {"Location": f"{runner.service.settings.root_path}/v1/jobs/{job.id}"})

    @router.get("", summary="The jobs of this key, the newest first", responses=problems())
    async def jobs(request: Request) -> dict[str, Any]:
        found = await asyncio.to_thread(runner.store.of_owner, _owner(request), LISTED)
        return {"jobs": [job_table(job) for job in found]}

    @router.delete("/{id}", summary="End a job and forget it", status_code=204, responses=problems(404))
    async def remove(id: str, request: Request) -> Response:
        job = await _found(runner, id, request)
        await asyncio.to_thread(runner.cancel, job)
        return Response(status_code=204)


def _add_results(router: APIRouter, runner: JobRunner) -> None:
    @router.get("/{id}", summary="State, progress and the captions so far", responses=problems(404))
    async def job(id: str, request: Request) -> dict[str, Any]:
        found = await _found(runner, id, request)
        captions = await asyncio.to_thread(runner.store.captions, id)
        seconds = captions[-1].end if captions else 0.0
        progress = {"seconds": round(seconds, 3), "captions": [caption_table(caption) for caption in captions]}
        return job_table(found) | progress

    @router.get(
        "/{id}/captions",
        summary="The captions of a job that is done, in a format of the command line",
        response_class=Response,
        responses={
            200: answers({kind.partition(";")[0]: "" for kind in MEDIA_TYPES.values()}),
            **problems(400, 404, 409),
        },
    )
    async def captions(
        id: str, request: Request, format: Literal["json", "jsonl", "text", "srt", "vtt", "csv", "tsv"] = "json"
    ) -> Response:
        found = await _found(runner, id, request)
        if found.state != DONE:
            raise RequestRefused(409, "job_not_done", f"the job is {found.state}; only a job that is done has them all")
        result = result_of(found, await asyncio.to_thread(runner.store.captions, id))
        content = "".join(FORMATS[format]([result], runner.service.model)).encode("utf-8", "backslashreplace")
        return Response(content, media_type=MEDIA_TYPES[format])


def _add_events(router: APIRouter, runner: JobRunner) -> None:
    @router.get(
        "/{id}/events",
        summary="Captions as server-sent events, from the first or from Last-Event-ID on",
        response_class=Response,
        responses={200: answers({EVENT_STREAM: "id: 0\nevent: caption\ndata: {}\n\n"}), **problems(400, 404)},
        openapi_extra={
            "parameters": [header("Last-Event-ID", EVENT_ID, "Number of the last caption that was received.")]
        },
    )
    async def events(id: str, request: Request) -> Response:
        last = request.headers.get("last-event-id", "-1")
        if not re.fullmatch(EVENT_ID, last):
            raise RequestRefused(400, "invalid_option", "Last-Event-ID: the number of a caption")
        await _found(runner, id, request)
        return HeldResponse(_events(runner, id, _owner(request), int(last) + 1), AsyncExitStack(), EVENT_STREAM)


async def _events(runner: JobRunner, id: str, owner: str, number: int) -> AsyncGenerator[str, None]:
    """`caption` events from that number on, then `done`, `failed` or `removed`; ends when the server stops."""
    quiet = 0.0
    while runner.service.is_ready:
        job = await asyncio.to_thread(runner.store.find, id, owner)  # before its captions: none is left out at the end
        if job is None:
            yield server_event("removed", {"id": id})
            return
        for caption in await asyncio.to_thread(runner.store.captions, id, number):
            yield f"id: {number}\n" + server_event("caption", {"declared": job.declared, **caption_table(caption)})
            number, quiet = number + 1, 0.0
        if job.state not in UNFINISHED:
            yield server_event(job.state, job_table(job))
            return
        await asyncio.sleep(POLL_SECONDS)
        quiet += POLL_SECONDS
        if quiet >= KEEP_ALIVE_SECONDS:
            yield ": still at work\n\n"
            quiet = 0.0


def job_table(job: Job) -> dict[str, Any]:
    """What a client sees of a job."""
    return {
        "id": job.id,
        "state": job.state,
        "path": job.name,
        "options": job.options,
        "created": round(job.created, 3),
        "updated": round(job.updated, 3),
        "declared": job.declared,
        "error": job.error and job.error["error"],
    }


async def _found(runner: JobRunner, id: str, request: Request) -> Job:
    """The job, when it belongs to the key of the request; to others it is not there."""
    job = await asyncio.to_thread(runner.store.find, id, _owner(request))
    if job is None:
        raise RequestRefused(404, "job_not_found", "there is no such job, or it was made with another key")
    return job


def _owner(request: Request) -> str:
    owner: str = request.state.owner
    return owner
