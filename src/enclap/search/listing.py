"""What a search found, as text, JSON, a table, or a list that players play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enclap.output.formats import DIGITS, clock, json_line, safe_cell, table_row
from enclap.text import printable

SCHEMA = 1
"""Version of the JSON; raised when a field changes its meaning."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A part of a recording that a search found, in seconds on its time line.

    path: below the library's folder, or the whole of it. score: how probable it is, 0 to 1, that the part fits.
    """

    path: str
    start: float
    end: float
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class CopyPair:
    """Two recordings that hold the same sound: `path` begins `offset` seconds into `of`, before it where negative.

    overlap: seconds of both. score: share of equal bits of their fingerprints, 0.5 to 1.
    """

    path: str
    of: str
    offset: float
    overlap: float
    score: float


def list_hits(style: str, hits: Sequence[Hit]) -> str:
    """The hits in a format of `HIT_FORMATS`."""
    return HIT_FORMATS[style](hits)


def list_copies(style: str, pairs: Sequence[CopyPair]) -> str:
    """The pairs in a format of `COPY_FORMATS`."""
    return COPY_FORMATS[style](pairs)


def hit_table(hit: Hit) -> dict[str, object]:
    """A hit as JSON shows it."""
    times = {"start": round(hit.start, DIGITS["seconds"]), "end": round(hit.end, DIGITS["seconds"])}
    return {"path": hit.path, **times, "text": hit.text, "score": round(hit.score, DIGITS["score"])}


def hits_text(hits: Sequence[Hit]) -> str:
    """A line for each hit."""
    lines = []
    for hit in hits:
        span = f"{clock(hit.start)} - {clock(hit.end)}"
        lines.append(f"{hit.score:.2f}  {printable(hit.path)}  {span}  {printable(hit.text)}\n")
    return "".join(lines)


def hits_json(hits: Sequence[Hit]) -> str:
    """One JSON object."""
    return json_line({"schema": SCHEMA, "results": [hit_table(hit) for hit in hits]}) + "\n"


def hits_csv(hits: Sequence[Hit]) -> str:
    """A table."""
    rows = [table_row(("path", "start", "end", "text", "score"), ",")]
    for hit in hits:
        numbers = [f"{moment:.{DIGITS['seconds']}f}" for moment in (hit.start, hit.end)]
        cells = [safe_cell(printable(hit.path)), *numbers, safe_cell(printable(hit.text))]
        rows.append(table_row([*cells, f"{hit.score:.{DIGITS['score']}f}"], ","))
    return "".join(rows)


def hits_m3u(hits: Sequence[Hit]) -> str:
    """An extended M3U list; VLC plays the part from start to end, other players the file."""
    lines = ["#EXTM3U\n"]
    for hit in hits:
        lines.append(f"#EXTINF:{hit.end - hit.start:.0f},{printable(hit.text)}\n")
        lines.append(f"#EXTVLCOPT:start-time={hit.start:.3f}\n#EXTVLCOPT:stop-time={hit.end:.3f}\n")
        lines.append(hit.path.replace("\n", "%0A").replace("\r", "%0D") + "\n")
    return "".join(lines)


def copies_text(pairs: Sequence[CopyPair]) -> str:
    """A line for each pair."""
    lines = []
    for pair in pairs:
        place = f"{pair.overlap:.1f} s of both, from {pair.offset:.2f} s on"
        lines.append(f"{pair.score:.2f}  {printable(pair.path)}  =  {printable(pair.of)}  ({place})\n")
    return "".join(lines)


def copies_json(pairs: Sequence[CopyPair]) -> str:
    """One JSON object."""
    results = [
        {
            "path": pair.path,
            "of": pair.of,
            "offset": round(pair.offset, DIGITS["seconds"]),
            "overlap": round(pair.overlap, DIGITS["seconds"]),
            "score": round(pair.score, DIGITS["score"]),
        }
        for pair in pairs
    ]
    return json_line({"schema": SCHEMA, "duplicates": results}) + "\n"


def copies_csv(pairs: Sequence[CopyPair]) -> str:
    """A table."""
    rows = [table_row(("path", "of", "offset", "overlap", "score"), ",")]
    for pair in pairs:
        numbers = [f"{moment:.{DIGITS['seconds']}f}" for moment in (pair.offset, pair.overlap)]
        cells = [safe_cell(printable(pair.path)), safe_cell(printable(pair.of)), *numbers]
        rows.append(table_row([*cells, f"{pair.score:.{DIGITS['score']}f}"], ","))
    return "".join(rows)


HIT_FORMATS: dict[str, Callable[[Sequence[Hit]], str]] = {
    "text": hits_text,
    "json": hits_json,
    "csv": hits_csv,
    "m3u": hits_m3u,
}
COPY_FORMATS: dict[str, Callable[[Sequence[CopyPair]], str]] = {
    "text": copies_text,
    "json": copies_json,
    "csv": copies_csv,
}
