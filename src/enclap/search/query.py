"""Sounds by words: nearness of text and sound, full text over captions and names, and one ranking of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import PurePosixPath

from enclap.engines.base import Engine
from enclap.errors import UsageError
from enclap.search.labels import text_vector
from enclap.search.library import Library
from enclap.search.listing import Hit
from enclap.search.relevance import FITTED_SPACES, WORD_CURVE, evidence, probability
from enclap.search.store import Row, quoted
from enclap.search.words import check_words, content_lemmas, name_words
from enclap.text import printable

RANK_OFFSET = 5
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): how little the very first ranks stand out."""
WEIGHTS = (1.0, 1.0, 2.0)
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
        near, captions, names = rows.rankings(vector, words, count, where)
        if len(near) < count or count >= MOST or len({_unit(row, segments) for row in near}) >= limit:
            break
        count = min(MOST, 4 * count)
    known = {key_of(row): row for row in (*names, *captions, *near)}.values()
    values = relevance_values(words, known, captions, names)
    best: dict[Key, tuple[float, Row]] = {}
    for row, parts in zip(known, values, strict=True):
        unit, odds = _unit(row, segments), WORD_CURVE.log_odds(*parts)
        if unit not in best or (odds, -row.start) > (best[unit][0], -best[unit][1].start):
            best[unit] = odds, row
    if library.facts.space in FITTED_SPACES:
        order = sorted(best, key=lambda unit: (-best[unit][0], unit))
    else:
        units = [_unit(row, segments) for row in known]
        columns = [[parts[number] for parts in values] for number in range(len(WEIGHTS))]
        order = fuse([(highest_of(units, column), weight) for column, weight in zip(columns, WEIGHTS, strict=True)])
    rows_shown = ((best[unit][1], probability(best[unit][0])) for unit in order)
    hits = [Hit(row.path, row.start, row.end, row.caption, score) for row, score in rows_shown]
    return [hit for hit in hits if hit.score >= filters.score][:limit]


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


def relevance_values(
    words: str, rows: Iterable[Row], captions: Sequence[Row], names: Sequence[Row]
) -> list[tuple[float, float, float]]:
    """Of each row what its score is made of: evidence of the sound, how well its caption matches, and its file's name.

    captions, names: the rows that match best. Equal texts match equally, so that rows which these have no place for
    are known too.
    """
    captioned = _matches(words, [(row.caption, row.matched) for row in captions])
    named = _matches(words, [(name_words(row.path), row.matched) for row in names])
    return [
        (
            evidence(row.similarity, row.level, row.spread),
            captioned.get(row.caption, 0.0),
            named.get(name_words(row.path), 0.0),
        )
        for row in rows
    ]


def _matches(words: str, texts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """How well texts match the words, 0 to 1, from their full-text scores.

    Those depend on how rare words are in the library, so they are divided by the highest. Half of that stays where
    the best text holds none of the words themselves, as for a query of which the library has only a part.
    """
    best, highest = max(texts, key=lambda item: item[1], default=("", 1.0))
    asked = content_lemmas(words)
    share = len(asked & content_lemmas(best)) / max(1, len(asked))
    return {text: score / highest * (1.0 + share) / 2.0 for text, score in texts}


def key_of(row: Row) -> Key:
    """What a window is known by."""
    return row.path, row.start


def _unit(row: Row, segments: bool) -> Key:
    """What is ranked: the window, or its file as if it began there."""
    return key_of(row) if segments else (row.path, 0.0)


def highest_of(units: Iterable[Key], values: Iterable[float]) -> dict[Key, float]:
    """The highest number of each window or file; 0 is that of what does not match, and left out."""
    best: dict[Key, float] = {}
    for unit, value in zip(units, values, strict=True):
        if value:
            best[unit] = max(best.get(unit, -math.inf), value)
    return best


def _nanoseconds(day: date) -> int:
    """When a day begins here, since 1970."""
    return int(datetime.combine(day, time.min).timestamp()) * NANOSECONDS


def parse_day(text: str, option: str) -> date:
    """2026-11-27 as a day; UsageError for what is none."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {printable(text)}: not a day; write it like 2026-11-27") from error
