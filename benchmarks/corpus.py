"""What `enclap batch` does with a corpus: stages, workers, Ray, the driver's memory, kills. Prints Markdown.

python benchmarks/corpus.py FOLDER [--rows stages,ways,memory,kills] [--ways one,two,plain,ray] [--clips 2000]
    [--rounds 3] [--work DIR] [--lists 1000,100000] [--ray ADDRESS]

Runs that are compared take turns. The steady rate is that between the first shard that is written and the last one; how
long the first one takes tells of the start. Beside the clock stands the processor time of the whole machine, so let it
do nothing else. With --work the runs gather in DIR over several calls, so that each may be short. The tables of ways
and of memory are stored in results/corpus*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enclap.batch.decode import DecodedWindow
from enclap.batch.listing import write_listing
from enclap.batch.local import Job, batched
from enclap.batch.on_ray import Decoder, Reader, WriterActor, events_of, part_table
from enclap.batch.shards import ShardPaths
from enclap.batch.sources import find_items
from enclap.batch.work import Captioning, ModelRun
from enclap.decoding.options import DecodingOptions
from tables import Table, hardware, save, today

KINDS = {".ogg", ".wav", ".flac", ".mp3"}


@dataclass(frozen=True)
class Ran:
    """How a run went. seconds, processor: of the wall clock and of all processes here. peak: MB of the driver.

    first: seconds until a shard was written. steady: clips a second from then to the last shard, 0 for a single one.
    """

    seconds: float
    processor: float
    peak: float
    steady: float = 0.0
    clips: int = 0
    load: float = 0.0
    first: float = 0.0


@dataclass(frozen=True)
class Way:
    """A way of captioning a list. cores: that it may use. options: of `enclap batch`."""

    title: str
    cores: int
    options: tuple[str, ...]


WAYS = {
    "one": Way("one worker on one core", 1, ("--workers", "1")),
    "two": Way("two workers on two cores", 2, ("--workers", "2")),
    "plain": Way("one worker on two cores", 2, ("--workers", "1")),
    "ray": Way("Ray, one worker, on two cores", 2, ("--workers", "1", "--ray", "auto")),
    "ray-core": Way("Ray, one worker, on one core", 1, ("--workers", "1", "--ray", "auto")),
}
PAIRS = (("two", "one", 1.6), ("ray", "plain", 0.9), ("ray-core", "one", 0.0))
"""Ways of which the first is to reach so many times the clips per second of the second."""
SHARD = 64  # clips: small, so that the steady rate is seen of most of a run


def command_for(listing: Path, output: Path, *options: str) -> list[str]:
    """The command of a run with one thread for each worker."""
    program = [sys.executable, "-m", "enclap", "batch", str(listing), "--output", str(output), "--quiet"]
    return [*program, "--threads", "1", *options]


def batch(listing: Path, output: Path, *options: str, cores: set[int] | None = None) -> Ran:
    """A run from its start to its end, on some cores only; its driver's resident size is looked at all the time."""
    before, began, load = processor_seconds(), time.monotonic(), os.getloadavg()[0]
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    peak = 0
    with subprocess.Popen(command_for(listing, output, *options), preexec_fn=pin) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
    seconds, used = time.monotonic() - began, processor_seconds() - before
    shards = sorted(output.glob("part-*.parquet"), key=lambda path: path.stat().st_mtime)
    counts = [pq.read_metadata(path).num_rows for path in shards]
    between = shards[-1].stat().st_mtime - shards[0].stat().st_mtime if shards else 0.0
    steady = sum(counts[1:]) / between if between else 0.0
    first = seconds - (time.time() - shards[0].stat().st_mtime) if shards else 0.0
    return Ran(seconds, used, peak / 1024, steady, sum(counts), load, first)


