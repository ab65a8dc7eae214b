"""The recordings of a corpus on disk, in shards: what driver and workers read a shard at a time, however long it is.

A line of JSON for each item; an empty line ends a shard. The memory it takes is eight bytes for an item while it is
made, and as many for a shard afterwards.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enclap.batch.sources import Item
from enclap.files import remove_partial, replacement_path, sha256

SHARD_END = b"\n"


class Listing:
    """The shards of a listing; a shard is asked for by its number, from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        starts, lengths, position, items = [0], [], 0, 0
        with path.open("rb") as lines:
            for line in lines:
                position += len(line)
                if line == SHARD_END:
                    starts.append(position)
                    lengths.append(items)
                    items = 0
                else:
                    items += 1
        self._starts = np.array(starts, dtype=np.int64)
        self.lengths = np.array(lengths, dtype=np.int64)
        """Items of each shard; 0 where all of them have gone since."""

    def __len__(self) -> int:
        return len(self.lengths)

    def span(self, shard: int) -> tuple[int, int]:
        """Where the lines of a shard's items begin and end, in bytes."""
        start, end = (int(offset) for offset in self._starts[shard : shard + 2])
        return start, end - len(SHARD_END)

    def lines(self, shard: int) -> bytes:
        """The lines of a shard's items."""
        start, end = self.span(shard)
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def items(self, shard: int) -> list[Item]:
        """The items of a shard."""
        return [Item(**json.loads(line)) for line in self.lines(shard).splitlines()]

    def key(self, shard: int) -> str:
        """A hash over the items of a shard and what is seen of their files."""
        return sha256(self.lines(shard))


def write_listing(path: Path, items: Iterable[Item], shard_size: int) -> Listing:
    """Make the listing of these items, each once, or bring the one that is there up to date.

    Items that a listing had before stay in their shards, so that a shard whose items have not changed stays as it is;
    those that have gone are taken out of theirs, and new ones come after all others, in new shards.
    """
    fresh = path.with_name(path.name + ".new")
    remove_partial([path, fresh])
    with replacement_path(path) as target, target.open("wb") as output:
        with replacement_path(fresh) as spool, spool.open("wb") as lines:
            digests = spool_lines(items, lines)
        first = np.zeros(len(digests), dtype=bool)
        first[np.unique(digests, return_index=True)[1]] = True
        if path.exists():
            first &= ~np.isin(digests, copy_kept(path, output, digests))
        written = 0
        with fresh.open("rb") as lines:
            for line, is_wanted in zip(lines, first, strict=True):
                if is_wanted:
                    output.write(line)
                    written += 1
                    if written % shard_size == 0:
                        output.write(SHARD_END)
        if written % shard_size:
            output.write(SHARD_END)
    fresh.unlink()
    return Listing(path)


def spool_lines(items: Iterable[Item], lines: object) -> NDArray[np.uint64]:
    """Write a line for each item; the hashes of the lines, in order."""
    digests = array("Q")
    for item in items:
        fields = {name: value for name, value in asdict(item).items() if value not in (None, "")}
        line = json.dumps(fields).encode()
        digests.append(line_digest(line))
        lines.write(line + b"\n")  # type: ignore[attr-defined]
    return np.frombuffer(digests, dtype=np.uint64) if digests else np.zeros(0, dtype=np.uint64)


def copy_kept(path: Path, output: object, wanted: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Write the shards of the listing before, without the items that are no longer wanted; the hashes of the others."""
    listed = set(wanted.tolist())
    kept = array("Q")
    with path.open("rb") as lines:
        for line in lines:
            digest = line_digest(line.rstrip(b"\n"))
            if line == SHARD_END or digest in listed:
                output.write(line)  # type: ignore[attr-defined]
            if line != SHARD_END and digest in listed:
                kept.append(digest)
    return np.frombuffer(kept, dtype=np.uint64) if kept else np.zeros(0, dtype=np.uint64)


def line_digest(line: bytes) -> int:
    """What a line is known by: eight bytes of its hash."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")
