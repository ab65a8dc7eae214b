"""What a client sends -> files and options; every fault of it is answered with the right status."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from enclap.serving.problems import RequestRefused
from enclap.serving.recordings import NamedFile

Form = TypeVar("Form", bound=BaseModel)

MEMORY_BYTES = 2**20  # of an upload, the rest goes to a temporary file
MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 32, 32, 64 * 1024
NAME_LENGTH = 255
AUDIO_TYPES = ("audio/", "video/", "application/octet-stream", "application/ogg", "application/mp4")
MULTIPART = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Upload:
    """The files and the fields of a request; closing `files` removes what nobody has begun to read."""

    recordings: tuple[NamedFile, ...]
    fields: dict[str, str | list[str]]

    def close(self) -> None:
        """Close the files that nobody reads; a reader closes its own."""
        for recording in self.recordings:
            if not recording.is_read:
                recording.close()


async def receive_upload(request: Request) -> Upload:
    """The files and fields of a multipart form, or the raw body, named by the query's `filename`, with its fields.

    Raises RequestRefused: 400 for a form that is damaged, 415 for a content that is no recording.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = _fields(request.query_params.multi_items())
    if kind == MULTIPART:
        upload = await _form(request, query)
    elif kind.startswith(AUDIO_TYPES):
        name = query.pop("filename", None)
        file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - whoever reads it closes it
        with ExitStack() as opened:
            opened.callback(file.close)
            async for piece in request.stream():
                file.write(piece)
            file.seek(0)
            opened.pop_all()
        shown = name[-NAME_LENGTH:] if isinstance(name, str) else None
        upload = Upload((NamedFile(cast(BinaryIO, file), shown or None),), query)
    else:
        message = "send multipart/form-data with a part 'file', or a recording as audio/… or application/octet-stream"
        raise RequestRefused(415, "unsupported_media_type", message)
    if not upload.recordings:
        raise RequestRefused(400, "file_missing", "the form has no part 'file'; add the recording as one")
    return upload


def read_form(form: type[Form], fields: dict[str, Any]) -> Form:
    """The fields as a checked value; RequestRefused names every field that is wrong."""
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'request'}: {fault['msg'].lower()}"
            for fault in error.errors()
        ]
        raise RequestRefused(400, "invalid_option", "; ".join(faults)) from error


async def _form(request: Request, query: dict[str, str | list[str]]) -> Upload:
    try:
        form = await request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except HTTPException as error:
        raise RequestRefused(400, "malformed_form", f"the form cannot be read: {error.detail}") from error
    except (ValueError, UnicodeError) as error:
        raise RequestRefused(400, "malformed_form", "the form cannot be read: it is damaged") from error
    with ExitStack() as opened:
        recordings, fields = [], []
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                fields.append((name, value))
                continue
            opened.callback(value.file.close)
            if name != "file":
                raise RequestRefused(400, "unknown_field", "the form has a file in another part than 'file'")
            recordings.append(NamedFile(value.file, (value.filename or "")[-NAME_LENGTH:] or None))
        opened.pop_all()
    return Upload(tuple(recordings), query | _fields(fields))


def _fields(items: Sequence[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Values by name; a name that is given several times has a list."""
    fields: dict[str, str | list[str]] = {}
    for name, value in items:
        before = fields.get(name)
        fields[name] = value if before is None else [*([before] if isinstance(before, str) else before), value]
    return fields
