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
from enclap.experiments.table import Floor, RowResult, Score
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
ORDER = (
    "Both in order: of the scenes whose two sounds follow each other, those whose caption names both kinds of sound, "
    "the first one first; a second look at the same captions, because F1 does not see the order."
)
LIMITS = (
    "It does not say what holds at the published sizes, with encoders trained on far more sound, or for captions that "
    "people wrote: scenes are composed, their sentences come from one grammar, and named sounds alone are looked at.",
    'A difference that is "not shown" is not shown to be absent: a smaller one than the interval\'s width would not be '
    "seen.",
)


def write_page(
    grid: Grid, results: Sequence[RowResult], floor: Floor | None, laboratory: Laboratory, folder: Path, seeds: int
) -> Path:
    """The page NAME.md, now in the folder with its figure NAME.svg. floor: of the first row. seeds: asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    compared = {
        result.name: {
            f"{what} minus the first row's": {"value": score.difference, "low": score.low, "high": score.high}
            for what, score in (("F1", result.events), ("order", result.order))
            if score is not None
        }
        for result in results
        if result.events.difference is not None
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
    lines += ["", ORDER] if any(item.order is not None for item in results) else []
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
    has_order = any(item.order is not None for item in results)
    heads = ["row", "seeds", "event F1", "minus the first row"]
    heads += ["both in order", "minus the first row"] if has_order else []
    heads += ["codes restored", "parameters", "training, s", "caption, s"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for item in results:
        cells = [item.name, str(item.seeds)]
        for score in (item.events, item.order) if has_order else (item.events,):
            cells += ["-", "-"] if score is None else [f"{score.mean:.3f} ± {score.spread:.3f}", difference_cell(score)]
        cells.append("-" if item.masked is None else f"{item.masked:.3f}")
        cells += [f"{item.parameters:,}", f"{item.seconds:.0f}", f"{item.captioning:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def difference_cell(score: Score) -> str:
    """The difference with its interval and verdict."""
    if score.difference is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{score.difference:+.3f}, no interval with one seed"
    return f"{score.difference:+.3f} [{score.low:+.3f}, {score.high:+.3f}] {score.verdict}"


def conclusions(results: Sequence[RowResult]) -> list[str]:
    """What the intervals show, row by row; an effect inside its interval is not shown."""
    compared = [item for item in results if item.events.difference is not None]
    if not compared:
        return ["Nothing yet: fewer than two rows are there."]
    found = []
    for item in compared:
        said = [beside(item.events, results[0].name)]
        if item.order is not None:
            said.append(f"in naming two sounds in their order, {beside(item.order, 'it')}")
        found.append(f"- *{item.name}*: {'; '.join(said)}.")
        if item.recall is not None:
            frozen, tuned = item.recall
            found.append(
                f"- What *{item.name}* forgets: of recordings with labels that the scenes lack, the frozen CLAP has "
                f"{frozen:.0%} of the labels among its ten nearest, the tuned one {tuned:.0%}."
            )
    return found


def beside(score: Score, first: str) -> str:
    """How a score stands to that of the first row, in words."""
    name = first if first == "it" else f"*{first}*"
    if score.verdict == "not shown":
        return f"a difference from {name} is not shown"
    return f"{score.verdict} than {name} by {abs(score.difference or 0.0):.3f}"


def answers(grid: Grid, results: Sequence[RowResult]) -> list[str]:
    """One sentence for each way in which a mechanism may fail."""
    by_name = {item.name: item for item in results}
    lines = []
    for verdict in grid.verdicts:
        item = by_name.get(verdict.row)
        if item is None or item.events.difference is None:
            answer = f"Not known: *{verdict.row}* has not been run."
        else:
            answer = {"better": verdict.better, "worse": verdict.worse}.get(item.events.verdict, verdict.unknown)
            if item.order is not None and item.order.verdict != "not shown":
                answer += f" In naming two sounds in their order it is {beside(item.order, results[0].name)}."
        lines.append(f"**{verdict.question}** {answer}")
    return [line for answer in lines for line in (answer, "")][:-1]