def processor_seconds() -> float:
    """Of all processes of this machine since it was started: those of a Ray are nobody's children."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


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


def measure_ways(listing: Path, work: Path, names: Sequence[str], rounds: int, ray: str) -> None:
    """Run the ways by turns, add the runs to those in the folder, print and store what they all come to."""
    kept = work / f"runs-{listing.stem}.json"
    runs: dict[str, list[dict[str, float]]] = json.loads(kept.read_text()) if kept.exists() else {}
    for _ in range(rounds):
        for name in names:
            way, output = WAYS[name], work / f"{name}-{listing.stem}"
            options = [ray if option == "auto" else option for option in way.options]
            shutil.rmtree(output, ignore_errors=True)
            cores = set(sorted(os.sched_getaffinity(0))[: way.cores])
            ran = batch(listing, output, *options, "--shard-size", str(SHARD), cores=cores)
            runs.setdefault(name, []).append(asdict(ran))
            kept.write_text(json.dumps(runs))
    table = ways_table({name: [Ran(**ran) for ran in runs[name]] for name in WAYS if name in runs}, work, listing.stem)
    save(table, "corpus")
    print(table.markdown(), flush=True)


def ways_table(runs: dict[str, list[Ran]], work: Path, list_name: str) -> Table:
    """What the runs of each way come to, and how ways compare."""

    def middle(name: str, of: Callable[[Ran], float]) -> float:
        return statistics.median(of(ran) for ran in runs[name])

    def overall(ran: Ran) -> float:
        return ran.clips / ran.seconds

    found = []
    for name in runs:
        rate, steady, first = (middle(name, of) for of in (overall, lambda run: run.steady, lambda run: run.first))
        used = f"{1000 * middle(name, lambda run: run.processor / run.clips):.0f} ms"
        rates = (f"{rate:.2f} clips/s", f"{steady:.2f} clips/s")
        found.append((WAYS[name].title, *rates, f"{first:.1f} s", used, ""))
    for first, second, least in PAIRS:
        if first in runs and second in runs:
            ratios = [middle(first, of) / middle(second, of) for of in (overall, lambda run: run.steady)]
            same = alike(work / f"{first}-{list_name}", work / f"{second}-{list_name}")
            title = f"{WAYS[first].title} : {WAYS[second].title}; equal rows: {same}"
            found.append((title, *(f"{ratio:.2f}" for ratio in ratios), "", "", f"{least}" if least else ""))
    every = [ran for ways in runs.values() for ran in ways]
    counts = ", ".join(f"{len(ran)} of {WAYS[name].title}" for name, ran in runs.items())
    loads = f"{min(ran.load for ran in every):.1f} to {max(ran.load for ran in every):.1f}"
    return Table(
        "Captions for a corpus",
        ("what", "in all", "steady", f"the first {SHARD} after", "processor, each clip", "target: at least"),
        tuple(found),
        f"python benchmarks/corpus.py sounds --rows ways --clips {every[0].clips}",
        today(),
        hardware(),
        order=62,
        note=f"Medians of runs over the same {every[0].clips} clips, mostly a window each: {counts}. Steady: between "
        f"the first shard of {SHARD} and the last. Processor: of all processes of the machine. "
        f"Load average before each run: {loads}.",
        place="official",
    )


def measure_memory(scratch: Path, lengths: Sequence[int], *, missing: bool) -> None:
    """Print and store the driver's largest resident size for lists of so many silent files of 0.1 s, or of no files."""
    header = b"RIFF" + (36 + 1600).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0"
    header += (8000).to_bytes(4, "little") + (16_000).to_bytes(4, "little") + b"\2\0\x10\0data"
    content = header + (1600).to_bytes(4, "little") + bytes(1600)
    kind, load, found = "missing" if missing else "silent", os.getloadavg()[0], []
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
        found.append((f"{length:,} {kind} files", f"{ran.peak:.0f} MB", f"{ran.seconds:.0f} s"))
        print(f"| driver, {length} {kind} files | {ran.seconds:.0f} s | {ran.peak:.0f} MB | |", flush=True)
    save(memory_table(found, f"--lists {','.join(map(str, lengths))}{' --missing' * missing}", load), f"corpus-{kind}")


def memory_table(found: Sequence[tuple[str, str, str]], options: str, load: float) -> Table:
    """What the driver held for each list."""
    return Table(
        "The driver of a corpus run",
        ("list", "largest resident size", "took"),
        tuple(found),
        f"python benchmarks/corpus.py sounds --rows memory {options}",
        today(),
        hardware(),
        order=62,
        note=f"Files of 0.1 s and 1.6 kB, gone through by one worker. Load average before: {load:.1f}.",
        place="official",
    )


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
            tables = timed("decode", lambda part=part: list(decoder(pa.Table.from_pylist([part]))))
            table = pa.concat_tables(tables)
            columns = zip(table["told"], table["samples"], strict=True)
            runs = timed("transport", lambda columns=columns: [events_of(*row) for row in columns])
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
    parser.add_argument("--rows", default="stages,ways,memory,kills")
    parser.add_argument("--ways", default="one,two,plain,ray", help=f"for the row ways, of {', '.join(WAYS)}")
    parser.add_argument("--work", type=Path, help="keep runs and outputs of the row ways here, beside those before")
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
        if "ways" in wanted:
            work = arguments.work or scratch
            work.mkdir(exist_ok=True)
            measure_ways(listing, work, arguments.ways.split(","), arguments.rounds, arguments.ray)
        if "stages" in wanted:
            measure_stages(listing, scratch)
        if "memory" in wanted:
            lengths = [int(length) for length in arguments.lists.split(",")]
            measure_memory(scratch, lengths, missing=arguments.missing)
        if "kills" in wanted:
            measure_kills(listing, scratch)


if __name__ == "__main__":
    main()
