"""Measures the published sizes on the processor, with weights made from a rule: `make speed-official SCRATCH=FOLDER`.

For base and large: a 10-s recording once the model is loaded (float32, int8; the torch engine and a plain transformers
loop in the same run, for the ratio), the stages, a cold `enclap caption` with its peak memory, a 30-s recording in
three windows, and 64 recordings sixteen at once against one at a time. Beam 4, 20 forced tokens, as the published code
was measured. This process imports nothing large: Linux counts the parent's memory into the child's peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from speed import run_once, use_cores, warn_if_busy
from tables import Table, hardware, save, today

BENCHMARKS = Path(__file__).resolve().parent
CORES = 2
SIZES = ("base", "large")
CLIPS, CLIP_SECONDS, LONG_SECONDS = 64, 10, 30
TOKENS = 21  # the start token and 20 more, no fewer and no more

TARGETS = {
    "base": {"float32": 1.6, "int8": 1.2, "cold": 2.5, "peak float32": 1.2, "peak int8": 0.6, "long": 4.5},
    "large": {"float32": 3.5, "int8": 2.4, "cold": 4.0, "peak float32": 2.3, "peak int8": 0.9, "long": 10.0},
}  # seconds, GB: the project's targets
TARGET_GAIN = 1.2

WRITE_FILE = """
import sys, wave
import numpy as np
from enclap.data.synthetic.signals import RATE
from enclap.data.synthetic.tones import synthesise
samples = synthesise("engine", float(sys.argv[2])).samples
samples = samples + np.random.default_rng(int(sys.argv[3])).normal(0, 0.01, len(samples))
with wave.open(sys.argv[1], "wb") as target:
    target.setnchannels(1); target.setsampwidth(2); target.setframerate(RATE)
    target.writeframes((samples.clip(-1, 1) * 32767).astype(np.int16).tobytes())
"""


def main() -> None:
    """Measures, prints the tables and stores them under benchmarks/results."""
    options = parse()
    warn_if_busy()
    use_cores(CORES)
    for size in options.size or SIZES:
        folder = prepare(options.scratch, size)
        recordings = write_recordings(options.scratch / "recordings", options.clips)
        found = measure(folder, recordings, options)
        for name, table in (("speed", speed_table), ("stages", stage_table)):
            result = table(size, found, options)
            print(result.markdown() + "\n", flush=True)
            if not options.no_save:
                save(result, f"official-{size}-{name}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path, help="folder for weights and recordings, 8 GB; what is there is reused")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default: 5)")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"recordings captioned at once (default: {CLIPS})")
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def prepare(scratch: Path, size: str) -> Path:
    """The model folder of a size, written unless it is there, with the forced length as its own rule."""
    subprocess.run(
        [sys.executable, str(BENCHMARKS / "rule_weights.py"), str(scratch), "--size", size],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    path = scratch / size / "generation_config.json"
    table = json.loads(path.read_text()) | {"min_length": TOKENS, "max_length": TOKENS}
    path.write_text(json.dumps(table))
    return scratch / size


def write_recordings(folder: Path, clips: int) -> dict[str, list[str]]:
    """Paths of one long and many short recordings, written unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"long": [(folder / "long.wav", LONG_SECONDS)]}
    paths["clips"] = [(folder / f"clip{number:02d}.wav", CLIP_SECONDS) for number in range(clips)]
    for number, (path, seconds) in enumerate([*paths["long"], *paths["clips"]]):
        if not path.exists():
            subprocess.run([sys.executable, "-c", WRITE_FILE, str(path), str(seconds), str(number)], check=True)
    return {name: [str(path) for path, _ in items] for name, items in paths.items()}


