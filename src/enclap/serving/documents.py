"""What the OpenAPI document says of requests that are read by hand, of answers in several types, and of failures."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

AUDIO = {"type": "string", "format": "binary"}
STATUSES = {
    400: "An option or the form is wrong.",
    401: "A key is needed.",
    404: "There is no such thing.",
    403: "Host or Origin is not allowed.",
    408: "The upload is too slow.",
    409: "Not yet.",
    413: "Larger than this server takes.",
    415: "No recording.",
    422: "The recording cannot be captioned.",
    429: "The queue is full, or too many requests; come again after Retry-After seconds.",
    503: "The server is stopping.",
    504: "It takes too long.",
}


class Problem(BaseModel):
    """Why a request failed: code for programs, message for people, request_id for the server's log."""

    code: str
    message: str
    type: str
    param: str | None
    request_id: str


class ProblemDocument(BaseModel):
    """The answer to every request that failed."""

    error: Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these failures beside those that every route has."""
    return {
        status: {"model": ProblemDocument, "description": STATUSES[status]}
        for status in (*statuses, 401, 403, 408, 413, 429)
    }


def upload_body(form: type[BaseModel], *, many: bool, raw: bool) -> dict[str, Any]:
    """`requestBody`, and for raw bodies the query, of a route that takes recordings with the fields of `form`."""
    schema = form.model_json_schema()
    files = {"type": "array", "items": AUDIO, "minItems": 1} if many else AUDIO
    fields = {
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in schema["properties"].items()
    }
    required = ["file", *schema.get("required", [])]
    table = {
        "type": "object",
        "properties": {"file": files, **fields},
        "required": required,
        "additionalProperties": False,
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": table}}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if raw:
        content |= {kind: {"schema": AUDIO} for kind in ("audio/wav", "audio/mpeg", "application/octet-stream")}
    return extra


def answers(types: dict[str, str]) -> dict[str, Any]:
    """The `200` of a route that answers in several types; types: media type -> example.

    Events have no schema: one of the stream's whole text would be taken for that of each event.
    """
    schemas: dict[str, dict[str, Any]] = {kind: {} if kind == "text/event-stream" else {"schema": {}} for kind in types}
    return {"content": {kind: {**schema, "example": types[kind]} for kind, schema in schemas.items()}}


def header(name: str, pattern: str, description: str) -> dict[str, Any]:
    """An optional header of a route, as one of its `parameters`."""
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
