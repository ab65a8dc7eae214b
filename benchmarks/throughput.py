"""Measures how fast a long recording is captioned, and that its length costs no memory.

An hour of the project's own sounds, in a file that has to be decoded, goes through a whole `enclap caption` on two
cores; a tenth of it goes first, to show what memory the length takes. Time counts from the start of the process to
its end. `--profile` instead shows where the time goes, stage by stage, on one core.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from speed import run_once, use_cores, warn_if_busy
from tables import Table, hardware, save, today

CORES = 2
MINUTES, PART = 60, 10  # of the recording; it is compared with one of a tenth of this length
TARGET_SPEED, TARGET_GROWTH = 60, 20  # times real time; MB

WRITE_FILE = """
import sys
import av
from enclap.data.synthetic.signals import RATE
from enclap.data.synthetic.tones import SOUNDS, synthesise
path, minutes, scene = sys.argv[1], float(sys.argv[2]), 17.0
scenes = [synthesise(name, scene, seed).samples[None] for seed in range(2) for name in sorted(SOUNDS)]
with av.open(path, "w") as output:
    stream = output.add_stream("libmp3lame", rate=RATE, layout="mono")
    for number in range(round(minutes * 60 / scene)):
        frame = av.AudioFrame.from_ndarray(scenes[number % len(scenes)], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, number * round(scene * RATE)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
"""

PROFILE = """
import sys, time
from enclap import Captioner, DecodingOptions
from enclap.audio.read import open_audio
from enclap.audio.window import split_windows
engine = Captioner.from_pretrained(sys.argv[1], threads=1).engine
began = time.process_time()
with open_audio(sys.argv[2]) as audio:
    windows = list(split_windows(audio.blocks, audio.rate))
decoded = time.process_time()
batches = [windows[start : start + 8] for start in range(0, len(windows), 8)]
engine.generate(engine.extract(batches[0][:1]), DecodingOptions())  # loads the graphs
began_extracting = time.process_time()
features = [engine.extract(batch) for batch in batches]
extracted = time.process_time()
for batch in features:
    engine.generate(batch, DecodingOptions())
generated = time.process_time()
for name, seconds in (("decoding", decoded - began), ("features", extracted - began_extracting),
                      ("sentences", generated - extracted)):
    print(f"{name:<10} {1000 * seconds / len(windows):6.1f} ms of processor time a window")
"""


def main() -> None:
    """Measures, prints the table and stores it under benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"length of the recording (default: {MINUTES})")
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (default: 3)")
    parser.add_argument("--profile", action="store_true", help="show the stages instead")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    warn_if_busy()
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "long.mp3", Path(folder) / "short.mp3"
        for path, minutes in ((long, options.minutes), (short, options.minutes / PART)):
            subprocess.run([sys.executable, "-c", WRITE_FILE, str(path), str(minutes)], check=True)
        if options.profile:
            subprocess.run([sys.executable, "-c", PROFILE, options.model, str(short)], check=True)
            return
        use_cores(CORES)
        _, short_megabytes = measure(short, options)
        seconds, long_megabytes = measure(long, options)
    table = throughput_table(options, seconds, short_megabytes, long_megabytes)
    print(table.markdown())
    if not options.no_save:
        save(table, "throughput")


def measure(path: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds and median peak memory in MB of captioning the file."""
    command = [str(Path(sys.executable).with_name("enclap")), "caption", str(path), "--model", options.model, "--quiet"]
    measured = [run_once(command) for _ in range(options.runs)]
    return statistics.median(run[0] for run in measured), statistics.median(run[1] for run in measured)


def throughput_table(options: argparse.Namespace, seconds: float, short: float, long: float) -> Table:
    """Speed and memory beside their targets."""
    what = f"{options.minutes:g} minutes of MP3 in one `enclap caption`, {CORES} cores"
    part = f"{options.minutes / PART:g} minutes"
    rows = (
        (f"{what}: time", f"{seconds:.1f} s", f"at most {options.minutes * 60 / TARGET_SPEED:.0f} s"),
        ("the same: times real time", f"{options.minutes * 60 / seconds:.0f}", f"at least {TARGET_SPEED}"),
        ("the same: peak memory", f"{long:.0f} MB", ""),
        (f"the same: more than for {part}", f"{long - short:.0f} MB", f"at most {TARGET_GROWTH} MB"),
    )
    return Table(
        title=f"Long recordings with {options.model}",
        columns=("what", "measured", "target"),
        rows=rows,
        command=f"python benchmarks/throughput.py --model {options.model} --minutes {options.minutes:g} "
        f"--runs {options.runs}",
        date=today(),
        hardware=hardware(CORES),
        order=30,
        note=f"Medians of {options.runs} runs; time and memory of the whole process.",
    )


if __name__ == "__main__":
    main()
