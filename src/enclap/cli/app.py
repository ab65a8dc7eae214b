"""All commands in one application; each has a file of its own and imports its tools when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enclap.cli.caption import caption
from enclap.cli.endings import ends_well
from enclap.cli.models import models
from enclap.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"enclap {__version__}")
        raise typer.Exit


@app.callback()
def _enclap(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop."),
    ] = False,
) -> None:
    """Describe sounds in English sentences."""


app.command()(ends_well(caption))


@app.command()
@ends_well
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/mini/clap.yaml.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show the recipe without training.")] = False,
) -> None:
    """Train what a recipe describes; needs the extra "train"."""
    from enclap.cli.train import train as run

    run(recipe, settings or [], dry_run)


app.add_typer(models, name="models")
