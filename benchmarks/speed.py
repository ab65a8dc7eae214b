"""Measures how long a caption takes and how much memory: `make speed`.

Two figures, as a user meets them: a cold `enclap caption` of a 5-second file on two cores, from the start of
the process to its end, with its peak memory; and a 10-second window once the model is loaded, on one core.
Both are medians. This process imports nothing large: Linux counts the parent's memory into the child's peak.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import Table, hardware, save, today

COLD_SECONDS, WINDOW_SECONDS = 5, 10
COLD_CORES, WINDOW_CORES = 2, 1
COLD_LIMIT, MEMORY_LIMIT, WINDOW_LIMIT = 1.5, 400, 150  # s, MB, ms: the project's targets

BUSY = 0.5  # load average above which the figures say more about the other programs

WRITE_FILE = """
import sys, wave
import numpy as np
from enclap.data.synthetic.signals import RATE
from enclap.data.synthetic.tones import synthesise
samples = synthesise("engine", float(sys.argv[2])).samples
with wave.open(sys.argv[1], "wb") as target:
    target.setnchannels(1); target.setsampwidth(2); target.setframerate(RATE)
    target.writeframes((samples * 32767).astype(np.int16).tobytes())
"""

TIME_WINDOW = """
import statistics, sys, time
from enclap import Captioner
captioner = Captioner.from_pretrained(sys.argv[1], threads=1)
seconds = []
for run in range(int(sys.argv[3]) + 2):
    start = time.perf_counter()
    captioner.caption(sys.argv[2])
    seconds.append(time.perf_counter() - start)
print(statistics.median(seconds[2:]))
"""


def main() -> None:
    """Measures, prints the table and stores it under benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default: 5)")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    warn_if_busy()
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.wav", Path(folder) / "long.wav"
        for path, seconds in ((short, COLD_SECONDS), (long, WINDOW_SECONDS)):
            subprocess.run([sys.executable, "-c", WRITE_FILE, str(path), str(seconds)], check=True)
        use_cores(COLD_CORES)
        cold_seconds, cold_megabytes = measure_cold(short, options.model, options.runs)
        use_cores(WINDOW_CORES)
        window_milliseconds = measure_window(long, options.model, options.runs)
    table = speed_table(options, cold_seconds, cold_megabytes, window_milliseconds)
    print(table.markdown())
    if not options.no_save:
        save(table, "speed")


def warn_if_busy() -> None:
    """Say so where other programs compute too."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY:
        print(f"warning: load average {load:.1f}: other programs are computing too", file=sys.stderr)


def speed_table(options: argparse.Namespace, seconds: float, megabytes: float, milliseconds: float) -> Table:
    """The three figures beside their targets."""
    cold = f"`enclap caption` of a {COLD_SECONDS}-s file, cold process, {COLD_CORES} cores"
    window = f"a {WINDOW_SECONDS}-s window once loaded, {WINDOW_CORES} core"
    rows = (
        (f"{cold}: time", f"{seconds:.2f} s", f"{COLD_LIMIT} s"),
        ("the same: peak memory", f"{megabytes:.0f} MB", f"{MEMORY_LIMIT} MB"),
        (f"{window}: time", f"{milliseconds:.0f} ms", f"{WINDOW_LIMIT} ms"),
    )
    return Table(
        title=f"Speed of {options.model}",
        columns=("what", "measured", "target: at most"),
        rows=rows,
        command=f"python benchmarks/speed.py --model {options.model} --runs {options.runs}",
        date=today(),
        hardware=hardware(COLD_CORES),
        order=20,
        note=f"Medians of {options.runs} runs, files already in the page cache.",
    )


def use_cores(count: int) -> None:
    """Keeps this process and its children to `count` cores, where the system allows to say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def measure_cold(path: Path, model: str, runs: int) -> tuple[float, float]:
    """Median seconds and median peak memory in MB of a whole `enclap caption`; one run warms the cache."""
    command = [str(Path(sys.executable).with_name("enclap")), "caption", str(path), "--model", model]
    measured = [run_once(command) for _ in range(runs + 1)][1:]
    return statistics.median(run[0] for run in measured), statistics.median(run[1] for run in measured)


def run_once(command: list[str]) -> tuple[float, float]:
    """Seconds from start to end and peak resident memory in MB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return seconds, usage.ru_maxrss * unit / 1e6


def measure_window(path: Path, model: str, runs: int) -> float:
    """Median milliseconds of captioning one window in a process that has the model loaded and warm."""
    command = [sys.executable, "-c", TIME_WINDOW, model, str(path), str(runs)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(result.stdout) * 1_000.0


if __name__ == "__main__":
    main()
