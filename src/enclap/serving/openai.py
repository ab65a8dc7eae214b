"""OpenAI's audio routes, so that clients made for them work: a caption takes the place of a transcript.

Source: OpenAI's API reference, "Create transcription" and "List models".
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from enclap.audio.window import DEFAULT_WINDOW
from enclap.decoding.options import DecodingOptions
from enclap.errors import EnclapError
from enclap.output.formats import DIGITS, FORMATS
from enclap.serving.captions import (
    EVENT_STREAM,
    HeldResponse,
    admitted,
    all_results,
    closing_stream,
    formatted,
    server_event,
    time_limit,
    unless_gone,
)
from enclap.serving.documents import answers, problems, upload_body
from enclap.serving.problems import RequestRefused, problem_table
from enclap.serving.recordings import CaptionService, NamedFile, Settings
from enclap.serving.uploads import read_form
from enclap.types import CaptionResult

LANGUAGE = "english"
Texts = list[str] | str | None
SETTINGS = Settings(DecodingOptions(), DEFAULT_WINDOW)
EXAMPLES = {
    "application/json": '{"text": "A dog barks."}',
    "text/plain": "A dog barks.\n",
    "text/vtt": "WEBVTT\n\n00:00:00.000 --> 00:00:04.200\nA dog barks.\n",
    "application/x-subrip": "1\n00:00:00,000 --> 00:00:04,200\nA dog barks.\n",
    EVENT_STREAM: 'data: {"type": "transcript.text.delta", "delta": "A dog barks."}\n\n',
}


class TranscriptionRequest(BaseModel):
    """The fields that OpenAI's clients send; those without a description have no effect on a caption."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    model: str = Field(description="A name of the model that is served; see GET /v1/models.")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = Field("json", description="Of the answer.")
    stream: bool = Field(False, description="Answer with server-sent events.")
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0
    chunking_strategy: str | None = None
    chunking_type: str | None = Field(None, alias="chunking_strategy[type]")
    chunking_padding: int | None = Field(None, alias="chunking_strategy[prefix_padding_ms]")
    chunking_silence: int | None = Field(None, alias="chunking_strategy[silence_duration_ms]")
    chunking_threshold: float | None = Field(None, alias="chunking_strategy[threshold]")
    timestamp_granularities: Texts = Field(None, alias="timestamp_granularities[]")
    include: Texts = Field(None, alias="include[]")
    keywords: Texts = Field(None, alias="keywords[]")
    languages: Texts = Field(None, alias="languages[]")
    known_speaker_names: Texts = Field(None, alias="known_speaker_names[]")
    known_speaker_references: Texts = Field(None, alias="known_speaker_references[]")


def openai_router(service: CaptionService) -> APIRouter:
    """The routes; they answer as OpenAI's do."""
    router = APIRouter(tags=["OpenAI's shape"])
    names = list(dict.fromkeys([service.model, *service.settings.aliases]))

    @router.get("/v1/models", summary="The names of the model", responses=problems())
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in names]}

    @router.get("/v1/models/{name}", summary="One name of the model", responses=problems(400, 404))
    async def model(name: str) -> dict[str, Any]:
        _check_model(name, names)
        return _model(name)

    @router.post(
        "/v1/audio/transcriptions",
        summary="Caption a recording, in the shape of a transcription",
        response_class=Response,
        responses={200: answers(EXAMPLES), **problems(400, 404, 415, 422, 503, 504)},
        openapi_extra=upload_body(TranscriptionRequest, many=False, raw=False),
    )
    async def transcriptions(request: Request) -> Response:
        """What is heard in a recording, where OpenAI's clients expect what is said in it."""
        async with AsyncExitStack() as held:
            upload, fields = await admitted(service, request, held)
            form = read_form(TranscriptionRequest, fields)
            _check_model(form.model, names)
            if len(upload.recordings) > 1:
                raise RequestRefused(400, "invalid_option", "file: one recording at a time; send several requests")
            if form.stream:
                events = text_events(service, upload.recordings[0], request.state.request_id)
                return HeldResponse(events, held.pop_all(), EVENT_STREAM)
            [result] = await unless_gone(request, all_results(service, upload, SETTINGS))
            return transcription(form.response_format, result, service.model)

    return router


def transcription(style: str, result: CaptionResult, model: str) -> Response:
    """The captions as a transcription in one of OpenAI's response formats."""
    if style == "json":
        seconds = math.ceil(result.duration)
        return JSONResponse({"text": result.text, "usage": {"type": "duration", "seconds": seconds}})
    if style == "verbose_json":
        return JSONResponse(verbose_table(result))
    if style == "text":
        return Response(result.text + "\n", media_type=FORMATS[style].media_type)
    return formatted(style, [result], model)


def verbose_table(result: CaptionResult) -> dict[str, object]:
    """What `verbose_json` holds: a segment for each window.

    avg_logprob is the logarithm of the caption's score where that is a probability; no_speech_prob says whether the
    window is silent. What a caption has not (compression, temperature, seek) holds a number that says nothing.
    """
    segments = []
    for number, caption in enumerate(result.captions):
        score = 0.0 if caption.score is None else caption.score
        segment = {
            "id": number,
            "seek": 0,
            "start": round(caption.start, DIGITS["seconds"]),
            "end": round(caption.end, DIGITS["seconds"]),
            "text": caption.text,
            "tokens": list(caption.candidates[0].token_ids) if caption.candidates else [],
            "temperature": 0.0,
            "avg_logprob": round(math.log(score) if score > 0 else score, DIGITS["score"]),
            "compression_ratio": 1.0,
            "no_speech_prob": float(caption.silence),
        }
        segments.append(segment)
    duration = round(result.duration, DIGITS["seconds"])
    seconds = {"type": "duration", "seconds": math.ceil(result.duration)}
    head: dict[str, object] = {"task": "transcribe", "language": LANGUAGE, "duration": duration}
    return head | {"text": result.text, "segments": segments, "usage": seconds}


async def text_events(service: CaptionService, recording: NamedFile, request_id: str) -> AsyncGenerator[str, None]:
    """A `transcript.text.delta` for each window, then `transcript.text.done`; a fault is the last event."""
    texts: list[str] = []
    try:
        async with time_limit(service), closing_stream(service, recording, SETTINGS) as found:
            async for caption in found:
                yield _event("transcript.text.delta", delta=f" {caption.text}" if texts else caption.text)
                texts.append(caption.text)
        yield _event("transcript.text.done", text=" ".join(texts))
    except EnclapError as error:
        yield server_event("error", problem_table(error, request_id))


def _event(kind: str, **fields: str) -> str:
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "enclap"}


def _check_model(name: str, names: list[str]) -> None:
    """Raises RequestRefused for the name of a model that is not served."""
    if name not in names:
        message = f"the model {name!r} does not exist; this server has {', '.join(names)}"
        raise RequestRefused(404, "model_not_found", message)
