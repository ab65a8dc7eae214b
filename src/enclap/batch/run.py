"""One run of `enclap batch`: what is asked for, what is there already, what is left, and what is kept of it all.

An output folder holds shards, `manifest.json` and two hidden files: the listing of its recordings, and a lock. Whether
a shard is done is read from the shard: it names a hash of its items and of the settings. So any run, on this machine or
on a cluster, goes on where another one stopped, however it stopped.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enclap.audio.read import open_audio
from enclap.batch.decode import DecodedWindow, OpenedItem, Position, decode_item
from enclap.batch.listing import Listing, write_listing
from enclap.batch.local import CPU_TOGETHER, GPU_TOGETHER, Job, on_accelerator, run_locally
from enclap.batch.shards import ShardPaths, ShardReport, read_report
from enclap.batch.sources import Item, find_items
from enclap.batch.work import Captioning, ModelRun
from enclap.errors import DataError, EnvironmentFault, InputError
from enclap.files import locked, make_folders, remove_partial, sha256, translate_write_errors, write_whole
from enclap.hub.integrity import read_checksums
from enclap.hub.resolve import find_model
from enclap.output.resume import model_fingerprint
from enclap.text import printable
from enclap.version import __version__

logger = logging.getLogger("enclap")

MANIFEST, LISTING, LOCK = "manifest.json", ".listing", ".lock"
SCHEMA = 1  # of the manifest
SAMPLE, SAMPLE_SECONDS, MOST_SAMPLE_WINDOWS = 200, 10.0, 6
"""Of a dry run: files whose length is read, seconds that captioning is tried for, windows of a file that are tried."""
MOST_ROUNDS = 3
"""Times that what a cluster has lost is asked for again."""

Runner = Callable[[Job, Listing, Sequence[int]], Generator[ShardReport, None, None]]
"""What goes through shards: `run_locally`, or the same on a cluster."""


@dataclass(slots=True)
class Totals:
    """How far a run has come: files of how many, seconds of sound, failures by kind and one of each.

    earlier: files that earlier runs had done; hours and speed of this one leave theirs out.
    """

    files: int = 0
    of: int = 0
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    earlier: int = 0
    earlier_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def add(self, report: ShardReport) -> None:
        """Count a shard."""
        self.files += report.files
        self.seconds += report.seconds
        self.failures.update(report.failures)
        self.examples = report.examples | self.examples

    @property
    def failed(self) -> int:
        """Files that failed."""
        return self.failures.total()

    def __str__(self) -> str:
        """One line: files, hours, times real time, failures by kind, time left."""
        elapsed = max(time.monotonic() - self.began, 1e-3)
        new, seconds = self.files - self.earlier, self.seconds - self.earlier_seconds
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.most_common())
        failed = f"{self.failed} failed" + (f" ({kinds})" if kinds else "")
        before = f" ({self.earlier} done before)" if self.earlier else ""
        speed = f"{seconds / elapsed:.1f} times real time"
        left = f", {duration(elapsed * (self.of - self.files) / new)} left" if new and self.files < self.of else ""
        return f"{self.files} of {self.of} files{before}, {self.seconds / 3600:.3g} hours, {speed}, {failed}{left}"


def duration(seconds: float) -> str:
    """A length of time for people: seconds, minutes, hours or days."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} seconds"


def caption_corpus(
    sources: Sequence[str],
    output: Path,
    work: Captioning,
    model: ModelRun,
    *,
    shard_size: int = 256,
    devices: Sequence[str] = ("auto",),
    strict: bool = False,
    runner: Runner = run_locally,
    on_progress: Callable[[Totals], None] | None = None,
) -> Totals:
    """Caption every recording of the sources into shards in `output`, going on from what is there.

    Raises DataError for sources that cannot be read and for an output of something else, InputError when strict,
    and what loading the model and writing raise.
    """
    plan = plan_of(sources, work, model, shard_size)
    with translate_write_errors(output):
        make_folders(output)
    with locked(output / LOCK, str(output)):
        manifest = require_plan(output, plan)
        listing = write_listing(output / LISTING, find_items(sources), shard_size)
        if not listing.lengths.sum():
            raise DataError(f"{printable(', '.join(sources))}: names no recordings")
        together = GPU_TOGETHER if on_accelerator(devices[0]) else CPU_TOGETHER
        job = Job(LISTING, work, ShardPaths(output), key_of(plan), model, strict, tuple(devices), together)
        write_manifest(output, manifest | {"finished": None})
        totals = finish_shards(job, listing, runner, done_shards(job, listing), on_progress)
        counts = {
            "files": totals.files,
            "captioned": totals.files - totals.failed,
            "failed": totals.failed,
            "hours": round(totals.seconds / 3600, 4),
            "shards": int((listing.lengths > 0).sum()),
        }
        ended = {"finished": now(), "counts": counts, "failures": dict(totals.failures.most_common())}
        write_manifest(output, manifest | ended)
    return totals


def key_of(plan: Mapping[str, Any]) -> str:
    """A hash of everything but the recordings that decides what is in a shard."""
    facts = [__version__, *(plan[key] for key in ("model_fingerprint", "options", "columns"))]
    return sha256(json.dumps(facts, sort_keys=True).encode())


