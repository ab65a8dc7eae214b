"""The bundled model from the recordings: `make mini` runs this module.

Each stage runs in a process of its own as soon as the stages that it needs are done, several side by side where they
can. Whatever is done already is skipped.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from enclap.engines.onnx.sessions import usable_cores
from enclap.errors import EnclapError, UsageError
from enclap.files import replacement_folder
from enclap.hub.integrity import write_checksums
from enclap.training.mini.context import TEACHERS, MiniRun
from enclap.training.mini.stages import STAGES
from enclap.training.stage import run_side_by_side, run_stage

CARD = ("README.md", "reliability.svg")
"""Files of a model folder that are written after a measurement, not by a stage."""
SIDE_BY_SIDE = 3
"""Stages that may run at the same time, where there is a core for each: the codec, the opinions, the distillation."""


def install(run: MiniRun, target: Path) -> None:
    """Replace the model folder `target` by the finished model; its card stays."""
    if not run.markers.is_done(STAGES[-1].name):
        raise UsageError(f"{run.output}: the training is not finished; run it to its end first")
    with replacement_folder(target) as fresh:
        shutil.copytree(run.model, fresh, dirs_exist_ok=True)
        for name in CARD:
            if (target / name).exists():
                shutil.copy(target / name, fresh / name)
        write_checksums(fresh)


def run_all(run: MiniRun) -> None:
    """Run every stage that is not done; EnclapError when one fails."""
    places = {"recordings": run.recordings, "output": run.output, "recipes": run.recipes, "teachers": run.teachers}
    arguments = [f"--{name}={place}" for name, place in places.items()]
    command = [sys.executable, "-m", "enclap.training.mini.run", *arguments]
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # mini fits one accelerator many times over
    processes = min(SIDE_BY_SIDE, usable_cores())
    run_side_by_side(STAGES, lambda name: [*command, f"--stage={name}"], run.markers, processes)


def main(
    recordings: Annotated[Path, typer.Option(help="Folder that holds manifest.csv and the recordings.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and the finished model/.")],
    recipes: Annotated[Path, typer.Option(help="Folder of the stages' recipes.")] = Path("recipes/mini"),
    teachers: Annotated[Path, typer.Option(help="Folder of the teachers' weights.")] = TEACHERS,
    install_into: Annotated[
        Path | None, typer.Option(help="Put the finished model into this folder, and do nothing else.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Run only this stage; may be given several times.")] = None,
) -> None:
    """Train mini from the recordings, or go on with a training that was cut off."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run = MiniRun(recordings, output, recipes, teachers)
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("mini's stages run in one process each; start this without torchrun")
        if install_into is not None:
            install(run, install_into)
        elif stage:
            for name in stage:
                run_stage(STAGES, name, run, run.markers)
        else:
            run_all(run)
    except EnclapError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
