"""Results -> text, JSON, tables, subtitles; a format is written piece by piece, so that results stream.

Every format shows the same caption, `Caption.text`; where candidates were asked for, they follow it and are marked.

To add a format: write a function from one `CaptionResult` to text and put a `Format` into `FORMATS`, and its name into
`FORMAT_NAMES` of cli/choices.py, and `FormatName` of serving/captions.py where the server is to offer it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO

from enclap.text import printable
from enclap.types import Candidate, Caption, CaptionResult

SCHEMA = 1  # of the JSON formats; raised when a field changes its meaning
DIGITS = {"seconds": 3, "score": 4}  # decimals in JSON and in tables
UNSAFE_IN_JSON = re.compile(r"[^\x20-\x7e\n]")
COLUMNS = ("path", "start", "end", "rank", "text", "score", "silence")
FORMULA_SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet read a cell as a formula, in the wide forms of East Asian keyboards too."""
MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
SMALLEST_GAP = 0.001  # seconds between captions that are not neighbours
SHORTEST_CUE = 40  # milliseconds, one picture at 25 per second: players drop a subtitle without duration


@dataclass(frozen=True, slots=True)
class Format:
    """How results are written; what a user calls it is its key in `FORMATS`.

    suffix: of its files. media_type: for HTTP. piece: one result as text. head: the text before them all, made from the
    model's name. separator: between pieces. tail: after them all. one_recording: whether a file describes a single
    recording.
    """

    suffix: str
    media_type: str
    piece: Callable[[CaptionResult], str]
    head: Callable[[str], str] = lambda model: ""
    separator: str = ""
    tail: str = ""
    one_recording: bool = False

    def __call__(self, results: Iterable[CaptionResult], model: str) -> Iterator[str]:
        """The document in pieces: the head, one piece for each result as soon as it comes, the tail."""
        yield self.head(model)
        for number, result in enumerate(results):
            yield (self.separator if number else "") + self.piece(result)
        yield self.tail

    def encoded(self, results: Iterable[CaptionResult], model: str) -> Iterator[bytes]:
        """The pieces as the bytes that `enclap caption` writes to files."""
        return map(encode, self(results, model))


def encode(piece: str) -> bytes:
    """UTF-8; what it cannot hold, as half of a surrogate pair, becomes an escape."""
    return piece.encode("utf-8", "backslashreplace")


def _text(result: CaptionResult) -> str:
    """`path: caption`; recordings of several windows get a heading and a line a window."""
    name = printable(result.path or "audio")
    if len(result.captions) == 1:
        caption = result.captions[0]
        return f"{name}: {_sentence(caption)}\n" + _others(caption, "  ")
    width = len(clock(result.duration))
    lines = [f"{name}\n"]
    for caption in result.captions:
        span = f"{clock(caption.start):>{width}} - {clock(caption.end):>{width}}"
        lines.append(f"  {span}  {_sentence(caption)}\n{_others(caption, ' ' * (len(span) + 4))}")
    return "".join(lines)


def _cues(point: str, numbered: bool, marks: Mapping[int, str], result: CaptionResult) -> str:
    """Subtitles, each after its time span; neighbours with the same caption are one.

    point: before the milliseconds. marks: what stands for signs that the format reads as markup.
    """
    cues = []
    for number, caption in enumerate(join_neighbours(result.captions), start=1):
        start, end = (round(1000 * moment) for moment in (caption.start, caption.end))
        span = f"{_timestamp(start, point)} --> {_timestamp(max(end, start + SHORTEST_CUE), point)}"
        head = f"{number}\n" if numbered else ""
        cues.append(f"{head}{span}\n{printable(caption.text).translate(marks)}\n\n")
    return "".join(cues)


def _table_head(delimiter: str, model: str) -> str:
    return table_row(COLUMNS, delimiter)


def _table_rows(delimiter: str, result: CaptionResult) -> str:
    """A row for each window, its caption, rank 1, and where several candidates were asked for, one for each other.

    A lone candidate gets no row: where it was not trusted, a table of one row for each window must not show it.
    """
    rows, name = "", safe_cell(printable(result.path or "audio"))
    for caption in result.captions:
        times = [f"{moment:.{DIGITS['seconds']}f}" for moment in (caption.start, caption.end)]
        others: tuple[Candidate, ...] = caption.candidates if len(caption.candidates) > 1 else ()
        if others and others[0].text == caption.text:
            others = others[1:]
        shown: tuple[Caption | Candidate, ...] = (caption, *others)
        for rank, item in enumerate(shown, start=1):
            score = "" if item.score is None else f"{item.score:.{DIGITS['score']}f}"
            cells = [name, *times, str(rank), safe_cell(printable(item.text)), score, str(caption.silence).lower()]
            rows += table_row(cells, delimiter)
    return rows


