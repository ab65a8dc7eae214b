"""Measures clips per second of the torch engine on an accelerator, beside a plain transformers loop.

Base and large with weights from a rule, batches of 1, 16 and 64 ten-second clips, float32 and bfloat16, beam 4, 20
forced tokens. Where there is no accelerator the table says "not measured"; `--device cpu` tries the script itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from enclap import DecodingOptions
from enclap.convert.published_sizes import RELEASED_FRONT_END
from enclap.engines.torch import TorchEngine
from enclap.types import Candidate, Waveform, Window
from plain import PlainLoop
from rule_weights import SIZES, rule_folder
from tables import Table, hardware, save, today

BATCHES = (1, 16, 64)
RATE = RELEASED_FRONT_END.rate
SECONDS = RELEASED_FRONT_END.length // RATE
TOKENS = 21  # the start token and 20 more
PLAIN, OURS = "plain transformers loop, one at a time", "torch engine"
NOT_MEASURED = "not measured"
PRECISIONS = ("float32", "bfloat16")


def windows(count: int) -> list[Window]:
    """Seeded noise."""
    generator = np.random.default_rng(0)
    samples = (generator.standard_normal((count, RATE * SECONDS)) * 0.1).astype(np.float32)
    return [Window(Waveform(row, RATE), 0.0, float(SECONDS)) for row in samples]


def rate(action: Callable[[], object], clips: int, runs: int) -> str:
    """Clips per second in words, best of some runs after one that warms up."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return f"{clips / min(seconds[1:]):.2f}"


def measured(folder: Path, device: str, batches: tuple[int, ...], runs: int) -> list[list[str]]:
    """Rows of a size: for each way to run it, clips per second for each batch; plain code takes one at a time."""
    plain = partial(PlainLoop(folder, device), windows(1)[0], min_length=TOKENS, max_length=TOKENS)
    rows = [[f"{folder.name}, {PLAIN}", *[rate(plain, 1, runs)] * len(batches)]]
    del plain
    for precision in PRECISIONS:
        engine = TorchEngine(folder, device=device, precision=precision)
        cells = [rate(partial(captions, engine, windows(batch)), batch, runs) for batch in batches]
        rows.append([f"{folder.name}, {OURS}, {precision}", *cells])
    return rows


def captions(engine: TorchEngine, clips: list[Window]) -> list[list[Candidate]]:
    """The clips' sentences; they are text, so whatever the device computes is done."""
    return engine.generate(engine.extract(clips), DecodingOptions(min_length=TOKENS, max_length=TOKENS))


def accelerator() -> str | None:
    """The accelerator that PyTorch finds; None without one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path, help="folder for the weights; what is there is reused")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--device", help="default: the accelerator there is")
    parser.add_argument("--batch", type=int, action="append", help="default: 1, 16 and 64")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    batches = tuple(options.batch or BATCHES)
    device = options.device or accelerator()
    rows: list[list[str]] = []
    for size in options.size or SIZES:
        if device is None:
            ways = (PLAIN, *(f"{OURS}, {precision}" for precision in PRECISIONS))
            rows += [[f"{size}, {way}", *[NOT_MEASURED] * len(batches)] for way in ways]
        else:
            rows += measured(rule_folder(options.scratch / size, size), device, batches, options.runs)
    machine = torch.cuda.get_device_name() if device == "cuda" else device or "no accelerator"
    result = Table(
        title="Clips per second on an accelerator",
        columns=("", *(f"batch {batch}" for batch in batches)),
        rows=tuple(tuple(row) for row in rows),
        command="python benchmarks/accelerators.py SCRATCH",
        date=today(),
        hardware=f"{machine}; {hardware()}",
        order=70,
        note="Ten-second clips, beam 4, 20 forced tokens.",
        place="official",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, "accelerators")


if __name__ == "__main__":
    main()
