"""The page of an experiment: its question, its table and figure, and what the evidence supports."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from enclap.evaluation.captioning.figures import draw_scores
from enclap.experiments.grids import Grid
from enclap.experiments.table import RowResult
from enclap.experiments.trial import Budget
from enclap.files import write_whole

SCALE = (
    "Small-scale evidence: mini's sizes, short trainings, composed scenes of held-out recordings. It says little about "
    "the published sizes and data."
)
FULL_SIZE = "The same command with the recipe and data of a published size runs the grid there."
ENERGY_NOTE = "Seconds were measured on the machine that ran it, whatever else it did."


def write_page(grid: Grid, results: Sequence[RowResult], budget: Budget, folder: Path) -> Path:
    """The page NAME.md, now in the folder with its figure NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    has_figure = importlib.util.find_spec("matplotlib") is not None and len(results) > 1
    if has_figure:
        rows = {
            result.name: {
                "F1 minus the first row's": {"value": result.difference, "low": result.low, "high": result.high}
            }
            for result in results[1:]
        }
        draw_scores(rows, folder / f"{grid.name}.svg")
    path = folder / f"{grid.name}.md"
    write_whole(path, "\n".join(page_lines(grid, results, budget, has_figure)) + "\n")
    return path


def page_lines(grid: Grid, results: Sequence[RowResult], budget: Budget, has_figure: bool) -> list[str]:
    """The lines of the page."""
    lines = [f"# {grid.title}", "", grid.question, "", SCALE, ""]
    lines += [f"Each run: {budget.steps} steps of {budget.batch} items, then {budget.scenes} scenes captioned.", ""]
    lines += result_table(results)
    lines += ["", "Event F1: families of sounds named rightly among those named and those there, over all scenes; "]
    lines[-1] += "in brackets the middle 95 % of the difference over resampled scenes and seeds. " + ENERGY_NOTE
    lines += ["", f"![Differences with their intervals]({grid.name}.svg)"] if has_figure else []
    missing = [row for row in grid.rows if row.missing]
    names = {result.name for result in results}
    undone = [row.name for row in grid.runnable if row.name not in names]
    if missing or undone:
        lines += ["", "## Not run", "", *(f"- {row.name}: {row.missing}." for row in missing)]
        lines += [f"- {name}: its runs are not finished." for name in undone]
    return [*lines, "", "## What this supports", "", *conclusions(results)]


def result_table(results: Sequence[RowResult]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [
        "| row | seeds | event F1 | minus the first row | codes restored | parameters | training, s | caption, s |"
    ]
    lines.append("|---" * 8 + "|")
    for item in results:
        masked = "-" if item.masked is None else f"{item.masked:.3f}"
        difference = "-"
        if item.difference is not None:
            difference = f"{item.difference:+.3f} [{item.low:+.3f}, {item.high:+.3f}] {item.verdict}"
        cells = [item.name, str(item.seeds), f"{item.f1:.3f} ± {item.spread:.3f}", difference, masked]
        cells += [f"{item.parameters:,}", f"{item.seconds:.0f}", f"{item.captioning:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def conclusions(results: Sequence[RowResult]) -> list[str]:
    """What the intervals show, row by row; an effect inside its interval is not shown."""
    if len(results) < 2:
        return ["Nothing yet: fewer than two rows are finished."]
    found = []
    for item in results[1:]:
        if item.verdict == "not shown":
            found.append(f"- *{item.name}*: a difference from *{results[0].name}* is not shown.")
        else:
            found.append(
                f"- *{item.name}* is {item.verdict} than *{results[0].name}* by {abs(item.difference or 0):.3f}."
            )
    return found
