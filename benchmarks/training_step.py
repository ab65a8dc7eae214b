"""Measures a training step of EnCLAP-base on the processor, beside the plain formulation: seconds and peak memory.

A batch is 4 clips of 750 frames with captions of 20 tokens, masked codec modeling on, float32, all dropout 0.1 as
facebook/bart-base has it, clipping, AdamW. Plain: attention and dropout as PyTorch code writes them, the logits of all
codebooks at all frames, AdamW as it comes. Each way runs in a process of its own, by turns, several times; the
processor's seconds, which other programs change less than the time that passes, stand beside it. Before it trains, each
process reports a loss and a norm of gradients without dropout; the script fails when they differ. The first two steps
of a process, in which it takes memory from the kernel for the first time, are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

from speed import use_cores, warn_if_busy
from tables import Table, hardware, save, today

CORES, CLIPS, FRAMES, TOKENS = 2, 4, 750, 20
SECONDS_LIMIT, MEMORY_LIMIT = 8.0, 5.0  # s, GB: the project's targets
WAYS = {"plain": "plain formulation", "quick": "this program"}
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


def main() -> None:
    """Measures both ways by turns, prints the table and stores it under benchmarks/results."""
    options = parse()
    if options.way:
        print(json.dumps(measure(options.way, options.steps, options.layers)))
        return
    warn_if_busy()
    use_cores(CORES)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.runs):
        for way in WAYS:
            found[way].append(run(way, options))
    require_same(found)
    table = step_table(found, options)
    print(table.markdown())
    if not options.no_save:
        save(table, "training-step")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="processes of each way (default: 3)")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each process (default: 3)")
    parser.add_argument("--layers", type=int, default=6, help="layers of encoder and decoder (default: 6, as base has)")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(way: str, options: argparse.Namespace) -> dict[str, float]:
    """What a process of one way reports."""
    command = [sys.executable, __file__, "--way", way, "--steps", str(options.steps), "--layers", str(options.layers)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # threads that wait take no time of the processor
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    print(f"{way}: {output.strip()}", file=sys.stderr, flush=True)
    result: dict[str, float] = json.loads(output)
    return result


def require_same(found: dict[str, list[dict[str, float]]]) -> None:
    """Fails when the two ways do not compute the same."""
    plain, quick = (found[way][0] for way in WAYS)
    if abs(plain["loss"] - quick["loss"]) > LOSS_TOLERANCE * plain["loss"]:
        raise SystemExit(f"the losses differ: {plain['loss']} and {quick['loss']}")
    if abs(plain["norm"] - quick["norm"]) > GRADIENT_TOLERANCE * plain["norm"]:
        raise SystemExit(f"the gradients differ: norms {plain['norm']} and {quick['norm']}")


def step_table(found: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> Table:
    """Both ways beside the targets."""
    rows = []
    for way, name in WAYS.items():
        ours = way == "quick"
        seconds, processor, memory = (
            statistics.median(run[key] for run in found[way]) for key in ("seconds", "processor", "memory")
        )
        rows += [
            (f"{name}: a step", f"{seconds:.1f} s", f"{SECONDS_LIMIT:.0f} s" if ours else ""),
            (f"{name}: the processor's seconds, of both cores together", f"{processor:.1f} s", ""),
            (f"{name}: peak memory", f"{memory:.1f} GB", f"{MEMORY_LIMIT:.0f} GB" if ours else ""),
        ]
    ratios = [plain["processor"] / quick["processor"] for plain, quick in zip(*found.values(), strict=True)]
    rows.append(("times as fast, by the processor's seconds", f"{statistics.median(ratios):.2f}", ""))
    loads = [run["load"] for way in WAYS for run in found[way]]
    size = "" if options.layers == 6 else f" --layers {options.layers}"
    return Table(
        title="A training step of base",
        columns=("what", "measured", "target: at most"),
        rows=tuple(rows),
        command=f"python benchmarks/training_step.py --runs {options.runs} --steps {options.steps}{size}",
        date=today(),
        hardware=hardware(CORES),
        order=60,
        note=f"{CLIPS} clips of {FRAMES} frames, float32, masked codec modeling, dropout 0.1, clipping, AdamW. "
        f"Medians of {options.runs} processes by turns. Load average meanwhile: {min(loads):.1f} to {max(loads):.1f}.",
        place="official",
    )


def measure(way: str, steps: int, layers: int) -> dict[str, float]:
    """Seconds, processor's seconds and peak memory of a step; and what one without dropout computes."""
    import torch

    from enclap.training.processor import quick_processor
    from plain_training import batch_of, model_of, plain_loss

    torch.set_num_threads(CORES)
    model, batch = model_of(layers), batch_of(CLIPS, FRAMES, TOKENS)
    if way == "plain":
        model.set_attn_implementation("eager")
    compute = plain_loss if way == "plain" else lambda model, batch: model(**batch).loss
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-5, weight_decay=0.01, fused=True if way == "quick" else None
    )
    with nullcontext() if way == "plain" else quick_processor():

        def step() -> tuple[float, float]:
            loss = compute(model, batch)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            return loss.item(), norm.item()

        model.eval()
        loss, norm = step()  # without dropout, to be compared
        model.train()
        step()
        timed = [timed_seconds(step) for _ in range(steps)]
    seconds, processor = (statistics.median(times) for times in zip(*timed, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {"seconds": seconds, "processor": processor, "memory": peak, "loss": loss, "norm": norm}
    return {**result, "load": os.getloadavg()[0]}


def timed_seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds that passed, and seconds of all cores together."""
    start, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
