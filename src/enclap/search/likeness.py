"""Sounds that sound like another: windows whose embeddings are near to those of a recording."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from enclap.audio.window import is_silent
from enclap.captioner import Captioner
from enclap.errors import AudioRefused
from enclap.files import is_file, sha256
from enclap.search.hearing import embed
from enclap.search.library import Library
from enclap.search.listing import Hit
from enclap.search.query import FEWEST, MOST, Filters
from enclap.search.relevance import LIKE_CURVE
from enclap.search.store import Row, quoted
from enclap.text import printable
from enclap.types import FloatArray, Window

MOST_WINDOWS = 12
"""Of the recording that is asked about: so many at least where it has them, spread evenly over it."""


def search_like(
    library: Library,
    captioner: Captioner,
    path: str,
    limit: int,
    filters: Filters | None = None,
    *,
    segments: bool = False,
) -> list[Hit]:
    """The sounds that are nearest to those in the file at `path`, the nearest first, without the file itself.

    segments: windows one by one; otherwise each file once. Raises InputError when the file cannot be heard.
    """
    filters = filters or Filters()
    vectors = embeddings_of(captioner, path)
    content = sha256(Path(path)) if is_file(path) else ""
    own = set(library.rows.columns(["path"], f"sha256 = {quoted(content)}")["path"].to_pylist())
    count = max(FEWEST, 4 * limit)
    while True:
        best: dict[tuple[str, float], Row] = {}
        for vector in vectors:
            for row in library.rows.nearest(vector, count, filters.condition):
                key = (row.path, row.start if segments else 0.0)
                if row.path not in own and (key not in best or row.similarity > best[key].similarity):
                    best[key] = row
        if len(best) >= limit or count >= MOST or count >= library.rows.count():
            break
        count = min(MOST, 4 * count)
    order = sorted(best.values(), key=lambda row: (-row.similarity, row.path, row.start))
    hits = [Hit(row.path, row.start, row.end, row.caption, LIKE_CURVE.probability(row.similarity)) for row in order]
    return [hit for hit in hits if hit.score >= filters.score][:limit]


def embeddings_of(captioner: Captioner, path: str) -> FloatArray:
    """Float32 [N, E]: embeddings of a recording's windows that are not silent, of a long one some spread over it."""
    kept: list[Window] = []
    stride, number = 1, 0
    with closing(captioner.windows(path, warn=False)) as pieces:
        for piece, _ in pieces:
            if is_silent(piece.waveform.samples):
                continue
            if number % stride == 0:
                kept.append(piece)
            number += 1
            if len(kept) == 2 * MOST_WINDOWS:
                kept, stride = kept[::2], 2 * stride
    if not kept:
        raise AudioRefused(f"{printable(path)}: is silent, so nothing sounds like it; name another recording")
    return embed(captioner.engine, kept)
