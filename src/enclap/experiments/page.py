"""The page of an experiment: its question, its table and figure, and what the evidence supports and does not."""

from __future__ import annotations

import datetime
import importlib.util
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from enclap.evaluation.captioning.figures import draw_scores
from enclap.experiments.grids import Grid
from enclap.experiments.published import PAPER, UNFITTING
from enclap.experiments.table import Floor, RowResult
from enclap.experiments.trial import Laboratory
from enclap.files import write_whole

SCALE = "Small-scale evidence: mini's kind of model, smaller than mini, short trainings, composed scenes of few sounds."
INTERVALS = (
    "Event F1: families of sounds named rightly among those named and those there, over all scenes; mean and standard "
    "deviation over seeds. The difference is to the first row, on the same scenes and with the same seeds; in brackets "
    "its 95 % interval over both: seeds by Student's t, the recordings that scenes are made of by resampling them "
    "(scenes that share a recording are no independent evidence). Each interval stands for itself: of twenty rows "
    "without any effect, one is expected outside."
)
LIMITS = (
    "It does not say what holds at the published sizes, with encoders trained on far more sound, or for captions that "
    "people wrote: scenes are composed, their sentences come from one grammar, and F1 looks at named sounds alone.",
    'A difference that is "not shown" is not shown to be absent: a smaller one than the interval\'s width would not be '
    "seen.",
)


def write_page(
    grid: Grid, results: Sequence[RowResult], floor: Floor | None, laboratory: Laboratory, folder: Path, seeds: int
) -> Path:
    """The page NAME.md, now in the folder with its figure NAME.svg. floor: of the first row. seeds: asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    compared = {
        result.name: {"F1 minus the first row's": {"value": result.difference, "low": result.low, "high": result.high}}
        for result in results
        if result.difference is not None
    }
    has_figure = importlib.util.find_spec("matplotlib") is not None and bool(compared)
    if has_figure:
        draw_scores(compared, folder / f"{grid.name}.svg", zero=True)
    path = folder / f"{grid.name}.md"
    write_whole(path, "\n".join(page_lines(grid, results, floor, laboratory, seeds, has_figure)) + "\n")
    return path


def machine() -> str:
    """This machine and its load, in words."""
    try:
        model = next(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        model = platform.machine()
    load = f", load average {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return f"{model}, {os.cpu_count()} cores{load}"


def page_lines(
    grid: Grid,
    results: Sequence[RowResult],
    floor: Floor | None,
    laboratory: Laboratory,
    seeds: int,
    has_figure: bool,
) -> list[str]:
    """The lines of the page."""
    lines = [f"# {grid.title}", "", grid.question, "", SCALE, ""]
    lines += [f"Each run: {laboratory.size()}. Written by `enclap experiment {grid.name}` on "]
    lines[-1] += f"{datetime.date.today().isoformat()} ({machine()})."
    lines += ["", *result_table(results), ""]
    if floor is not None:
        lines += [
            f"What a number is worth: the first row's captions, each for another scene, have F1 {floor.shuffled:.3f}; "
            f'the one caption that is best for all scenes, "{floor.caption}", has {floor.constant:.3f}.',
            "",
        ]
    lines += [INTERVALS + " Seconds were measured on the machine named above, whatever else it did."]
    lines += ["", f"![Differences with their intervals]({grid.name}.svg)"] if has_figure else []
    lines += not_run(grid, results, laboratory, seeds)
    lines += ["", "## What the paper says", "", f"{PAPER} {UNFITTING}"]
    lines += ["", "## What this supports", "", *conclusions(results), "", *answers(grid, results)]
    limits = (*LIMITS, grid.limit) if grid.limit else LIMITS
    return [*lines, "", "## What it does not", "", *(f"- {limit}" for limit in limits)]


def not_run(grid: Grid, results: Sequence[RowResult], laboratory: Laboratory, seeds: int) -> list[str]:
    """The section on rows without all their seeds; nothing when there is none."""
    done = {result.name: result.seeds for result in results}
    lines = []
    for row in grid.rows:
        if obstacle := laboratory.obstacle(row.training):
            lines.append(f"- {row.name}: {obstacle}.")
        elif done.get(row.name, 0) < seeds:
            lines.append(f"- {row.name}: {done.get(row.name, 0)} of {seeds} seeds.")
    again = f"`enclap experiment {grid.name} --seeds {seeds} --resume` runs what is missing."
    return ["", "## Not run in full", "", *lines, "", again] if lines else []


def result_table(results: Sequence[RowResult]) -> list[str]:
    """The lines of a Markdown table."""
    heads = ["row", "seeds", "event F1", "minus the first row", "codes restored", "parameters", "training, s"]
    lines = [f"| {' | '.join([*heads, 'caption, s'])} |", "|---" * (len(heads) + 1) + "|"]
    for item in results:
        masked = "-" if item.masked is None else f"{item.masked:.3f}"
        cells = [item.name, str(item.seeds), f"{item.f1:.3f} ± {item.spread:.3f}", difference_cell(item), masked]
        cells += [f"{item.parameters:,}", f"{item.seconds:.0f}", f"{item.captioning:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def difference_cell(item: RowResult) -> str:
    """The difference with its interval and verdict."""
    if item.difference is None:
        return "-"
    if item.low is None or item.high is None:
        return f"{item.difference:+.3f}, no interval with one seed"
    return f"{item.difference:+.3f} [{item.low:+.3f}, {item.high:+.3f}] {item.verdict}"


def conclusions(results: Sequence[RowResult]) -> list[str]:
    """What the intervals show, row by row; an effect inside its interval is not shown."""
    compared = [item for item in results if item.difference is not None]
    if not compared:
        return ["Nothing yet: fewer than two rows are there."]
    found = []
    for item in compared:
        if item.verdict == "not shown":
            found.append(f"- *{item.name}*: a difference from *{results[0].name}* is not shown.")
        else:
            size = abs(item.difference or 0.0)
            found.append(f"- *{item.name}* is {item.verdict} than *{results[0].name}* by {size:.3f}.")
        if item.recall is not None:
            frozen, tuned = item.recall
            found.append(
                f"- What *{item.name}* forgets: of recordings with labels that the scenes lack, the frozen CLAP has "
                f"{frozen:.0%} of the labels among its ten nearest, the tuned one {tuned:.0%}."
            )
    return found


def answers(grid: Grid, results: Sequence[RowResult]) -> list[str]:
    """One sentence for each way in which a mechanism may fail."""
    by_name = {item.name: item for item in results}
    lines = []
    for verdict in grid.verdicts:
        item = by_name.get(verdict.row)
        if item is None or item.difference is None:
            answer = f"Not known: *{verdict.row}* has not been run."
        else:
            answer = {"better": verdict.better, "worse": verdict.worse}.get(item.verdict, verdict.unknown)
        lines.append(f"**{verdict.question}** {answer}")
    return [line for answer in lines for line in (answer, "")][:-1]
