"""`enclap experiment`: the experiments that the paper left open, at mini's size."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from enclap.cli.exit import print_error
from enclap.errors import MissingExtra

Name = Annotated[str, typer.Argument(metavar="NAME", help="components, mcm, codes, pretraining, cost or decoding.")]
Seeds = Annotated[int | None, typer.Option(min=1, max=99, metavar="N", help="Trainings of each row.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the runs and what they cost, and do nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with trainings that were cut off.")]
Mini = Annotated[str, typer.Option(metavar="DIR", help="A finished training of mini.")]
Recordings = Annotated[str, typer.Option(metavar="DIR", help="The recordings that it was made of.")]
Recipes = Annotated[str, typer.Option(metavar="DIR", help="The recipes of its stages.")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="For models and results.")]
Pages = Annotated[str, typer.Option(metavar="DIR", help="For the page with table and figure.")]
Steps = Annotated[int, typer.Option(min=1, metavar="N", help="Of each training.")]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Items of a step.")]
Scenes = Annotated[int, typer.Option(min=2, metavar="N", help="That are captioned.")]


def experiment(
    name: Name,
    seeds: Seeds = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    mini: Mini = "build/mini",
    recordings: Recordings = "../shared/data/sounds",
    recipes: Recipes = "recipes/mini",
    output: Output = "build/experiments",
    pages: Pages = "docs/experiments",
    steps: Steps = 400,
    batch: Batch = 48,
    scenes: Scenes = 300,
) -> None:
    """Run an experiment: several trainings of each row, a table, a page.

    Runs that are finished are not run again, also when another experiment has
    made them. Needs the extra train, and a training of mini (`make mini`).
    """
    try:
        from enclap.experiments.grids import find_grid
        from enclap.experiments.harness import make_runs, planned, runs_of
        from enclap.experiments.page import result_table, write_page
        from enclap.experiments.table import grid_results
        from enclap.experiments.trial import Budget, Laboratory
        from enclap.training.mini.context import MiniRun
    except ModuleNotFoundError as error:
        raise MissingExtra("enclap experiment", "train") from error

    grid, budget, folder = find_grid(name), Budget(steps, batch, scenes), Path(output)
    runs = runs_of(grid, seeds)
    if dry_run:
        typer.echo("\n".join(planned(grid, runs, folder, budget)))
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    make_runs(runs, Laboratory(MiniRun(Path(recordings), Path(mini), Path(recipes)), folder, budget), resume)
    results = grid_results(grid, runs, folder, budget)
    typer.echo("\n".join(result_table(results)))
    print_error(f"enclap: page in {write_page(grid, results, budget, Path(pages))}")
