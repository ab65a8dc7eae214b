"""What `enclap batch` does with a corpus: stages, workers, Ray, the driver's memory, kills. Prints Markdown.

python benchmarks/corpus.py FOLDER [--rows stages,workers,ray,memory,kills] [--clips 2000] [--rounds 3]
    [--lists 1000,100000] [--ray ADDRESS]

Runs that are compared take turns. Beside the clips per second of the wall clock stands the processor time of all
processes of a run, which a machine with other work on it distorts less.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enclap.batch.decode import DecodedWindow
from enclap.batch.listing import write_listing
from enclap.batch.local import Job, batched
from enclap.batch.on_ray import Decoder, Reader, WriterActor, decoded_events, part_table
from enclap.batch.shards import ShardPaths
from enclap.batch.sources import find_items
from enclap.batch.work import Captioning, ModelRun
from enclap.decoding.options import DecodingOptions
from tables import hardware, today

KINDS = {".ogg", ".wav", ".flac", ".mp3"}


@dataclass(frozen=True)
class Ran:
    """How a run went. seconds, processor: of the wall clock and of all its processes. peak: MB of the driver."""

    seconds: float
    processor: float
    peak: float


def command_for(listing: Path, output: Path, *options: str) -> list[str]:
    """The command of a run with one thread for each worker."""
    program = [sys.executable, "-m", "enclap", "batch", str(listing), "--output", str(output), "--quiet"]
    return [*program, "--threads", "1", *options]


def batch(listing: Path, output: Path, *options: str, cores: set[int] | None = None) -> Ran:
    """A run from its start to its end, on some cores only; its driver's resident size is looked at all the time."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    peak = 0
    with subprocess.Popen(command_for(listing, output, *options), preexec_fn=pin) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(time.monotonic() - began, used, peak / 1024)


def resident(process: int) -> int:
    """KB that a process holds now, 0 when it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all shards."""
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def alike(folder: Path, other: Path) -> str:
    """Whether two outputs hold the same rows, and how far their scores are apart, which are rounded to 0.0001."""
    found, expected = rows(folder), rows(other)
    apart = 0.0
    for row, wanted in zip(found, expected, strict=False):
        for one, two in zip(row["captions"] or [], wanted["captions"] or [], strict=False):
            for caption, same in zip([one, *one["candidates"]], [two, *two["candidates"]], strict=False):
                apart = max(apart, abs((caption["score"] or 0.0) - (same["score"] or 0.0)))
                caption["score"] = same["score"] = None
    return f"yes, scores within {apart:.4f}" if found == expected else "NO"


