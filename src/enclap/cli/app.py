"""All commands in one application; each has a file of its own and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from enclap.cli.batch import batch
from enclap.cli.caption import caption
from enclap.cli.doctor import doctor
from enclap.cli.evaluate import evaluate
from enclap.cli.exit import handle_errors
from enclap.cli.experiment import experiment
from enclap.cli.extract import extract
from enclap.cli.finetune import finetune
from enclap.cli.index import index
from enclap.cli.mcp import mcp
from enclap.cli.metrics import metrics
from enclap.cli.models import models
from enclap.cli.rate import rate
from enclap.cli.search import search
from enclap.cli.serve import serve
from enclap.cli.tag import tag
from enclap.cli.train import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from enclap.cli.versions import version_lines

        for line in version_lines():
            typer.echo(line)
        raise typer.Exit


@app.callback()
def _enclap(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show program, model and engine versions."
        ),
    ] = False,
) -> None:
    """Describe sounds in English sentences."""


app.command()(handle_errors(caption))
app.command()(handle_errors(batch))
app.command()(handle_errors(doctor))
app.command()(handle_errors(evaluate))
app.command()(handle_errors(extract))
app.command()(handle_errors(train))
app.command()(handle_errors(finetune))
app.command()(handle_errors(experiment))
app.command()(handle_errors(index))
app.command()(handle_errors(search))
app.command()(handle_errors(tag))
app.command()(handle_errors(serve))
app.command()(handle_errors(mcp))
app.add_typer(models, name="models")
app.add_typer(metrics, name="metrics")
app.add_typer(rate, name="rate")
