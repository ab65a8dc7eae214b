"""Jobs over HTTP: send a long recording, come back for its captions; a job is seen by the key that made it alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from enclap.output.formats import FORMATS, caption_table
from enclap.serving.captions import EVENT_STREAM, CaptionForm, FormatName, HeldResponse, formatted, server_event
from enclap.serving.documents import answers, header, problems, upload_body
from enclap.serving.job_runner import JobRunner
from enclap.serving.job_store import DONE, UNFINISHED, Job, result_of
from enclap.serving.problems import RequestRefused
from enclap.serving.uploads import read_form, receive_upload

LISTED = 1000  # jobs, the newest
POLL_SECONDS = 0.25
KEEP_ALIVE_SECONDS = 15.0  # proxies end a connection that says nothing
IDEMPOTENCY_KEY, EVENT_ID = r"[!-~]{1,255}", r"(-1|[0-9]{1,9})"


class JobForm(CaptionForm):
    """The options of POST /v1/jobs."""

    callback: str | None = Field(
        None,
        max_length=2048,
        description="Address, below one that the operator lists, that is sent id and state when the job has ended.",
    )


def jobs_router(runner: JobRunner) -> APIRouter:
    """The routes below /v1/jobs."""
    routes = JobRoutes(runner)
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    key = header("Idempotency-Key", IDEMPOTENCY_KEY, "The same key makes no second job.")
    kinds = [form.media_type.partition(";")[0] for form in FORMATS.values()]
    last = header("Last-Event-ID", EVENT_ID, "Number of the last caption that was received.")
    router.post(
        "",
        summary="Send a recording to be captioned in its own time",
        status_code=202,
        responses=problems(400, 415, 422, 503),
        openapi_extra=upload_body(JobForm, many=False, raw=True) | {"parameters": [key]},
    )(routes.submit)
    router.get("", summary="The jobs of this key, the newest first", responses=problems())(routes.jobs)
    router.get("/{id}", summary="State, progress and the captions so far", responses=problems(404))(routes.job)
    router.get(
        "/{id}/captions",
        summary="The captions of a job that is done, in a format of the command line",
        response_class=Response,
        responses={200: answers(dict.fromkeys(kinds, "")), **problems(400, 404, 409)},
    )(routes.captions)
    router.get(
        "/{id}/events",
        summary="Captions as server-sent events, from the first or from Last-Event-ID on",
        response_class=Response,
        responses={200: answers({EVENT_STREAM: "id: 0\nevent: caption\ndata: {}\n\n"}), **problems(400, 404)},
        openapi_extra={"parameters": [last]},
    )(routes.events)
    router.delete("/{id}", summary="End a job and forget it", status_code=204, responses=problems(404))(routes.remove)
    return router


class JobRoutes:
    """What the routes do; each sees the jobs of the request's key alone."""

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner

    async def submit(self, request: Request) -> JSONResponse:
        """Answers once the upload is safe on the disk; sent again with its Idempotency-Key it makes no second job."""
        key = request.headers.get("idempotency-key")
        if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
            raise RequestRefused(400, "invalid_option", "Idempotency-Key: 1 to 255 visible ASCII characters")
        async with AsyncExitStack() as held:
            upload = await receive_upload(request)
            held.callback(upload.close)
            if len(upload.recordings) > 1:
                raise RequestRefused(400, "invalid_option", "file: one recording a job; send several jobs")
            form = read_form(JobForm, upload.fields)
            self._runner.service.check(form.settings)
            [recording] = upload.recordings
            owner, options = request.state.owner, form.model_dump(exclude={"callback"})
            job = await asyncio.to_thread(self._runner.submit, owner, recording, options, key, form.callback)
        location = f"{self._runner.service.settings.root_path}/v1/jobs/{job.id}"
        return JSONResponse(job_table(job), 202, {"Location": location})

    async def jobs(self, request: Request) -> dict[str, Any]:
        """At most a thousand jobs, without their captions."""
        found = await asyncio.to_thread(self._runner.store.of_owner, request.state.owner, LISTED)
        return {"jobs": [job_table(job) for job in found]}

    async def job(self, id: str, request: Request) -> dict[str, Any]:
        """The job and what is captioned of its recording, up to `seconds`."""
        found = await self.find(id, request)
        captions = await asyncio.to_thread(self._runner.store.captions, id)
        seconds = captions[-1].end if captions else 0.0
        progress = {"seconds": round(seconds, 3), "captions": [caption_table(caption) for caption in captions]}
        return job_table(found) | progress

    async def captions(self, id: str, request: Request, format: FormatName = "json") -> Response:
        """The same bytes as the command line writes."""
        found = await self.find(id, request)
        if found.state != DONE:
            raise RequestRefused(409, "job_not_done", f"the job is {found.state}; only a job that is done has them all")
        result = result_of(found, await asyncio.to_thread(self._runner.store.captions, id))
        return formatted(format, [result], self._runner.service.model)

    async def events(self, id: str, request: Request) -> Response:
        """A `caption` event each, then `done`, `failed` or `removed`."""
        last = request.headers.get("last-event-id", "-1")
        if not re.fullmatch(EVENT_ID, last):
            raise RequestRefused(400, "invalid_option", "Last-Event-ID: the number of a caption")
        await self.find(id, request)
        events = job_events(self._runner, id, request.state.owner, int(last) + 1)
        return HeldResponse(events, AsyncExitStack(), EVENT_STREAM)

    async def remove(self, id: str, request: Request) -> Response:
        """Its upload and its captions are removed too."""
        await asyncio.to_thread(self._runner.cancel, await self.find(id, request))
        return Response(status_code=204)

    async def find(self, id: str, request: Request) -> Job:
        """The job, when it belongs to the key of the request; to others it is not there."""
        job = await asyncio.to_thread(self._runner.store.find, id, request.state.owner)
        if job is None:
            raise RequestRefused(404, "job_not_found", "there is no such job, or it was made with another key")
        return job


async def job_events(runner: JobRunner, id: str, owner: str, number: int) -> AsyncGenerator[str, None]:
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
        "callback": job.callback and {"url": job.callback, "state": job.callback_state},
    }