FORMATS: dict[str, Format] = {
    "text": Format(".txt", "text/plain; charset=utf-8", _text),
    "json": Format(
        ".json",
        "application/json",
        lambda result: "\n" + json_line(as_table(result)),
        lambda model: f'{{"schema": {SCHEMA}, "model": {json_line(printable(model))}, "results": [',
        separator=",",
        tail="\n]}\n",
    ),
    "jsonl": Format(".jsonl", "application/jsonl", lambda result: json_line(as_table(result)) + "\n"),
    "csv": Format(".csv", "text/csv; charset=utf-8", partial(_table_rows, ","), partial(_table_head, ",")),
    "tsv": Format(
        ".tsv", "text/tab-separated-values; charset=utf-8", partial(_table_rows, "\t"), partial(_table_head, "\t")
    ),
    "srt": Format(".srt", "application/x-subrip; charset=utf-8", partial(_cues, ",", True, {}), one_recording=True),
    "vtt": Format(
        ".vtt",
        "text/vtt; charset=utf-8",
        partial(_cues, ".", False, MARKUP),
        head=lambda model: "WEBVTT\n\n",
        one_recording=True,
    ),
}


def as_table(result: CaptionResult) -> dict[str, object]:
    """The result as the JSON formats show it; in a path, bytes that are not UTF-8 look like \\xff."""
    return {
        "path": None
        if result.path is None
        else "".join(
            printable(character) if "\ud800" <= character <= "\udfff" else character for character in result.path
        ),
        "duration": round(result.duration, DIGITS["seconds"]),
        "captions": [caption_table(caption) for caption in result.captions],
    }


def caption_table(caption: Caption) -> dict[str, object]:
    """One caption as the JSON formats show it."""
    return {
        "start": round(caption.start, DIGITS["seconds"]),
        "end": round(caption.end, DIGITS["seconds"]),
        "text": caption.text,
        "score": _score(caption.score),
        "silence": caption.silence,
        "candidates": [{"text": item.text, "score": _score(item.score)} for item in caption.candidates],
    }


def join_neighbours(captions: Iterable[Caption]) -> list[Caption]:
    """The captions, with each run of the same sentence made one caption that spans the run.

    Where time is missing between two captions they are not joined.
    """
    joined: list[Caption] = []
    for caption in captions:
        if joined and joined[-1].text == caption.text and caption.start - joined[-1].end < SMALLEST_GAP:
            caption = replace(joined.pop(), end=caption.end)
        joined.append(caption)
    return joined


def clock(seconds: float) -> str:
    """12.34 -> 0:12.3, 3723 -> 1:02:03.0."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def _sentence(caption: Caption) -> str:
    """The caption's text, with its score when there are candidates to compare it with."""
    several = len(caption.candidates) > 1 and caption.score is not None
    shown = printable(caption.text)
    return f"{shown} ({caption.score:.2f})" if several else shown


def _others(caption: Caption, indent: str) -> str:
    """The candidates beside the caption, a line each; sampling may propose a sentence twice, which is one line."""
    others: dict[str, float] = {}
    for item in caption.candidates:
        if item.text != caption.text:
            others.setdefault(item.text, item.score)
    return "".join(f"{indent}or: {printable(sentence)} ({score:.2f})\n" for sentence, score in others.items())


def safe_cell(content: str) -> str:
    """Text after an apostrophe where a spreadsheet would run it; a lone sign, as standard input's "-", runs nothing.

    Source: OWASP, "CSV Injection".
    """
    return "'" + content if len(content) > 1 and content.lstrip().startswith(FORMULA_SIGNS) else content


def table_row(cells: Iterable[str], delimiter: str) -> str:
    """A line of a table, quoted where it must be."""
    line = StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _timestamp(milliseconds: int, point: str) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{fraction:03d}"


def _score(score: float | None) -> float | None:
    return None if score is None else round(score, DIGITS["score"])


def json_line(value: object) -> str:
    """JSON on one line: readable characters as they are, what could disturb a terminal as \\uXXXX."""
    plain = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return UNSAFE_IN_JSON.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], plain)
