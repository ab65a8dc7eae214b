"""Measures `enclap extract` with both encoders of the published sizes: ten-second clips a second, on two cores.

The whole command runs on a table of made-up WAV files (44.1 kHz, mono), weights made from a rule. Its rate is taken
between two shards, after models are loaded and all files are checked; the whole command's rate stands beside it, and
the processor's seconds for each clip, which other programs change less. Takes two minutes where nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from official_speed import prepare
from speed import use_cores, warn_if_busy
from tables import Table, hardware, save, today

CORES, RATE, SECONDS = 2, 44_100, 10
SHARD = 64  # clips that `enclap extract` writes together, and says so
RATE_LIMIT, OFFICIAL_RATE = 2.1, 1.36  # clips/s on two cores: the project's target, and the official scripts
PROGRAM = "from enclap.cli.main import main; main()"


@dataclass(frozen=True)
class Measured:
    """rate: clips/s between the first shard and the last. whole: of the command, with its start. processor: seconds."""

    rate: float
    whole: float
    processor: float
    load: float


def main() -> None:
    """Measures, prints the table and stores it under benchmarks/results."""
    options = parse()
    warn_if_busy()
    use_cores(CORES)
    model = options.model or str(prepare(options.scratch, "base"))
    table = extraction_table(measure(model, write_clips(options.scratch, options.shards * SHARD), options), options)
    print(table.markdown())
    if not options.no_save and options.model is None:
        save(table, "extraction")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path, help="folder for weights and recordings; what is there is reused")
    parser.add_argument("--shards", type=int, default=2, help=f"of {SHARD} clips; two at least (default: 2)")
    parser.add_argument("--threads", type=int, default=CORES, help=f"of the processor (default: {CORES})")
    parser.add_argument(
        "--model", help="another model, to try this out: stores nothing (default: the published encoders)"
    )
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def write_clips(scratch: Path, clips: int) -> Path:
    """A table of so many recordings, noise that swells and fades, written unless they are there."""
    folder = scratch / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(clips):
        path = folder / f"{number}.wav"
        if not path.exists():
            generator = np.random.default_rng(number)
            swell = np.abs(np.sin(np.arange(SECONDS * RATE) * (1 + number) / RATE))
            samples = 0.3 * swell * generator.standard_normal(SECONDS * RATE)
            with wave.open(str(path), "wb") as target:
                target.setnchannels(1), target.setsampwidth(2), target.setframerate(RATE)
                target.writeframes((samples.clip(-1, 1) * 32_767).astype(np.int16).tobytes())
    lines = "".join(f"{number}.wav,Noise number {number}.\n" for number in range(clips))
    (folder / "table.csv").write_text("path,caption\n" + lines)
    return folder / "table.csv"


def measure(model: str, table: Path, options: argparse.Namespace) -> Measured:
    """What one whole command takes."""
    output = options.scratch / "features"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", PROGRAM, "extract", str(table), "--output", str(output), "--model", model]
    command += ["--threads", str(options.threads), "--device", "cpu"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    moments = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if " clips" in line:
                moments.append(time.perf_counter())
    whole, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode or len(moments) != options.shards:
        raise SystemExit(f"enclap extract ended with {process.returncode} after {len(moments)} shards")
    clips = options.shards * SHARD
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rate = (clips - SHARD) / (moments[-1] - moments[0])
    return Measured(rate, clips / whole, processor / clips, os.getloadavg()[0])


def extraction_table(found: Measured, options: argparse.Namespace) -> Table:
    """The rates beside the target."""
    rows = (
        ("10-s clips, once all is loaded", f"{found.rate:.2f} clips/s", f"{RATE_LIMIT} clips/s"),
        ("the whole command, with its start and the check of all files", f"{found.whole:.2f} clips/s", ""),
        ("the processor's seconds for a clip, both cores together", f"{found.processor:.2f} s", ""),
        ("the official scripts, as once measured on such cores", f"{OFFICIAL_RATE} clips/s", ""),
    )
    return Table(
        title=f"Extracting features with {options.model or 'the published encoders'}",
        columns=("what", "measured", "target: at least"),
        rows=rows,
        command=f"python benchmarks/extraction.py SCRATCH --shards {options.shards} --threads {options.threads}",
        date=today(),
        hardware=hardware(CORES),
        order=62,
        note=f"WAV files of {RATE / 1000} kHz, float32. Load average at the end: {found.load:.1f}.",
        place="official",
    )


if __name__ == "__main__":
    main()
