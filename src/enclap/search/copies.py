"""Recordings of a library that hold the same sound: lossy copies, other levels, cuts of one another.

Two files are compared when they share codes of their fingerprints, or when their embeddings are near; the fingerprints
then say whether they hold the same sound, and where one lies in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from enclap.search.fingerprint import EMPTY, FRAME_SECONDS, WORD_TYPE, Codes, best_overlap
from enclap.search.library import Library
from enclap.search.listing import CopyPair
from enclap.search.store import embeddings_in

SAME = 0.72
"""Share of equal bits from which two recordings are taken for the same sound; on validation strangers reach 0.67."""
EVIDENCE = 1.6
"""Of the overlap, needed besides: a short one may agree by chance. On validation strangers reach 1.0."""
NEIGHBOURS = 12
"""Windows nearest to each that are compared with it."""
MOST_HOLDERS = 12
"""Files that may share a code; one that more share, as silence and pure tones do, says nothing."""
VOTES = 2
"""Codes at one offset that two files must share to be compared."""
ROWS_AT_ONCE = 512


def find_copies(library: Library) -> list[CopyPair]:
    """Pairs of files that hold the same sound, the surest first; `path` is the shorter one.

    All fingerprints are held in memory, 250 bytes for each second of sound.
    """
    files = file_codes(library)
    names = sorted(files)
    numbers = {name: number for number, name in enumerate(names)}
    candidates = set(sharing_codes([files[name] for name in names]))
    candidates |= {(min(a, b), max(a, b)) for a, b in neighbours(library, numbers)}
    pairs = []
    for first, second in sorted(candidates):
        pair = compare(names[first], files[names[first]], names[second], files[names[second]])
        if pair is not None:
            pairs.append(pair)
    return sorted(pairs, key=lambda pair: (-pair.score, pair.path, pair.of))


def compare(first: str, first_codes: Codes, second: str, second_codes: Codes) -> CopyPair | None:
    """How two files fit, when they hold the same sound; the shorter is said to lie in the longer."""
    if len(first_codes) > len(second_codes):
        first, first_codes, second, second_codes = second, second_codes, first, first_codes
    overlap = best_overlap(second_codes, first_codes)
    if overlap is None or overlap.agreement < SAME or overlap.evidence < EVIDENCE:
        return None
    return CopyPair(first, second, overlap.offset, overlap.seconds, overlap.agreement)


def file_codes(library: Library) -> dict[str, Codes]:
    """The codes of every file, its windows one after the other at their times."""
    table = library.rows.columns(["path", "start", "fingerprint"])
    parts: dict[str, list[tuple[float, bytes]]] = {}
    for path, start, codes in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        parts.setdefault(path, []).append((start, codes))
    return {path: joined(windows) for path, windows in parts.items()}


def joined(windows: Iterable[tuple[float, bytes]]) -> Codes:
    """The codes of a file from those of its windows (start in seconds, stored codes); gaps are empty."""
    parts = [(round(start / FRAME_SECONDS), np.frombuffer(codes, WORD_TYPE)) for start, codes in sorted(windows)]
    first = parts[0][0]
    codes = np.zeros(max(start - first + len(part) for start, part in parts), np.uint32)
    for start, part in parts:
        codes[start - first : start - first + len(part)] = part
    return codes


def sharing_codes(files: list[Codes]) -> Iterator[tuple[int, int]]:
    """Pairs of files, by number, that share some codes at one offset."""
    codes = np.concatenate(files) if files else np.zeros(0, np.uint32)
    owners = np.repeat(np.arange(len(files)), [len(item) for item in files])
    places = np.concatenate([np.arange(len(item)) for item in files]) if files else owners
    order = np.argsort(codes, kind="stable")
    codes, owners, places = codes[order], owners[order], places[order]
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)])
    votes: dict[tuple[int, int, int], int] = {}
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        held = np.unique(owners[start:end])
        if codes[start] == EMPTY or not 2 <= len(held) <= MOST_HOLDERS or end - start > 4 * MOST_HOLDERS:
            continue
        for a in range(start, end):
            for b in range(a + 1, end):
                if owners[a] != owners[b]:
                    key = (int(owners[a]), int(owners[b]), int(places[a] - places[b]) // 2)
                    votes[key] = votes.get(key, 0) + 1
    yield from {(a, b) for (a, b, _), count in votes.items() if count >= VOTES}


def neighbours(library: Library, numbers: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Pairs of files, by number, of which one has a window near to a window of the other."""
    table = library.rows.columns(["path", "embedding"], "silence = false")
    owners = np.array([numbers[path] for path in table["path"].to_pylist()])
    vectors = embeddings_in(table)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        block = vectors[start : start + ROWS_AT_ONCE]
        cosines = block @ vectors.T
        count = min(NEIGHBOURS + 1, len(vectors))
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        for row, columns in enumerate(near):
            for other in owners[columns]:
                if other != owners[start + row]:
                    yield int(owners[start + row]), int(other)
