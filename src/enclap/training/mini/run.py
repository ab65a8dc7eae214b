"""The shipped model from the recordings: `make mini` runs this module.

Codec and CLAP's teacher are trained side by side, one process a core; then come the audio tower, the text tower, the
captioner on embedded scenes, and the model folder is put together. Whatever is done already is skipped.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from enclap.data.attribution import write_attribution
from enclap.errors import EnclapError
from enclap.export.folder import export_folder, round_weights_to_float16
from enclap.files import replacement_folder
from enclap.hub.integrity import write_checksums
from enclap.training.mini import stages
from enclap.training.mini.clap import TOWERS
from enclap.training.mini.stages import MiniRun

logger = logging.getLogger(__name__)

CARD = "README.md"

Stage = Callable[[MiniRun], None]


def assemble(workshop: MiniRun) -> None:
    """Put model/ together from the stages' folders: weights in float16, graphs exported, sources named."""
    folder = workshop.output / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(workshop.output / "caption", folder)
    for part in ("codec", "clap"):
        (folder / part).mkdir()
        for path in sorted((workshop.output / part).iterdir()):
            if path.suffix in (".json", ".safetensors") and path.name != "report.json":
                shutil.copy(path, folder / part / path.name)
    round_weights_to_float16(folder)
    export_folder(folder)
    used = [recording for recording in workshop.corpus.recordings if recording.split == "train"]
    write_attribution(used, folder)


def install(workshop: MiniRun, target: Path) -> None:
    """Replace the model folder `target` by the finished model; its card (README.md) stays."""
    with replacement_folder(target) as fresh:
        shutil.copytree(workshop.output / "model", fresh, dirs_exist_ok=True)
        if (target / CARD).exists():
            shutil.copy(target / CARD, fresh / CARD)
        write_checksums(fresh)


STAGES: dict[str, Stage] = {
    "codec": stages.train_codec,
    "scenes": stages.prepare_scenes,
    **{f"tower-{member}": partial(stages.train_tower, member=member) for member in range(TOWERS)},
    "text": stages.train_text,
    "caption": stages.train_captioner,
    "assemble": assemble,
}
SIDE_BY_SIDE = (("codec", "tower-1"), ("tower-0", "scenes"))
AFTER = ("text", "caption", "assemble")


def run(workshop: MiniRun, name: str) -> None:
    """Run one stage unless it is done."""
    done = workshop.output / "done" / name
    if done.exists():
        logger.info("%s: done already", name)
        return
    logger.info("%s: begins", name)
    STAGES[name](workshop)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()
    logger.info("%s: done", name)


def run_side_by_side(arguments: list[str]) -> None:
    """Run codec and teacher in a process each, one thread each; raises EnclapError when one of them fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "enclap.training.mini.run", *arguments]
    processes = [
        subprocess.Popen([*command, *(f"--stage={name}" for name in names)], env=environment) for names in SIDE_BY_SIDE
    ]
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise EnclapError("a stage failed; its messages are above, and the same command goes on where it stopped")


def main(
    recordings: Annotated[Path, typer.Option(help="Folder that holds manifest.csv and the recordings.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and the finished model/.")],
    recipes: Annotated[Path, typer.Option(help="Folder of the stages' recipes.")] = Path("recipes/mini"),
    install_into: Annotated[
        Path | None, typer.Option(help="Put the finished model into this folder, do no more.")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only these stages, in this order.")] = None,
) -> None:
    """Train mini from the recordings, or go on with a training that was cut off."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    workshop = MiniRun(recordings, output, recipes)
    try:
        if install_into is not None:
            install(workshop, install_into)
            return
        if stage:
            for name in stage:
                run(workshop, name)
            return
        _ = workshop.mels  # decoded once, before two processes want them
        run_side_by_side([f"--recordings={recordings}", f"--output={output}", f"--recipes={recipes}"])
        torch.set_num_threads(os.cpu_count() or 1)
        for name in AFTER:
            run(workshop, name)
    except EnclapError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
