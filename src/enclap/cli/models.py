"""`enclap models`: what can be used without a download."""

from __future__ import annotations

import typer

from enclap.cli.endings import complain, ends_well

MEGABYTE = 1e6

models = typer.Typer(no_args_is_help=True, help="Show the models that are there.")


@models.callback()
def _models() -> None:
    """Show the models that are there."""


@models.command("list")
@ends_well
def list_models() -> None:
    """List the models that work without a download, with the size of their files and their folder."""
    from enclap.hub import bundled_models
    from enclap.names import printable

    entries = bundled_models()
    if not entries:
        complain("no model came with this installation; give --model a folder or a hub repository")
    for entry in entries:
        typer.echo(f"{entry.name:<12} {entry.size / MEGABYTE:6.1f} MB  {printable(str(entry.folder))}")
