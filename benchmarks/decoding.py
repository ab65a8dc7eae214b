"""Measures the decoder's steps: transformers' generate beside the own ones, plain and as CUDA graphs.

For every batch: steps per second, PyTorch operations a step (each is at least one kernel on a GPU), and the share of
captions that are equal: the own float32 ones to those of generate, bfloat16 ones to float32 ones. Every step is taken:
all captions are given the same length. mini has its own weights, base and large have weights from a rule.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from enclap import DecodingOptions
from enclap.engines.torch import TorchEngine
from enclap.generation.generator import SentenceGenerator
from enclap.generation.graphs import CudaGraphs
from enclap.hub.resolve import find_model
from enclap.types import Candidate, Features
from rule_weights import SIZES, rule_folder
from tables import Table, hardware, save, today

BATCHES = (1, 16, 64)
TOKENS = 21  # the start token and 20 more
SHORTER = 4  # captions of so many tokens less are timed too: the difference is the steps' alone
GENERATE, PLAIN, GRAPHS = "generate", "own steps", "own steps, CUDA graphs"


class OperationCounter(TorchDispatchMode):
    """Counts operations that compute something: views, which compute nothing, are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """The operation's result; one made of others counts as those."""
        with self:
            result = function.decompose(*arguments, **(keywords or {}))
        if result is not NotImplemented:
            return result
        result = function(*arguments, **(keywords or {}))
        self.count += not function.is_view
        return result


@dataclass(frozen=True)
class Way:
    """A way to search sentences: its name, precision, and what searches features with options."""

    name: str
    precision: str
    search: Callable[[Sequence[Features], DecodingOptions], list[list[Candidate]]]


def features(engine: TorchEngine, clips: int) -> list[Features]:
    """Seeded codes and embeddings of ten seconds."""
    config, generator = engine._model.config, np.random.default_rng(0)
    frames = min(round(10 * config.frame_rate), engine.max_frames)
    codes = generator.integers(0, config.codebook_entries, (clips, frames, config.codebooks))
    embeddings = generator.standard_normal((clips, config.clap_dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return [Features(*clip) for clip in zip(codes, embeddings, strict=True)]


def ways(folder: Path, device: str) -> list[Way]:
    """Generate and the own steps in both precisions."""
    found = []
    for precision in ("float32", "bfloat16"):
        for name in (GENERATE, PLAIN, GRAPHS):
            if name == GRAPHS and device != "cuda":
                continue
            engine = TorchEngine(folder, device=device, precision=precision)
            generator = SentenceGenerator(engine._model, CudaGraphs if name == GRAPHS else None)
            engine._generator = None if name == GENERATE else generator
            found.append(Way(name, precision, engine.generate))
    return found


def seconds(search: Callable[[DecodingOptions], object], tokens: int, runs: int) -> float:
    """Of the fastest of some searches for captions of a length."""
    options, taken = DecodingOptions(min_length=tokens, max_length=tokens), []
    for _ in range(runs):
        start = time.perf_counter()
        search(options)
        taken.append(time.perf_counter() - start)
    return min(taken)


def operations(search: Callable[[DecodingOptions], object]) -> float:
    """PyTorch operations a step, from captions of two lengths."""
    counts = []
    for tokens in (2 * SHORTER, 3 * SHORTER):
        with OperationCounter() as counter:
            search(DecodingOptions(min_length=tokens, max_length=tokens))
        counts.append(counter.count)
    return (counts[1] - counts[0]) / SHORTER


def equal_share(found: list[list[Candidate]], expected: list[list[Candidate]]) -> float:
    """The share of clips whose best candidates have the same tokens."""
    pairs = zip(found, expected, strict=True)
    return float(np.mean([ours[0].token_ids == theirs[0].token_ids for ours, theirs in pairs]))


def measured(folder: Path, device: str, batches: Sequence[int], runs: int) -> list[tuple[str, ...]]:
    """A row for each way and batch."""
    rows, all_ways = [], ways(folder, device)
    for batch in batches:
        clips = features(TorchEngine(folder, device=device), batch)
        captions: dict[tuple[str, str], list[list[Candidate]]] = {}
        for way in all_ways:
            search = partial(way.search, clips)
            captions[way.name, way.precision] = search(DecodingOptions())
            for tokens in (TOKENS - SHORTER, TOKENS):  # warms up
                search(DecodingOptions(min_length=tokens, max_length=tokens))
            count = "as plain" if way.name == GRAPHS else f"{operations(search):.0f}"
            short, long = (seconds(search, tokens, runs) for tokens in (TOKENS - SHORTER, TOKENS))
            other = (GENERATE, "float32") if way.precision == "float32" else (way.name, "float32")
            share = equal_share(captions[way.name, way.precision], captions[other])
            label = f"{folder.name}, {way.precision}, batch {batch}, {way.name}"
            rate = f"{SHORTER / (long - short):.1f}" if long > short else "not measurable"
            rows.append((label, f"{1000 * long:.0f} ms", rate, count, f"{100 * share:.0f} %"))
    return rows


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path, help="folder for the weights; what is there is reused")
    parser.add_argument("--size", choices=("mini", *SIZES), action="append", help="default: all three")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, action="append", help="default: 1, 16 and 64")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    for size in options.size or ("mini", *SIZES):
        folder = find_model("mini") if size == "mini" else rule_folder(options.scratch / size, size, graphs=False)
        rows += measured(folder, options.device, options.batch or BATCHES, options.runs)
    machine = f"{torch.cuda.get_device_name()}; {hardware()}" if options.device == "cuda" else hardware()
    result = Table(
        title="Steps of the decoder in PyTorch",
        columns=("", "encoder and 18 steps", "steps per second", "operations a step", "captions equal"),
        rows=tuple(rows),
        command="python benchmarks/decoding.py SCRATCH",
        date=today(),
        hardware=machine,
        order=75,
        note=(
            "Ten-second clips, beam 4, 20 forced tokens. Captions equal: float32 to generate's, bfloat16 to the same "
            "way's in float32, at their own lengths."
        ),
        place="official",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, "decoding")


if __name__ == "__main__":
    main()
