"""`enclap finetune`: a model that describes sounds as a folder's captions do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enclap.cli.exit import print_error

Folder = Annotated[
    list[str], typer.Argument(metavar="FOLDER...", help="Sounds with a table of captions, or what extract takes.")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder for the model.")]
Base = Annotated[str, typer.Option(metavar="NAME", help="The model to start from: mini, official, a folder ...")]
Audio = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the audio that tables name.")]
Lora = Annotated[int | None, typer.Option(min=1, metavar="RANK", help="Train small adapters: less memory.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe.")]
Keep = Annotated[bool, typer.Option("--keep-work", help="Keep features and checkpoints in DIR.work.")]


def finetune(
    folder: Folder,
    output: Output,
    base: Base = "mini",
    audio: Audio = None,
    lora: Lora = None,
    set_: Set = None,
    keep_work: Keep = False,
) -> None:
    """Make a model that describes sounds as your captions do, in any language.

    The folder holds audio files and a table (.csv, .tsv, .jsonl) with columns
    path and caption. The same command goes on where it was stopped. The new
    folder has a report with captions before and after. Needs the extra train.

    \b
    Examples:
      enclap finetune sounds --output mymodel
      enclap caption --model mymodel sounds/one.wav

    \b
    Exit codes: 0 done, 2 wrong usage, 3 faults in the data, the model or the
    machine, 130 interrupted.
    """
    from enclap.cli.extras import require_extra
    from enclap.cli.messages import messages_shown

    require_extra("enclap finetune", "train", "torch", "transformers", "accelerate", "pyarrow", "yaml")
    from enclap.training.finetune import FineTuning
    from enclap.training.finetune import finetune as run

    overrides = (*(set_ or []), *([] if lora is None else [f"lora={lora}"]))
    with messages_shown(verbose=True, levels=False):
        report = run(FineTuning(tuple(folder), output, base, audio, overrides, keep_work))
    for note in report.notes:
        print_error(note)
    before, after = report.exact(bool(report.held_out))
    of = "held-out" if report.held_out else "trained"
    print_error(f"word for word of {len(report.shown)} {of} clips: {before:.0%} before, {after:.0%} after")
    print_error(f"the model is in {output}, its report in {output / 'report.md'}")
    print_error(f"try: enclap caption --model {output} sound.wav")
