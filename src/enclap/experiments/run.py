"""An experiment from what a user asks for to its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from enclap.errors import EnvironmentFault, UsageError
from enclap.experiments.cost import measured_names, write_cost_page
from enclap.experiments.full_size import full_size_laboratory
from enclap.experiments.grids import COST, Grid, find_grid
from enclap.experiments.harness import make_runs, planned, runs_of
from enclap.experiments.laboratory import mini_laboratory
from enclap.experiments.page import result_table, write_page
from enclap.experiments.table import RowResult, floor_of, grid_results, results_of
from enclap.experiments.trial import Laboratory
from enclap.text import printable
from enclap.training.run import quiet_transformers


@dataclass(frozen=True, slots=True)
class Place:
    """Where an experiment is run. output: for models and results. device: auto, cpu or cuda.

    model: whose codec and CLAP hear; None for mini, or for the features' own. recordings, sizes: at mini's size, what
    scenes are made of and how large all is. recipe, data: at a published size, as for `enclap train`. changes: of the
    settings of either, "key=value".
    """

    output: Path
    device: str
    model: str | None
    recordings: Path
    sizes: Path
    recipe: str | None = None
    data: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def open(self) -> Laboratory:
        """The laboratory; UsageError for what does not fit together, EnvironmentFault for a device that is not here."""
        quiet_transformers()
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {printable(self.device)}: choose auto, cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise EnvironmentFault("--device cuda: PyTorch finds no GPU here; use --device cpu")
        if (self.recipe is None) != (not self.data):
            raise UsageError("--recipe and --data belong together: a recipe of `enclap train`, and what it trains on")
        if self.recipe is not None:
            return full_size_laboratory(self.recipe, self.changes, self.data, self.model, self.output, self.device)
        if not self.sizes.exists():
            advice = "it is recipes/mini/experiments.yaml in a clone of enclap; go there, or name it with --sizes"
            raise UsageError(f"{printable(str(self.sizes))}: no such file of sizes; {advice}")
        model = self.model or "mini"
        return mini_laboratory(self.recordings, model, self.sizes, self.changes, self.output, self.device)


def run_experiment(
    name: str, laboratory: Laboratory, seeds: int | None, resume: bool, pages: Path | None, only_report: bool = False
) -> tuple[list[str], Path | None]:
    """The table of an experiment and its page in the folder `pages`; without one its plan, and nothing is run.

    only_report: tell what is there, and run nothing.
    """
    if name == COST:
        return ([], write_cost_page(laboratory, pages)) if pages else ([measured_names()], None)
    grid = find_grid(name)
    if pages is None:
        return list(planned(grid, runs_of(grid, laboratory, seeds), laboratory)), None
    if only_report:
        results, page = report(grid, laboratory, seeds or grid.seeds, pages)
    else:
        results, page = run_grid(grid, laboratory, seeds or grid.seeds, resume, pages)
    return result_table(results), page


def run_grid(grid: Grid, laboratory: Laboratory, seeds: int, resume: bool, pages: Path) -> tuple[list[RowResult], Path]:
    """The results and the page of an experiment, which is written anew after each run that was not there."""
    runs = runs_of(grid, laboratory, seeds)
    for _ in make_runs(runs, laboratory, resume):
        results, page = report(grid, laboratory, seeds, pages)
    return results, page


def report(grid: Grid, laboratory: Laboratory, seeds: int, pages: Path) -> tuple[list[RowResult], Path]:
    """The results that are there, and the page that says them."""
    found = results_of(grid, runs_of(grid, laboratory, seeds), laboratory)
    results = grid_results(found, [truth.sequence for truth in laboratory.truths])
    first = next(iter(found[grid.rows[0].name].values()), None)
    floor = None if first is None else floor_of(first["texts"], first["families"])
    return results, write_page(grid, results, floor, laboratory, pages, seeds)
