"""What the page's script asks for: recordings in, and out again as sound, picture and documents."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path, PurePath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response

from enclap.output.formats import FORMATS
from enclap.serving.captions import FormatName, formatted
from enclap.serving.page_pictures import spectrogram_png
from enclap.serving.page_recordings import RECORDINGS, PageRecording, PageRecordings
from enclap.serving.problems import RequestRefused
from enclap.serving.recordings import CaptionService
from enclap.serving.uploads import NAME_LENGTH

EXAMPLES = {"siren.ogg": "Siren", "steam_whistle.ogg": "Steam whistle", "long_scene.mp3": "Rain, crickets, waves"}
"""Sounds to try the page with, and what the page calls them."""
EXAMPLE_FOLDERS = (Path(__file__).parent / "examples", Path(__file__).parents[3] / "examples")
"""Where they lie: in the installed package, and in a clone."""
KEPT_HERE = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "sandbox; default-src 'none'"}
"""Of an answer that holds what somebody sent: no other user's, and never a page with scripts."""
LIVE_NAME = "Recording.wav"
MOST_PIECE = 8 * 2**20  # bytes of a microphone's sound that are held at once
MOST_ROWS = 50  # captions in one answer: a browser that puts in hundreds at once stands still meanwhile
UNUSED = ("upload", "upload_progress", "file=", "file/", "proxy=", "stream/", "component_server")
"""Beginnings of Gradio's routes that nothing here uses: they take files, tell paths, or fetch from other servers."""


def page_routes(service: CaptionService, recordings: PageRecordings) -> APIRouter:
    """The routes below `RECORDINGS`, and the end of those of Gradio's that are not to be used."""
    router = APIRouter()
    add_ways_in(router, recordings)
    add_ways_out(router, service, recordings)

    async def unused(request: Request) -> Response:
        raise RequestRefused(404, "not_found", "the page does not use this route")

    for route in UNUSED:
        for prefix in ("/gradio_api/", "/"):
            router.add_route(f"{prefix}{route}{{rest:path}}", unused, ["GET", "HEAD", "POST"])
    return router


def add_ways_in(router: APIRouter, recordings: PageRecordings) -> None:
    """Routes that take a recording: a file, an example, or a microphone's sound piece by piece."""

    @router.post(RECORDINGS)
    async def receive(request: Request, name: str = "", example: str = "", replaces: str = "") -> Response:
        owner = request.state.owner
        recordings.forget(replaces, owner)
        if example:
            recording = await recordings.receive(example, owner, _pieces_of_example(example))
        else:
            recording = await recordings.receive(name[-NAME_LENGTH:] or "recording", owner, request.stream())
        return JSONResponse({"id": recording.id}, 201)

    @router.post(f"{RECORDINGS}/live")
    async def begin(request: Request, rate: int, replaces: str = "") -> Response:
        recordings.forget(replaces, request.state.owner)
        return JSONResponse({"id": recordings.begin(LIVE_NAME, request.state.owner, rate).id}, 201)

    @router.patch(RECORDINGS + "/{id}")
    async def append(request: Request, id: str, at: int, last: bool = False) -> Response:
        recording, piece = recordings.find(id, request.state.owner), b""
        async for part in request.stream():
            piece += part
            if len(piece) > MOST_PIECE:
                raise RequestRefused(413, "too_large", f"send at most {MOST_PIECE} bytes of sound at once")
        size = await recordings.append(recording, at, piece)
        if last:
            recording.end()
        return JSONResponse({"bytes": size})


def add_ways_out(router: APIRouter, service: CaptionService, recordings: PageRecordings) -> None:
    """Routes that give something of a recording: its sound, its picture, its captions as documents."""
    drawing = asyncio.Semaphore(1)  # a picture of an hour takes a core for seconds

    def found(id: str, request: Request) -> PageRecording:
        return recordings.find(id, request.state.owner)

    @router.get(RECORDINGS + "/{id}/sound")
    async def sound(request: Request, id: str) -> Response:
        recording = found(id, request)
        kind = mimetypes.guess_type(recording.name)[0] or ""
        kind = kind if kind.startswith(("audio/", "video/")) else "application/octet-stream"
        name = recording.name
        return FileResponse(recording.path, 200, KEPT_HERE, kind, filename=name, content_disposition_type="inline")

    @router.get(RECORDINGS + "/{id}/spectrogram")
    async def spectrogram(request: Request, id: str, seconds: Annotated[float, Query(gt=0, le=1e6)]) -> Response:
        recording = found(id, request)
        async with drawing:
            with closing(recording.opened()) as file:
                limits = service.settings.read_limits
                picture = await asyncio.to_thread(spectrogram_png, file.source, limits, seconds)
        return Response(picture, media_type="image/png", headers=KEPT_HERE)

    @router.get(RECORDINGS + "/{id}/rows")
    async def rows(request: Request, id: str, run: str, first: Annotated[int, Query(ge=0)]) -> Response:
        recording = found(id, request)
        if recording.run != run:
            raise RequestRefused(409, "captioned_again", "the recording is captioned again; these rows are gone")
        return JSONResponse({"rows": recording.rows[first : first + MOST_ROWS]}, headers={"Cache-Control": "no-store"})

    @router.get(RECORDINGS + "/{id}/captions")
    async def captions(request: Request, id: str, format: FormatName) -> Response:
        recording = found(id, request)
        if recording.result is None:
            raise RequestRefused(409, "not_done", "this recording has no captions yet; wait for them")
        answer = formatted(format, [recording.result], service.model)
        name = quote(PurePath(recording.name).stem + FORMATS[format].suffix, safe="")
        answer.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        return answer


async def _pieces_of_example(name: str) -> AsyncIterator[bytes]:
    """The content of an example; RequestRefused for a name that is none."""
    if name not in EXAMPLES:
        raise RequestRefused(404, "not_found", f"there is no such example; there are {', '.join(EXAMPLES)}")
    path = next(path for folder in EXAMPLE_FOLDERS if (path := folder / name).is_file())
    yield await asyncio.to_thread(path.read_bytes)
