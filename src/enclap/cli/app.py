"""All commands in one application; each has a file of its own and imports its tools when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from enclap.cli.caption import caption
from enclap.cli.doctor import doctor
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
app.command()(ends_well(doctor))
app.add_typer(models, name="models")
