"""The bundled model from the recordings: `make mini` runs this module.

Each stage runs in a process of its own as soon as the stages that it needs are done, several side by side where they
can. Whatever is done already is skipped.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from enclap.engines.devices import usable_cores
from enclap.errors import EnclapError, UsageError
from enclap.files import replacement_folder
from enclap.hub.integrity import write_checksums
from enclap.training.mini.context import TEACHERS, MiniRun
from enclap.training.mini.stages import STAGES
from enclap.training.stage import run_side_by_side, run_stage

logger = logging.getLogger(__name__)

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


def run_logged(run: MiniRun, name: str) -> None:
    """Run one stage; its log, with the commit that it ran at and the minutes it took, goes to logs/NAME.log too."""
    folder, start = run.output / "logs", time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"{name}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        logger.info("%s: runs at %s", name, revision())
        run_stage(STAGES, name, run, run.markers)
        logger.info("%s: took %.1f minutes", name, (time.monotonic() - start) / 60.0)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def revision() -> str:
    """The commit of the code that runs, or its version where it is no clone."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return f"commit {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    except (FileNotFoundError, subprocess.CalledProcessError):
        return f"version {version('enclap')}"


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
                run_logged(run, name)
        else:
            run_all(run)
    except EnclapError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