def measure(folder: Path, recordings: dict[str, list[str]], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every figure by name, in seconds and gigabytes."""
    clip, long = recordings["clips"][:1], recordings["long"]

    def work(job: str, files: list[str], *arguments: str) -> dict[str, float]:
        command = [sys.executable, str(BENCHMARKS / "official_worker.py"), job, str(folder), *files, *arguments]
        output = subprocess.run([*command, "--runs", str(options.runs)], check=True, stdout=subprocess.PIPE, text=True)
        print(f"{folder.name} {job} {' '.join(arguments)}: {output.stdout.strip()}", file=sys.stderr, flush=True)
        result: dict[str, float] = json.loads(output.stdout)
        return result

    found = {"transformers": work("transformers", clip), "torch": work("captions", clip, "--engine", "torch")}
    for precision in ("float32", "int8"):
        found[precision] = work("captions", clip, "--precision", precision)
        found[f"{precision} stages"] = work("stages", clip, "--precision", precision)
        found[f"{precision} cold"] = cold(folder, clip[0], precision, options.runs)
        found[f"{precision} long"] = work("captions", long, "--precision", precision)
        found[f"{precision} clips"] = work("clips", recordings["clips"], "--precision", precision)
    return found


def cold(folder: Path, recording: str, precision: str, runs: int) -> dict[str, float]:
    """Median seconds and peak gigabytes of a whole `enclap caption`, files in the page cache."""
    program = "from enclap.cli.main import main; main()"
    command = [sys.executable, "-c", program, "caption", recording, "--model", str(folder), "--precision", precision]
    measured = [run_once(command) for _ in range(runs + 1)][1:]
    seconds, megabytes = zip(*measured, strict=True)
    return {"seconds": statistics.median(seconds), "gigabytes": statistics.median(megabytes) / 1000}


def speed_table(size: str, found: dict[str, dict[str, float]], options: argparse.Namespace) -> Table:
    """Every figure beside its target, and how many times as fast as plain transformers code."""
    targets, plain = TARGETS[size], found["transformers"]["seconds"]
    rows: list[tuple[str, ...]] = [("10-s recording, plain transformers loop", f"{plain:.2f} s", "", "1.0")]
    rows.append(_row("10-s recording, torch engine", found["torch"]["seconds"], None, plain))
    for precision in ("float32", "int8"):
        rows.append(_row(f"10-s recording, {precision}", found[precision]["seconds"], targets[precision], plain))
    for precision in ("float32", "int8"):
        start = found[f"{precision} cold"]
        limit = targets["cold"] if precision == "int8" else None
        rows.append(_row(f"cold process to its first caption, {precision}", start["seconds"], limit, None))
        peak = f"{start['gigabytes']:.2f} GB"
        rows.append((f"the same: peak memory, {precision}", peak, f"{targets[f'peak {precision}']} GB", ""))
    for precision in ("float32", "int8"):
        limit = targets["long"] if precision == "float32" else None
        seconds = found[f"{precision} long"]["seconds"]
        rows.append(_row(f"30-s recording in three windows, {precision}", seconds, limit, None))
    for precision in ("float32", "int8"):
        clips = found[f"{precision} clips"]
        gain = f"{clips['one'] / clips['together']:.2f} times as fast"
        rate = f"{options.clips / clips['together']:.2f} clips/s"
        what = f"{options.clips} 10-s recordings, 16 in one call, against one by one, {precision}"
        rows.append((what, f"{gain} ({rate})", f"{TARGET_GAIN} times", ""))
    return _table(f"Speed of {size}", ("what", "measured", "target", "times transformers"), rows, options)


def _row(what: str, seconds: float, limit: float | None, plain: float | None) -> tuple[str, str, str, str]:
    ratio = "" if plain is None else f"{plain / seconds:.1f}"
    return (what, f"{seconds:.2f} s", "" if limit is None else f"{limit} s", ratio)


def stage_table(size: str, found: dict[str, dict[str, float]], options: argparse.Namespace) -> Table:
    """Seconds of each stage alone."""
    rows: list[tuple[str, ...]] = []
    plain = found["transformers"]
    rows.append(
        ("plain transformers", _s(plain["codec"]), _s(plain["clap"]), "", "", _s(plain["encoder and decoding"]))
    )
    for precision in ("float32", "int8"):
        stage = found[f"{precision} stages"]
        names = ("codec", "clap", "extraction", "encoder", "decoding")
        rows.append((f"onnx engine, {precision}", *(_s(stage[name]) for name in names)))
    columns = ("", "codec", "CLAP with its spectrogram", "both side by side", "encoder", "decoding")
    return _table(
        f"Stages of {size}, a 10-s recording", columns, rows, options, "The transformers loop's last cell is both."
    )


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _table(
    title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], options: argparse.Namespace, note: str = ""
) -> Table:
    clips = "" if options.clips == CLIPS else f" --clips {options.clips}"
    conditions = f"Medians of {options.runs} runs, beam 4, 20 forced tokens, files already in the page cache."
    return Table(
        title=title,
        columns=columns,
        rows=tuple(rows),
        command=f"python benchmarks/official_speed.py SCRATCH --runs {options.runs}{clips}",
        date=today(),
        hardware=hardware(CORES),
        order=50 + SIZES.index(title.split()[2].strip(",")),
        note=f"{conditions} {note}".strip(),
        place="official",
    )


if __name__ == "__main__":
    main()