def finish_shards(
    job: Job,
    listing: Listing,
    runner: Runner,
    done: Iterable[ShardReport],
    on_progress: Callable[[Totals], None] | None = None,
) -> Totals:
    """Write every shard of the listing that is not done yet; EnvironmentFault when some are missing in the end."""
    totals = Totals(of=int(listing.lengths.sum()))
    left = {shard for shard in range(len(listing)) if listing.lengths[shard]}
    remove_partial([job.paths.path(shard) for shard in left])
    for report in done:
        left.remove(report.shard)
        totals.add(report)
    totals.earlier, totals.earlier_seconds = totals.files, totals.seconds
    for _ in range(MOST_ROUNDS):
        if left:
            with closing(runner(job, listing, sorted(left))) as reports:
                for report in reports:
                    if report.shard in left:
                        left.remove(report.shard)
                        totals.add(report)
                        if on_progress is not None:
                            on_progress(totals)
    if left:
        missing = ", ".join(map(str, sorted(left)[:5]))
        raise EnvironmentFault(f"{len(left)} shards were not written ({missing} ...); run the same command again")
    return totals


def done_shards(job: Job, listing: Listing) -> Iterator[ShardReport]:
    """The reports of shards that are there and whole; shards of nothing that is listed any more are removed."""
    for shard, path in sorted(job.paths.present().items()):
        try:
            report, key, settings = read_report(path)
        except ValueError:
            if shard < len(listing):
                logger.warning("%s: damaged; its recordings are captioned again", printable(str(path)))
            continue
        if shard >= len(listing) or not listing.lengths[shard]:
            path.unlink()
        elif (key, settings) == (listing.key(shard), job.settings):
            yield report


def plan_of(sources: Sequence[str], work: Captioning, model: ModelRun, shard_size: int) -> dict[str, Any]:
    """What makes the captions of a folder these and no others; ModelError when there is no such model."""
    folder = find_model(model.model)
    return {
        "schema": SCHEMA,
        "source": list(sources),
        "model": model.model,
        "model_files": {name: record.sha256 for name, record in read_checksums(folder).items()},
        "model_fingerprint": model_fingerprint(folder),
        "options": work.options.model_dump()
        | {"window": work.window, "engine": model.engine, "precision": model.precision},
        "columns": list(work.columns),
        "shard_size": shard_size,
    }


def require_plan(output: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run, begun now or earlier; DataError when the folder holds captions of something else."""
    shown, path = printable(str(output)), output / MANIFEST
    versions = {"enclap": __version__}
    fresh = dict(plan) | {"versions": versions, "started": now()}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        started = str(found["started"])
    except FileNotFoundError:
        if strangers := sorted(entry.name for entry in output.glob("*.parquet")):
            raise DataError(f"{shown}: holds {printable(strangers[0])} and no {MANIFEST}; choose another") from None
        return fresh
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shown}: {MANIFEST} is damaged; move it and the shards away, or choose another") from error
    for key, what in (
        ("schema", "captions in another format"),
        ("source", "captions of another source"),
        ("model_fingerprint", "captions by another model"),
        ("options", "captions made with other options"),
        ("columns", "other columns"),
        ("shard_size", "shards of another size"),
    ):
        if found.get(key) != json.loads(json.dumps(plan[key])):
            detail = f" ({key} {printable(json.dumps(found.get(key)))[:80]})" if key in ("source", "shard_size") else ""
            raise DataError(f"{shown}: holds {what}{detail}; choose another output folder")
    return fresh | {"started": started}


def write_manifest(output: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json, whole."""
    write_whole(output / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def dry_run_lines(sources: Sequence[str], work: Captioning, model: ModelRun, workers: int) -> Iterator[str]:
    """What a run would do: files, hours, and the time that it would take so many workers, estimated from a sample.

    The lengths are those that a sample of the files declare; the speed is that of captioning some of them here.
    """
    items, count = sample_items(find_items(sources), SAMPLE)
    declared = [seconds for item in items if (seconds := declared_seconds(item)) is not None]
    if not count:
        raise DataError(f"{printable(', '.join(sources))}: names no recordings")
    readable = len(declared) / len(items)
    mean = sum(declared) / len(declared) if declared else 0.0
    how = "" if count == len(items) else f", estimated from {len(items)} of them"
    yield f"{count} files, {count * readable * mean / 3600:.3g} hours of sound{how}"
    if len(declared) < len(items):
        yield f"{len(items) - len(declared)} of {len(items)} files cannot be read"
    if not declared:
        return
    captioner = work.load(model)
    began, heard, done = 0.0, 0.0, 0
    for number, item in enumerate(items):
        events = list(decode_item(Position(0, 0), item, work.window))[:MOST_SAMPLE_WINDOWS]
        if not any(isinstance(event, DecodedWindow) for event in events):
            continue
        if done == 1:  # the first one pays for loading
            began, heard = time.monotonic(), 0.0
        deque(work.parts(captioner, iter([events])), maxlen=0)
        heard += sum(event.window.waveform.seconds for event in events if isinstance(event, DecodedWindow))
        done += 1
        if done > 1 and (time.monotonic() - began > SAMPLE_SECONDS or number == len(items) - 1):
            break
    if done > 1 and heard:
        speed = workers * heard / (time.monotonic() - began)
        took = duration(count * readable * mean / speed)
        yield f"about {took} with {workers} worker{'s' * (workers > 1)} here ({speed:.3g} times real time)"


def sample_items(items: Iterable[Item], most: int) -> tuple[list[Item], int]:
    """Items spread evenly, at most `most`, and how many there are in all."""
    kept: list[Item] = []
    count, step = 0, 1
    for item in items:
        if count % step == 0:
            kept.append(item)
            if len(kept) > 2 * most:
                kept, step = kept[::2], step * 2
        count += 1
    return kept[:: max(1, -(-len(kept) // most))], count


def declared_seconds(item: Item) -> float | None:
    """How long the file of an item says that it is, 0 where it does not say; None when it cannot be read."""
    try:
        with closing(OpenedItem(item)) as opened, open_audio(opened.source) as audio:
            return audio.declared_seconds or 0.0
    except InputError:
        return None
