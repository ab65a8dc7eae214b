"""`enclap experiment`: the experiments that the paper left open, at mini's size or at a published one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from enclap.cli.exit import print_error
from enclap.errors import MissingExtra

Name = Annotated[str, typer.Argument(metavar="NAME", help="components, mcm, codes, pretraining, cost or decoding.")]
Seeds = Annotated[int | None, typer.Option(min=1, max=99, metavar="N", help="Trainings of each row.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the runs and what they cost, and do nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with trainings that were cut off.")]
Report = Annotated[bool, typer.Option("--report", help="Write the page of the runs that are there; run nothing.")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model whose codec and CLAP hear; mini, or the features' own.")
]
Recordings = Annotated[str, typer.Option(metavar="DIR", help="The recordings that scenes are made of.")]
Sizes = Annotated[str, typer.Option(metavar="FILE", help="How large the experiments at mini's size are.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of that file.")]
Recipe = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="At full size, by a recipe of `enclap train` (clotho-base)."),
]
Data = Annotated[list[str] | None, typer.Option("--data", metavar="DATA", help="Of the recipe; as for `enclap train`.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="For models and results.")]
Pages = Annotated[str, typer.Option(metavar="DIR", help="For the page with table and figure.")]


def experiment(
    name: Name,
    seeds: Seeds = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    report: Report = False,
    model: Model = None,
    recordings: Recordings = "../shared/data/sounds",
    sizes: Sizes = "recipes/mini/experiments.yaml",
    set_: Set = None,
    recipe: Recipe = None,
    data: Data = None,
    device: Device = "auto",
    output: Output = "build/experiments",
    pages: Pages = "docs/experiments",
) -> None:
    """Run an experiment: several trainings of each row, a table, a page.

    Runs that are finished are not run again, also when another experiment has
    made them; the page is written anew after each. Needs the extra train.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before PyTorch looks; its trainer takes a GPU that it sees
    try:
        from enclap.experiments.grids import COST, find_grid
        from enclap.experiments.run import Place, run_experiment
    except ModuleNotFoundError as error:
        raise MissingExtra("enclap experiment", "train") from error

    if name != COST:
        find_grid(name)  # a name that is wrong is told before anything else is looked at
    sizes_and_data = Path(recordings), Path(sizes), recipe, tuple(data or ()), tuple(set_ or ())
    laboratory = Place(Path(output), device, model, *sizes_and_data).open()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    lines, page = run_experiment(name, laboratory, seeds, resume, None if dry_run else Path(pages), report)
    if lines:
        typer.echo("\n".join(lines))
    if page is not None:
        print_error(f"enclap: page in {page}")
