"""`enclap metrics`: what the metrics of `enclap evaluate` need beside Python packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from enclap.cli.exit import handle_errors, print_error

metrics = typer.Typer(no_args_is_help=True, help="Fetch and convert what metrics need.")


@metrics.callback()
def _metrics() -> None:
    """Fetch and convert what metrics need."""


@metrics.command()
@handle_errors
def download(
    source: Annotated[
        str | None, typer.Option(metavar="URL|FILE", help="The archive, where it is not taken from Stanford.")
    ] = None,
    expected: Annotated[
        str | None, typer.Option("--sha256", metavar="HASH", help="What the archive's SHA-256 must be.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence, and the hash that the archive has.")] = False,
) -> None:
    """Fetch Stanford CoreNLP 3.6.0, which SPICE needs, and lock its hash.

    Its licence is the GPL, version 3 or later. Nobody publishes the hash of
    the archive: give one that you trust, or accept the one that is shown.
    """
    from enclap.errors import UsageError
    from enclap.evaluation.captioning.downloads import CORENLP_URL, LICENCE, corenlp_folder, install_corenlp
    from enclap.text import printable

    def accepted(question: str) -> bool:
        if not yes and not (sys.stdin and sys.stdin.isatty()):
            raise UsageError(f"{question} Nobody is here to answer; add --yes")
        return yes or typer.confirm(question, err=True)

    folder = corenlp_folder()
    print_error(LICENCE)
    if not accepted("Do you accept the licence?"):
        raise UsageError("nothing was fetched")
    found = install_corenlp(
        source or CORENLP_URL,
        folder,
        expected,
        lambda sha256: accepted(f"The archive has the SHA-256 {sha256}. Is it the right one?"),
    )
    print_error(f"SHA-256 {found}: locked")
    typer.echo(printable(str(folder)))


@metrics.command()
@handle_errors
def convert(
    checkpoint: Annotated[str, typer.Argument(metavar="FILE", help="FENSE's echecker_clotho_audiocaps_base.ckpt.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to create.")],
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Folder or hub name of its BERT, where it names another.")
    ] = None,
) -> None:
    """Make a folder for --fluency-model of FENSE's detector of fluency errors.

    The checkpoint is in the release of github.com/blmoistawinde/fense. It is
    opened for its tensors alone. Needs the extra train.
    """
    from enclap.errors import MissingExtra

    try:
        from enclap.convert.fluency import convert_fluency
    except ModuleNotFoundError as error:
        raise MissingExtra("enclap metrics convert", "train") from error
    convert_fluency(Path(checkpoint), Path(output), encoder)
