"""`enclap train`: a caption model from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.exit import print_error

if TYPE_CHECKING:
    from enclap.training.run import TrainingRun

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A .yaml file, or audiocaps-base, clotho-large ...")]
Data = Annotated[
    list[str], typer.Option("--data", metavar="DATA", help="Features or a data set; may be given several times.")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the run and its model.")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model whose encoders hear; without it the features' own.")
]
From = Annotated[str | None, typer.Option("--from", metavar="NAME", help="A trained model to go on from.")]
Audio = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the audio that tables name.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the resolved recipe and what it takes; train nothing.")]
Push = Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Publish the model on the hub when it is done.")]


def train(
    recipe: Recipe,
    data: Data,
    output: Output,
    model: Model = None,
    start: From = None,
    audio: Audio = None,
    set_: Set = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    push: Push = None,
) -> None:
    """Train a caption model as the paper did, or by a recipe of your own.

    Runs in one process, or in many under torchrun or accelerate launch; what
    is learned is the same. Needs the extra train.

    \b
    Examples:
      enclap train audiocaps-base --data features --output run
      enclap train clotho-finetune-base --from run/model --data c -o run2
      enclap train mine.yaml --data f -o run --set optimisation.seed=1
      torchrun --nproc-per-node 4 -m enclap train audiocaps-large \\
        --data features --output run --resume

    \b
    Exit codes: 0 trained, 2 wrong usage or recipe, 3 faults in the data, the
    model or the machine, 130 interrupted.
    """
    from enclap.cli.extras import require_extra
    from enclap.cli.messages import messages_shown

    require_extra("enclap train", "train", "torch", "transformers", "accelerate", "pyarrow", "yaml")
    from enclap.training.caption_recipe import read_caption_recipe
    from enclap.training.run import TrainingRun, train_and_publish

    run = TrainingRun(read_caption_recipe(recipe, set_ or []), tuple(data), output, model, start, audio, resume)
    with messages_shown(verbose=True, levels=False):
        if dry_run:
            show_plan(run)
            return
        folder = train_and_publish(run, push)
    print_error(f"the model is in {folder}; try: enclap caption --model {folder} sound.wav")


def show_plan(run: TrainingRun) -> None:
    """Print the resolved recipe, the number of steps, and estimates."""
    from datetime import timedelta

    import yaml

    from enclap.training.run import estimate_run, prepare

    prepared = prepare(run)
    found, steps = estimate_run(prepared), prepared.optimisation.steps
    typer.echo(yaml.safe_dump(run.recipe.model_dump(mode="json"), sort_keys=False), nl=False)
    typer.echo(f"clips: {len(prepared.store)}, of which {len(prepared.validation)} validate")
    typer.echo(f"steps: {steps} ({prepared.items.steps_per_epoch} an epoch)")
    typer.echo(f"trained parameters: {found.parameters / 1e6:.1f} million")
    typer.echo(f"memory: about {found.memory / 1e9:.1f} GB for each process (estimate)")
    for place, seconds in (("time", found.seconds_per_step), ("on an H100", found.h100_seconds_per_step)):
        whole = timedelta(seconds=round(seconds * steps))
        typer.echo(f"{place}: about {seconds:.3g} s a step, {whole} in all (estimate)")
