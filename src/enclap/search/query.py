"""Sounds by words: nearness of text and sound, full text over captions and names, and one ranking of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import PurePosixPath

from enclap.engines.base import Engine
from enclap.errors import UsageError
from enclap.search.labels import text_vector
from enclap.search.library import Library
from enclap.search.listing import Hit
from enclap.search.relevance import WORD_CURVE, evidence
from enclap.search.store import CAPTION, NAMES, Row, quoted
from enclap.search.words import check_words, content_lemmas
from enclap.text import printable

RANK_OFFSET = 5
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): how little the very first ranks stand out."""
WEIGHTS = {"sound": 1.0, "caption": 1.0, "name": 2.0}
"""What a rank among sounds, captions and names of files counts. Chosen on validation, as RANK_OFFSET was."""
FEWEST, MOST = 200, 20_000
"""Windows that a ranking gives at first, and when too few different files are among them."""
NANOSECONDS = 10**9
Key = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which windows a search may find.

    folder: below the library's, with forward slashes. shortest, longest: seconds of the whole recording. since, until:
    days on which its file was changed last, both included. score: least score of a hit.
    """

    folder: str | None = None
    shortest: float | None = None
    longest: float | None = None
    since: date | None = None
    until: date | None = None
    score: float = 0.0

    @property
    def condition(self) -> str | None:
        """What the rows must fulfil, in SQL; None for nothing."""
        parts = []
        if self.folder is not None:
            inside = PurePosixPath(self.folder).as_posix().strip("/")
            parts += [f"starts_with(path, {quoted(inside + '/')})"] if inside not in ("", ".") else []
        if self.shortest is not None:
            parts.append(f"duration >= {float(self.shortest)!r}")
        if self.longest is not None:
            parts.append(f"duration <= {float(self.longest)!r}")
        if self.since is not None:
            parts.append(f"modified >= {_nanoseconds(self.since)}")
        if self.until is not None:
            parts.append(f"modified < {_nanoseconds(date.fromordinal(self.until.toordinal() + 1))}")
        return " AND ".join(parts) or None


def search_words(
    library: Library, engine: Engine, words: str, limit: int, filters: Filters | None = None, *, segments: bool = False
) -> list[Hit]:
    """The sounds that fit the words best, the best first, with calibrated scores.

    segments: windows one by one; otherwise each file once, with its best window. Raises UsageError for a query without
    words, or with too many.
    """
    check_words(words)
    filters = filters or Filters()
    rows, vector, where = library.rows, text_vector(engine, words), filters.condition
    count = max(FEWEST, 4 * limit)
    while True:
        near = rows.nearest(vector, count, where)
        if len(near) < count or count >= MOST or len({_unit(row, segments) for row in near}) >= limit:
            break
        count = min(MOST, 4 * count)
    captions, names = (rows.matching(column, words, vector, count, where) for column in (CAPTION, NAMES))
    known = {key_of(row): row for row in (*names, *captions, *near)}
    named = {row.path: row.matched for row in names}
    rankings = {
        "sound": _best(((row, row.similarity) for row in known.values()), segments),
        "caption": _best(((row, row.matched) for row in captions), segments),
        "name": {_unit(row, segments): named[row.path] for row in known.values() if row.path in named},
    }
    order = fuse([(rankings[name], weight) for name, weight in WEIGHTS.items()])
    best: dict[Key, Row] = {}
    for row in known.values():
        unit = _unit(row, segments)
        if unit not in best or _shown_first(row) > _shown_first(best[unit]):
            best[unit] = row
    hits: list[Hit] = []
    for unit in order:
        row = best[unit]
        score = WORD_CURVE.probability(*relevance_values(words, row))
        if score >= filters.score:
            hits.append(Hit(row.path, row.start, row.end, row.caption, score))
        if len(hits) == limit:
            break
    return hits


def fuse(rankings: Iterable[tuple[Mapping[Key, float], float]]) -> list[Key]:
    """All keys, by the sum over the rankings of weight / (RANK_OFFSET + rank), the best first.

    rankings: scores and a weight. The rank is one more than the number of higher scores: equals do not oust each other.
    """
    sums: dict[Key, float] = {}
    for scores, weight in rankings:
        ordered = sorted(scores.values(), reverse=True)
        ranks = {score: rank for rank, score in reversed(list(enumerate(ordered, start=1)))}
        for key, score in scores.items():
            sums[key] = sums.get(key, 0.0) + weight / (RANK_OFFSET + ranks[score])
    return sorted(sums, key=lambda key: (-sums[key], key))


def relevance_values(words: str, row: Row) -> tuple[float, float, float]:
    """What the score of a window is made of: evidence of the sound, shares of the words in its caption and its name."""
    asked = content_lemmas(words)
    in_caption, in_name = (len(asked & content_lemmas(t)) / max(1, len(asked)) for t in (row.caption, row.path))
    return evidence(row.similarity, row.level, row.spread), in_caption, in_name


def key_of(row: Row) -> Key:
    """What a window is known by."""
    return row.path, row.start


def _unit(row: Row, segments: bool) -> Key:
    """What is ranked: the window, or its file as if it began there."""
    return key_of(row) if segments else (row.path, 0.0)


def _best(rows: Iterable[tuple[Row, float]], segments: bool) -> dict[Key, float]:
    """The highest number of each window or file."""
    best: dict[Key, float] = {}
    for row, number in rows:
        unit = _unit(row, segments)
        best[unit] = max(best.get(unit, -math.inf), number)
    return best


def _shown_first(row: Row) -> tuple[float, float]:
    """What orders the windows of a file: how near they are to the query, then time."""
    return evidence(row.similarity, row.level, row.spread), -row.start


def _nanoseconds(day: date) -> int:
    """When a day begins here, since 1970."""
    return int(datetime.combine(day, time.min).timestamp()) * NANOSECONDS


def parse_day(text: str, option: str) -> date:
    """2026-11-27 as a day; UsageError for what is none."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {printable(text)}: not a day; write it like 2026-11-27") from error