def clip_list(folder: Path, scratch: Path, count: int) -> Path:
    """A list of clips that are spread over a folder."""
    found = sorted(path.resolve() for path in folder.rglob("*") if path.suffix in KINDS)
    chosen = found[:: max(1, len(found) // count)][:count]
    listing = scratch / f"{len(chosen)}.txt"
    listing.write_text("".join(f"{path}\n" for path in chosen))
    return listing


def compare(listing: Path, scratch: Path, ways: dict[str, tuple[Sequence[str], set[int] | None]], rounds: int) -> None:
    """Print clips per second, and per second of processor time, of ways that take turns; then the ratios of pairs."""
    clips = len(listing.read_text().splitlines())
    ran: dict[str, list[Ran]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, (options, cores) in ways.items():
            ran[name].append(batch(listing, scratch / f"{name}-{number}", *options, cores=cores))
    for name, runs in ran.items():
        wall = statistics.median(clips / run.seconds for run in runs)
        each = statistics.median(clips / run.processor for run in runs)
        print(f"| {name} | {clips} clips, {rounds} rounds | {wall:.2f} clips/s | {each:.2f} clips per CPU second |")
    first, second = ran.values()
    faster = statistics.median(one.seconds / two.seconds for one, two in zip(first, second, strict=True))
    cheaper = statistics.median(one.processor / two.processor for one, two in zip(first, second, strict=True))
    print(f"| ratio | median of pairs | {faster:.2f} | {cheaper:.2f} |")
    names = list(ways)
    print(f"| equal rows | | {alike(scratch / f'{names[0]}-0', scratch / f'{names[1]}-0')} | |", flush=True)


def measure_memory(scratch: Path, lengths: Sequence[int], *, missing: bool) -> None:
    """Print the driver's largest resident size for lists of that many silent files of 0.1 s, or of names of none."""
    header = b"RIFF" + (36 + 1600).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0"
    header += (8000).to_bytes(4, "little") + (16_000).to_bytes(4, "little") + b"\2\0\x10\0data"
    content = header + (1600).to_bytes(4, "little") + bytes(1600)
    kind = "missing" if missing else "silent"
    for length in lengths:
        folder = scratch / f"{kind}-{length}"
        paths = [folder / f"{number // 1000:03d}" / f"{number:06d}.wav" for number in range(length)]
        for path in () if missing else paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        listing = scratch / f"{kind}-{length}.txt"
        listing.write_text("".join(f"{path}\n" for path in paths))
        del paths
        ran = batch(listing, scratch / f"{kind}-{length}-out")
        print(f"| driver, {length} {kind} files | {ran.seconds:.0f} s | {ran.peak:.0f} MB | |", flush=True)


def measure_stages(listing: Path, scratch: Path) -> None:
    """Print the processor time of each stage for a clip, in this process, and the bytes that travel and stay."""
    work, paths = Captioning(DecodingOptions(), 10.0), ShardPaths(scratch / "stages")
    paths.folder.mkdir()
    began = time.process_time()
    listed = write_listing(paths.folder / ".listing", find_items([str(listing)]), 256)
    clips = int(listed.lengths.sum())
    spent = {"list": time.process_time() - began}
    job = Job(".listing", work, paths, "", ModelRun(threads=1))
    reader, decoder, writer = Reader(listed, range(len(listed)), 16), Decoder(10.0, 16), WriterActor(job)
    captioner = work.load(job.model)

    def timed(name: str, step: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = step()
        spent[name] = spent.get(name, 0.0) + time.process_time() - began
        return result

    sent = windows = 0
    for number in range(len(listed)):
        for part in timed("read", lambda number=number: reader({"id": number})):
            found = timed("decode", lambda part=part: list(decoder(part)))
            table = timed("transport", lambda found=found: pa.Table.from_pylist(found))
            runs = timed("transport", lambda table=table: [decoded_events(row) for row in table.to_pylist()])
            sent += table.nbytes
            windows += sum(isinstance(event, DecodedWindow) for run in runs for event in run)
            parts = timed("model", lambda runs=runs: list(work.parts(captioner, batched(runs, captioner))))
            for made in parts:
                timed("write", lambda made=made: writer(part_table(made)))
    for name, seconds in spent.items():
        print(f"| stage {name} | {clips} clips, {windows} windows | {1000 * seconds / clips:.2f} ms a clip | |")
    stored = sum(path.stat().st_size for path in paths.folder.glob("*.parquet"))
    print(
        f"| bytes | {sent / windows / 1e6:.2f} MB travel for a window | {stored / clips:.0f} B stored a clip | |",
        flush=True,
    )


def measure_kills(listing: Path, scratch: Path) -> None:
    """Print whether a run whose worker, and one whose driver is killed in the middle, ends with the same rows."""
    size = ("--shard-size", "8")
    batch(listing, scratch / "whole", *size)
    total = len(list((scratch / "whole").glob("part-*")))
    for victim in ("worker", "driver"):
        output = scratch / f"killed-{victim}"
        with subprocess.Popen(command_for(listing, output, *size)) as process:
            while process.poll() is None and len(list(output.glob("part-*.parquet"))) < total // 2:
                time.sleep(0.02)
            done = len(list(output.glob("part-*.parquet")))
            target = process.pid if victim == "driver" else worker_of(process.pid)
            os.kill(target, signal.SIGKILL)
        if victim == "driver":
            batch(listing, output, *size)
        same = rows(output) == rows(scratch / "whole")
        print(
            f"| {victim} killed after {done} of {total} shards | same rows | {'yes' if same else 'NO'} | |", flush=True
        )


def worker_of(driver: int) -> int:
    """A worker of a driver."""
    workers = (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    for entry in workers:
        parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        if parent == driver and b"spawn_main" in (entry / "cmdline").read_bytes():
            return int(entry.name)
    raise RuntimeError("the driver has no worker")


def main() -> None:
    """Measure the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="stages,workers,ray,memory,kills")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lists", default="1000,10000,100000")
    parser.add_argument("--missing", action="store_true", help="lists of names that lead nowhere, for the row memory")
    parser.add_argument("--ray", default="auto", help="the address for the row ray")
    arguments = parser.parse_args()
    print(
        f"{today()}, {hardware()}, load {os.getloadavg()[0]:.0f}\n\n| what | how | | |\n|---|---|---|---|", flush=True
    )
    wanted = arguments.rows.split(",")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        listing = clip_list(arguments.folder, scratch, arguments.clips)
        one = ("--workers", "1")
        if "workers" in wanted:
            cores = sorted(os.sched_getaffinity(0))[:2]
            two = ("--workers", "2")
            ways = {"one worker": (one, {cores[0]}), "two workers": (two, set(cores))}
            compare(listing, scratch, ways, arguments.rounds)
        if "ray" in wanted:
            compare(
                listing,
                scratch,
                {"plain": (one, None), "ray": ((*one, "--ray", arguments.ray), None)},
                arguments.rounds,
            )
        if "stages" in wanted:
            measure_stages(listing, scratch)
        if "memory" in wanted:
            lengths = [int(length) for length in arguments.lists.split(",")]
            measure_memory(scratch, lengths, missing=arguments.missing)
        if "kills" in wanted:
            measure_kills(listing, scratch)


if __name__ == "__main__":
    main()
