"""POST /v1/captions: recordings in, captions out in every format of the command line, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from enclap.audio.window import DEFAULT_WINDOW
from enclap.decoding.options import DEFAULT_BEAMS, DecodingOptions
from enclap.errors import EnclapError
from enclap.output.formats import FORMATS, caption_table
from enclap.serving.documents import answers, problems, upload_body
from enclap.serving.problems import RequestRefused, problem_table
from enclap.serving.recordings import CaptionService, NamedFile, Settings
from enclap.serving.uploads import Upload, read_form, receive_upload
from enclap.types import Caption, CaptionResult

Result = TypeVar("Result")

FormatName = Literal["json", "jsonl", "text", "srt", "vtt", "csv", "tsv"]
"""The keys of FORMATS, for the OpenAPI document and the type checker."""
EVENT_STREAM = "text/event-stream"
EXAMPLES = {
    "application/json": '{"schema": 1, "model": "mini", "results": [{"path": "dog.wav", "captions": […]}]}',
    "application/jsonl": '{"path": "dog.wav", "duration": 4.2, "captions": …}',
    "text/plain": "dog.wav: A dog barks.",
    "application/x-subrip": "1\n00:00:00,000 --> 00:00:04,200\nA dog barks.\n",
    "text/vtt": "WEBVTT\n\n00:00:00.000 --> 00:00:04.200\nA dog barks.\n",
    "text/csv": "path,start,end,rank,text,score,silence\ndog.wav,0.000,4.200,1,A dog barks.,0.8312,false\n",
    "text/tab-separated-values": "path\tstart\tend\trank\ttext\tscore\tsilence\n",
    EVENT_STREAM: 'event: caption\ndata: {"file": 0, "start": 0.0, "end": 4.2, "text": "A dog barks.", …}\n\n',
}


class ClientGone(Exception):
    """The client closed its connection: there is nobody to answer."""


class CaptionForm(BaseModel):
    """The options of a request, in the words of the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: float = Field(DEFAULT_WINDOW, ge=0, allow_inf_nan=False, description="Seconds per caption; 0: one for all.")
    candidates: int = Field(1, ge=1, le=64, description="Sentences for each caption, with scores.")
    rerank: Literal["likelihood", "clap", "both"] = Field("likelihood", description="What orders the candidates.")

    @property
    def settings(self) -> Settings:
        """How the model searches: a search that is wide enough for the candidates, as on the command line."""
        beams = self.candidates if self.candidates > DEFAULT_BEAMS else None  # the model's own width
        return Settings(DecodingOptions(beams=beams, candidates=self.candidates, rerank=self.rerank), self.window)


class CaptionRequest(CaptionForm):
    """The options of POST /v1/captions."""

    format: FormatName = "json"
    stream: bool = Field(False, description="Answer with server-sent events, a caption as soon as it is there.")


class HeldResponse(StreamingResponse):
    """A streamed answer that holds what it needs until it is sent, or until the client goes away."""

    def __init__(self, content: AsyncIterator[str], held: AsyncExitStack, media_type: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; afterwards let go of what was held."""
        async with self._held:
            await super().__call__(scope, receive, send)


def captions_router(service: CaptionService) -> APIRouter:
    """The route; see its description in the OpenAPI document."""
    router = APIRouter(tags=["captions"])

    @router.post(
        "/v1/captions",
        summary="Caption recordings",
        response_class=Response,
        responses={200: answers(EXAMPLES), **problems(400, 415, 422, 503, 504)},
        openapi_extra=upload_body(CaptionRequest, many=True, raw=True),
    )
    async def captions(request: Request) -> Response:
        """Captions of one or several recordings, in the same bytes as the command line writes them."""
        async with AsyncExitStack() as held:
            upload, fields = await admitted(service, request, held)
            form = read_form(CaptionRequest, fields)
            service.check(form.settings)
            if FORMATS[form.format].one_recording and len(upload.recordings) > 1:
                raise RequestRefused(400, "invalid_option", f"format {form.format} describes one recording; send one")
            if form.stream:
                events = caption_events(service, upload, form.settings, request.state.request_id)
                return HeldResponse(events, held.pop_all(), EVENT_STREAM)
            results = await unless_gone(request, all_results(service, upload, form.settings))
            return formatted(form.format, results, service.model)

    return router


def formatted(style: str, results: Sequence[CaptionResult], model: str) -> Response:
    """The results in a format of the command line, in the same bytes."""
    return Response(b"".join(FORMATS[style].encoded(results, model)), media_type=FORMATS[style].media_type)


async def admitted(service: CaptionService, request: Request, held: AsyncExitStack) -> tuple[Upload, dict[str, Any]]:
    """The upload and the fields of a request that has a place in the queue, until `held` is closed.

    The place is taken after the upload: a slow client keeps no other from the model.
    """
    upload = await receive_upload(request)
    held.callback(upload.close)
    service.enter()
    held.callback(service.leave)
    return upload, dict(upload.fields)


async def caption_events(
    service: CaptionService, upload: Upload, settings: Settings, request_id: str
) -> AsyncGenerator[str, None]:
    """Server-sent events: `caption` for each window, `recording` after the last of each file, then `done`.

    declared: what the container says about its length in seconds, null when it says nothing; with `end` it is progress.
    A fault after the answer has begun is an `error` event with the table of a failed request, and the last event.
    """
    try:
        async with time_limit(service):
            for number, recording in enumerate(upload.recordings):
                end = 0.0
                async with closing_stream(service, recording, settings) as found:
                    async for caption in found:
                        end = caption.end
                        progress = {"file": number, "declared": recording.declared_seconds}
                        yield server_event("caption", {**progress, **caption_table(caption)})
                yield server_event("recording", {"file": number, "path": recording.name, "duration": round(end, 3)})
        yield server_event("done", {"files": len(upload.recordings)})
    except EnclapError as error:
        yield server_event("error", problem_table(error, request_id))


@asynccontextmanager
async def closing_stream(
    service: CaptionService, recording: NamedFile, settings: Settings
) -> AsyncIterator[AsyncIterator[Caption]]:
    """The captions of a recording, whose work ends with the block."""
    stream = service.stream(recording, settings)
    try:
        yield stream
    finally:
        await stream.aclose()


def server_event(name: str, table: dict[str, object]) -> str:
    """One server-sent event with a table as its data."""
    return f"event: {name}\ndata: {json.dumps(table, ensure_ascii=False)}\n\n"


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """What the work gives; it is cancelled when the client goes away, which raises ClientGone."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)  # the result was taken above


async def all_results(service: CaptionService, upload: Upload, settings: Settings) -> list[CaptionResult]:
    """One result for each recording; all are read at once, so that they share batches."""
    try:
        async with time_limit(service), asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.caption(item, settings)) for item in upload.recordings]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


@asynccontextmanager
async def time_limit(service: CaptionService) -> AsyncIterator[None]:
    """Ends the block with RequestRefused when it takes longer than a request may."""
    try:
        async with asyncio.timeout(service.settings.timeout):
            yield
    except TimeoutError as error:
        message = f"not captioned in {service.settings.timeout:g} s, all that a request gets; send a job instead"
        raise RequestRefused(504, "timeout", message) from error
