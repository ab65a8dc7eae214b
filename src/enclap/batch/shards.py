"""Parts of recordings, in whatever order they come -> shards, each written when all of it has come, or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from enclap.batch.decode import ItemEnd, Position
from enclap.batch.listing import Listing
from enclap.batch.work import Part, Recording, Work
from enclap.errors import InputError

METADATA_KEY = b"enclap.batch"
VERSION = 1


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What is in a shard: files, seconds of sound that were gone through, failures by kind, and one of each kind."""

    shard: int
    files: int = 0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)


class ShardWriter:
    """Gathers what the stages give, and writes each shard when its last part has come.

    Parts may come twice, as after a retry on a cluster; then the later ones count. settings: the hash of everything
    but the recordings that decides what is in a shard. strict: whether the first failure is raised.
    """

    def __init__(self, listing: Listing, work: Work, paths: ShardPaths, settings: str, *, strict: bool = False) -> None:
        self._listing = listing
        self._work = work
        self._paths = paths
        self._settings = settings
        self._strict = strict
        self._parts: dict[int, dict[Position, dict[int, Part]]] = {}
        self._ends: dict[int, dict[Position, ItemEnd]] = {}

    def add(self, events: Iterable[Part | ItemEnd]) -> Iterator[ShardReport]:
        """Take in what came, and write the shards that are complete; raises InputError when strict, else the disk's."""
        for event in events:
            shard = event.position.shard
            if isinstance(event, Part):
                self._parts.setdefault(shard, {}).setdefault(event.position, {})[event.index] = event
            else:
                self._ends.setdefault(shard, {})[event.position] = event
            if event.fault is not None and self._strict:
                raise InputError(event.fault)
            if self.is_complete(shard):
                yield self.write(shard)

    def is_complete(self, shard: int) -> bool:
        """Whether all ends and all parts of a shard have come."""
        ends, parts = self._ends.get(shard, {}), self._parts.get(shard, {})
        if len(ends) < self._listing.lengths[shard]:
            return False
        return all(len(parts.get(position, ())) >= end.windows for position, end in ends.items())

    def write(self, shard: int) -> ShardReport:
        """Write a shard that is complete, and forget it."""
        ends, parts = self._ends.pop(shard), self._parts.pop(shard, {})
        recordings = []
        for place, item in enumerate(self._listing.items(shard)):
            position = Position(shard, place)
            found = parts.get(position, {})
            recordings.append(Recording(item, ends[position], tuple(found[index] for index in sorted(found))))
        faults = [recording.fault for recording in recordings if recording.fault is not None]
        examples: dict[str, str] = {}
        for kind, message in faults:
            examples.setdefault(kind, message)
        seconds = sum(recording.seconds for recording in recordings if recording.fault is None)
        report = ShardReport(shard, len(recordings), seconds, dict(Counter(kind for kind, _ in faults)), examples)
        facts = {"version": VERSION, "key": self._listing.key(shard), "settings": self._settings, **asdict(report)}
        self._work.write(self._paths.path(shard), recordings, {METADATA_KEY: json.dumps(facts).encode()})
        return report


@dataclass(frozen=True, slots=True)
class ShardPaths:
    """Where shards stand: `prefix` and a number of five digits or more, in a folder."""

    folder: Path
    prefix: str = "part-"

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.prefix}{shard:05d}.parquet"

    def present(self) -> dict[int, Path]:
        """The files that have the name of a shard, by number."""
        found = {}
        for path in self.folder.glob(f"{self.prefix}*.parquet"):
            number = path.stem.removeprefix(self.prefix)
            if number.isdecimal() and path == self.path(int(number)):
                found[int(number)] = path
        return found


def read_report(path: Path) -> tuple[ShardReport, str, str]:
    """What a shard says of itself: its report, the key of its items, and its settings; from its last bytes alone.

    ValueError when it is damaged, or no shard of this version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        facts = json.loads((pq.read_schema(path).metadata or {})[METADATA_KEY])
        if facts.pop("version") != VERSION:
            raise ValueError(f"{path}: of another version")
        key, settings = facts.pop("key"), facts.pop("settings")
        return ShardReport(**facts), key, settings
    except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, or not a shard") from error
