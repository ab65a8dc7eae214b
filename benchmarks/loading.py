"""Measures loading for a training: clips read from an Arrow store, masked, tokenised and collated, in clips a second.

Clips have 750 frames of 16 codebooks, an embedding of 512 numbers and a caption of 14 words. Batches are drawn as
`enclap train` draws them, by so many workers of a data loader, with no model at the other end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np

from speed import use_cores, warn_if_busy
from tables import Table, hardware, save, today

CORES, FRAMES, CODEBOOKS, ENTRIES, EMBEDDING, BATCH = 2, 750, 16, 1024, 512, 64
RATE_LIMIT = 2_000  # clips/s on two cores: the project's target
WORDS = ("dog", "barks", "rain", "falls", "on", "roof", "people", "talk", "near", "engine", "that", "idles", "while")


def main() -> None:
    """Measures each number of workers by turns, prints the table and stores it under benchmarks/results."""
    options = parse()
    warn_if_busy()
    use_cores(CORES)
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), options.clips)
        numbers = sorted({0, *options.workers})
        found = {
            workers: [measure(Path(folder), workers, options.batches) for _ in range(options.runs)]
            for workers in numbers
        }
    table = loading_table(found, options)
    print(table.markdown())
    if not options.no_save:
        save(table, "loading")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2_000, help="clips in the store (default: 2000)")
    parser.add_argument("--batches", type=int, default=60, help="measured batches of each run (default: 60)")
    parser.add_argument("--workers", type=int, nargs="*", default=[2], help="workers beside the training (default: 2)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each number of workers (default: 3)")
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def write_store(folder: Path, clips: int) -> None:
    """A store of made-up clips, in shards as `enclap extract` writes them."""
    from enclap.data.feature_store import Clip, FeatureStore, StoreHeader, write_shard
    from enclap.types import Features

    generator = np.random.default_rng(0)

    def made_up(number: int) -> Clip:
        codes = generator.integers(0, ENTRIES, (FRAMES, CODEBOOKS))
        vector = generator.standard_normal(EMBEDDING).astype(np.float32)
        caption = " ".join(generator.choice(WORDS, 14))
        return Clip(f"clip/{number}", Features(codes, vector), (caption,), (), 10.0, "train", f"{number:x}")

    header = StoreHeader(CODEBOOKS, ENTRIES, EMBEDDING, 75.0, "made up")
    for start in range(0, clips, BATCH):
        shard = [made_up(number) for number in range(start, min(clips, start + BATCH))]
        write_shard(folder / f"{start:06d}.parquet", header, shard)
    FeatureStore(folder)  # which makes the Arrow copy


def batches_of(folder: Path, workers: int) -> Iterator[object]:
    """The batches of a training on the store, one after the other, without end."""
    from tokenizers import Tokenizer
    from torch.utils.data import DataLoader

    from enclap.data.feature_store import FeatureStore
    from enclap.training.collate import CaptionCollator
    from enclap.training.dataset import EpochItems, Perturbation
    from enclap.training.trainer import SampledDataset

    store = FeatureStore(folder)
    tokenizer = Tokenizer.from_file(str(Path(__file__).parents[1] / "src/enclap/bundled/mini/tokenizer.json"))
    perturbation = Perturbation(embedding_noise=0.0, embedding_dropout=0.0)  # as the paper's recipes have it
    items = EpochItems(store, range(len(store)), tokenizer, ENTRIES, 1_022, perturbation, batch_size=BATCH, seed=0)
    dataset = SampledDataset(items, 1_000 * len(store))
    return iter(DataLoader(dataset, BATCH, collate_fn=CaptionCollator(ENTRIES, 1_022), num_workers=workers))


def measure(folder: Path, workers: int, batches: int) -> dict[str, float]:
    """Clips a second, and the processor's seconds for each clip, of all processes together."""
    from enclap.training.processor import keep_freed_memory

    keep_freed_memory()  # as every training does
    loader = batches_of(folder, workers)
    for _ in range(2 + 2 * workers):  # what workers prepare ahead
        next(loader)
    start, before = time.perf_counter(), processor_seconds()
    for _ in range(batches):
        next(loader)
    seconds = time.perf_counter() - start
    clips = batches * BATCH
    processor = (processor_seconds() - before) / clips
    return {"rate": clips / seconds, "processor": processor, "load": os.getloadavg()[0]}


def processor_seconds() -> float:
    """Seconds of the processor that this process and the workers beside it have taken so far."""
    ticks = sum(read_ticks(Path(f"/proc/{process.pid}/stat")) for process in active_children())
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def read_ticks(path: Path) -> int:
    """What a process has taken, in the system's ticks, by Linux's record of it."""
    fields = path.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def loading_table(found: dict[int, list[dict[str, float]]], options: argparse.Namespace) -> Table:
    """One row for each number of workers, beside the target."""
    rows = []
    for workers, runs in found.items():
        rate, processor = (statistics.median(run[key] for run in runs) for key in ("rate", "processor"))
        name = f"{workers} workers" if workers else "in the training's own process (one core)"
        target = f"{RATE_LIMIT:,} clips/s" if workers >= CORES else ""
        rows += [
            (name, f"{rate:,.0f} clips/s", target),
            (f"{name}: the processor's time for a clip", f"{1e3 * processor:.2f} ms", ""),
        ]
    loads = [run["load"] for runs in found.values() for run in runs]
    workers = " ".join(map(str, options.workers))
    return Table(
        title="Loading for a training",
        columns=("what", "measured", "target: at least"),
        rows=tuple(rows),
        command=f"python benchmarks/loading.py --workers {workers} --batches {options.batches} --runs {options.runs}",
        date=today(),
        hardware=hardware(CORES),
        order=61,
        note=f"Batches of {BATCH} clips of {FRAMES} frames and {CODEBOOKS} codebooks out of a mapped Arrow file: read, "
        f"masked, tokenised, collated. Medians of {options.runs} runs. Load average meanwhile: {min(loads):.1f} to "
        f"{max(loads):.1f}.",
        place="official",
    )


if __name__ == "__main__":
    main()
