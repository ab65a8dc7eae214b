"""Results -> text, JSON, JSON lines, subtitles; a format is a generator of pieces, so that results stream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from enclap.names import printable
from enclap.types import Caption, CaptionResult

SCHEMA = 1  # of the JSON formats; raised when a field changes its meaning
DIGITS = {"seconds": 3, "score": 4}  # decimals in JSON
UNSAFE_IN_JSON = re.compile(r"[^\x20-\x7e\n]")

Format = Callable[[Iterable[CaptionResult], str], Iterator[str]]


def text(results: Iterable[CaptionResult], model: str) -> Iterator[str]:
    """`path: caption` a line; recordings of several windows get a heading and a line a window."""
    for result in results:
        name = printable(result.path or "audio")
        if len(result.captions) == 1:
            caption = result.captions[0]
            yield f"{name}: {caption.text}\n" + _others(caption, "  ")
            continue
        width = len(_clock(result.duration))
        lines = [f"{name}\n"]
        for caption in result.captions:
            span = f"{_clock(caption.start):>{width}} - {_clock(caption.end):>{width}}"
            lines.append(f"  {span}  {caption.text}\n{_others(caption, ' ' * (len(span) + 4))}")
        yield "".join(lines)


def json_document(results: Iterable[CaptionResult], model: str) -> Iterator[str]:
    """One document: schema, model and results; written as the results come, whole once they end."""
    yield f'{{"schema": {SCHEMA}, "model": {_json(printable(model))}, "results": ['
    separator = "\n"
    for result in results:
        yield f"{separator}{_json(as_table(result))}"
        separator = ",\n"
    yield "\n]}\n"


def json_lines(results: Iterable[CaptionResult], model: str) -> Iterator[str]:
    """One result object a line."""
    for result in results:
        yield _json(as_table(result)) + "\n"


def srt(results: Iterable[CaptionResult], model: str) -> Iterator[str]:
    """SubRip subtitles of one recording; neighbours with the same caption are one subtitle."""
    for result in results:
        for number, caption in enumerate(join_neighbours(result.captions), start=1):
            yield f"{number}\n{_timestamp(caption.start)} --> {_timestamp(caption.end)}\n{caption.text}\n\n"


FORMATS: dict[str, Format] = {"text": text, "json": json_document, "jsonl": json_lines, "srt": srt}
SUFFIXES = {"text": ".txt", "json": ".json", "jsonl": ".jsonl", "srt": ".srt"}
ONE_RECORDING = frozenset({"srt"})
"""Formats whose files describe a single recording."""


def as_table(result: CaptionResult) -> dict[str, object]:
    """The result as the JSON formats show it; in a path, bytes that are not UTF-8 look like \\xff."""
    return {
        "path": None if result.path is None else _decodable(result.path),
        "duration": round(result.duration, DIGITS["seconds"]),
        "captions": [
            {
                "start": round(caption.start, DIGITS["seconds"]),
                "end": round(caption.end, DIGITS["seconds"]),
                "text": caption.text,
                "score": _score(caption.score),
                "silence": caption.silence,
                "candidates": [{"text": item.text, "score": _score(item.score)} for item in caption.candidates],
            }
            for caption in result.captions
        ],
    }


def join_neighbours(captions: Iterable[Caption]) -> list[Caption]:
    """The captions, with each run of the same sentence made one caption that spans the run."""
    joined: list[Caption] = []
    for caption in captions:
        if joined and joined[-1].text == caption.text:
            first = joined.pop()
            caption = Caption(first.start, caption.end, first.text, first.score, first.silence, first.candidates)
        joined.append(caption)
    return joined


def _others(caption: Caption, indent: str) -> str:
    """The candidates beside the chosen one, a line each."""
    others = [item.text for item in caption.candidates if item.text != caption.text]
    return "".join(f"{indent}or: {other}\n" for other in others)


def _clock(seconds: float) -> str:
    """12.34 -> 0:12.3, 3723 -> 1:02:03.0."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def _timestamp(seconds: float) -> str:
    """SubRip's hours:minutes:seconds,milliseconds."""
    milliseconds = round(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{fraction:03d}"


def _score(score: float | None) -> float | None:
    return None if score is None else round(score, DIGITS["score"])


def _decodable(path: str) -> str:
    return "".join(printable(character) if "\ud800" <= character <= "\udfff" else character for character in path)


def _json(value: object) -> str:
    """JSON on one line: readable characters as they are, what could disturb a terminal as \\uXXXX."""
    plain = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return UNSAFE_IN_JSON.sub(lambda found: _escaped(found.group()), plain)


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]
