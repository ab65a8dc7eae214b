"""Tools for agents, over the Model Context Protocol: what is heard in a recording, window by window.

A tool answers within seconds: a long recording gives its first captions and a handle, to ask again with. A handle is
a job, so that one that was made over HTTP can be asked for here, and the other way round.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import stat
import time
from contextlib import closing
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, BinaryIO, Literal, cast

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from enclap.captioner import Captioner
from enclap.errors import EnclapError
from enclap.serving.access import ANONYMOUS
from enclap.serving.captions import CaptionForm
from enclap.serving.job_runner import JobRunner
from enclap.serving.job_store import UNFINISHED
from enclap.serving.recordings import CaptionService, NamedFile
from enclap.serving.search_tool import add_search_tool
from enclap.serving.settings import ServeSettings
from enclap.text import printable
from enclap.version import __version__

WAIT_SECONDS, POLL_SECONDS = 20.0, 0.05  # for captions, before a handle is given
STDIO_QUOTA, STDIO_KEEP_SECONDS = 64 * 2**30, 7 * 24 * 3600.0
INSTRUCTIONS = (
    "Describes sounds: environmental sound, animals, machines, music; not what is said in speech. "
    "caption_audio gives English sentences for a recording, one for every ten seconds. When its state is not 'done', "
    "call get_captions with its handle until it is."
)
UPLOAD = (
    "Instead of audio: the id that this server gave when the file was sent to its POST /v1/uploads, with the same key. "
    "For files that are too large to be sent along."
)
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)

Window = Annotated[float, Field(ge=0, description="Seconds of audio per caption; 0 for one caption of it all.")]
Alternatives = Annotated[int, Field(ge=1, le=64, description="Sentences to propose for each window, the best first.")]
Handle = Annotated[str, Field(description="The handle that caption_audio gave, or the id of a job.")]


class CaptionedWindow(BaseModel):
    """What is heard from `start` to `end`, in seconds; score is 0 to 1, null for silence."""

    start: float
    end: float
    text: str
    score: float | None
    alternatives: list[str]


class Captions(BaseModel):
    """The captions so far. state: queued or running (ask again with the handle), done, or failed (see error)."""

    state: Literal["queued", "running", "done", "failed"]
    handle: str
    seconds: float = Field(description="How much is captioned.")
    declared_seconds: float | None = Field(description="How long the recording says that it is.")
    captions: list[CaptionedWindow]
    error: str | None = None


def http_server(runner: JobRunner) -> MCPServer[Any]:
    """The tools as they are offered over HTTP: audio comes as base64 or as an upload; no path means anything."""
    server = _server(runner)

    @server.tool(annotations=READ_ONLY, structured_output=True)
    async def caption_audio(
        context: Context[Any, Any],
        audio: Annotated[str | None, Field(description="The bytes of an audio or video file, in base64.")] = None,
        name: Annotated[str, Field(max_length=255, description="The file's name, such as dog.wav.")] = "audio",
        upload: Annotated[str | None, Field(description=UPLOAD)] = None,
        window: Window = 10.0,
        candidates: Alternatives = 1,
    ) -> Captions:
        """Describe in English sentences what can be heard in a recording: give either `audio` or `upload`."""
        owner = _owner(context)
        if (audio is None) == (upload is None):
            raise ToolError("give either audio, the bytes in base64, or upload, the id of an upload")
        if upload is not None:
            try:
                recording = await asyncio.to_thread(runner.open_upload, owner, upload)
            except EnclapError as error:
                raise ToolError(str(error)) from error
            return await _caption(runner, owner, recording, window, candidates)
        try:
            content = base64.b64decode(str(audio), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ToolError("audio is not base64; send the bytes of the file encoded as base64") from error
        return await _caption(runner, owner, NamedFile(BytesIO(content), name), window, candidates)

    return server


def stdio_server(runner: JobRunner, folders: tuple[Path, ...]) -> MCPServer[Any]:
    """The tools as they are offered to a program on this machine: files below `folders` are named by their path."""
    server = _server(runner)

    @server.tool(annotations=READ_ONLY, structured_output=True)
    async def caption_audio(
        path: Annotated[str, Field(description="Path of an audio or video file below a folder that is allowed.")],
        window: Window = 10.0,
        candidates: Alternatives = 1,
    ) -> Captions:
        """Describe in English sentences what can be heard in a file."""
        file = await asyncio.to_thread(open_allowed, path, folders)
        return await _caption(runner, ANONYMOUS, NamedFile(file, path), window, candidates)

    return server


def serve_stdio(captioner: Captioner, folders: tuple[Path, ...], library: Path | None = None) -> None:
    """Answer over standard input and output until that is closed; what was captioned is forgotten then.

    library: of sounds that can be searched, None for none.
    """
    service = CaptionService(captioner, ServeSettings(library=library))
    service.start()
    try:
        with TemporaryDirectory(prefix="enclap-mcp-") as state:
            runner = JobRunner(service, Path(state), STDIO_QUOTA, STDIO_KEEP_SECONDS)
            runner.start()
            try:
                stdio_server(runner, folders).run("stdio")
            finally:
                runner.stop()
    finally:
        service.stop()


def open_allowed(path: str, folders: tuple[Path, ...]) -> BinaryIO:
    """The opened file; ToolError unless it lies below one of the folders after links and `..` are resolved.

    What is opened is the resolved path, without following a link that has taken its place meanwhile.
    """
    shown = printable(path)
    try:
        resolved = Path(path).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ToolError(f"{shown}: no such file below a folder that is allowed") from error
    if not any(resolved.is_relative_to(folder.resolve()) for folder in folders):
        raise ToolError(f"{shown}: no such file below a folder that is allowed")
    try:
        handle = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ToolError(f"{shown}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ToolError(f"{shown}: is no ordinary file; name a recording")
    return os.fdopen(handle, "rb")


def _server(runner: JobRunner) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer(
        "enclap", title="enclap: describes sounds", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )

    add_search_tool(server, runner.service.settings)

    @server.tool(annotations=READ_ONLY, structured_output=True)
    async def get_captions(context: Context[Any, Any], handle: Handle) -> Captions:
        """The captions of a recording that caption_audio or a job has begun; waits a while for the rest of them."""
        return await _wait(runner, _owner(context), handle)

    return server


async def _caption(runner: JobRunner, owner: str, recording: NamedFile, window: float, candidates: int) -> Captions:
    """A new job's captions, as far as they come while one waits."""
    try:
        form = CaptionForm(window=window, candidates=candidates)
        runner.service.check(form.settings)
        with closing(recording):
            job = await asyncio.to_thread(runner.submit, owner, recording, form.model_dump())
    except (EnclapError, ValidationError) as error:
        raise ToolError(str(error)) from error
    return await _wait(runner, owner, job.id)


async def _wait(runner: JobRunner, owner: str, handle: str) -> Captions:
    """The state of a job: when it has ended, or after a while."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        job = await asyncio.to_thread(runner.store.find, handle, owner)
        if job is None:
            raise ToolError("there is no such handle, or it belongs to another key")
        if job.state not in UNFINISHED or time.monotonic() > until:
            break
        await asyncio.sleep(POLL_SECONDS)
    captions = await asyncio.to_thread(runner.store.captions, handle)
    windows = [
        CaptionedWindow(
            start=round(caption.start, 3),
            end=round(caption.end, 3),
            text=caption.text,
            score=caption.score,
            alternatives=[candidate.text for candidate in caption.candidates if candidate.text != caption.text],
        )
        for caption in captions
    ]
    return Captions(
        state=cast(Any, job.state),
        handle=handle,
        seconds=windows[-1].end if windows else 0.0,
        declared_seconds=job.declared,
        captions=windows,
        error=job.error and job.error["error"]["message"],
    )


def _owner(context: Context[Any, Any]) -> str:
    """Whose jobs are meant: over HTTP those of the key, over stdio those of the one program there."""
    request = context.request_context.request
    owner = ANONYMOUS if request is None else request.state.owner
    return str(owner)
