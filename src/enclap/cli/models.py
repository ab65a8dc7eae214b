"""`enclap models`: what is there, fetching more, and making model folders of published weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.exit import handle_errors, print_error

if TYPE_CHECKING:
    from enclap.hub.download import Repository

MEGABYTE = 1e6

models = typer.Typer(no_args_is_help=True, help="Show, fetch and convert models.")
Output = Annotated[str, typer.Option("--output", "-o", help="The new folder.")]
Update = Annotated[bool, typer.Option("--update", help="Take the newest revision, and lock that.")]
TextTower = Annotated[bool, typer.Option("--text-tower", help="Keep CLAP's text tower.")]
Source = Annotated[str | None, typer.Option(help="A file, a folder or a hub repository.")]


@models.callback()
def _models() -> None:
    """Show, fetch and convert models."""


@models.command("list")
@handle_errors
def list_models() -> None:
    """List the models that work without a download, with the size of their files and their folder."""
    from enclap.hub.resolve import bundled_models, fetched_models
    from enclap.text import printable

    entries = [*bundled_models(), *fetched_models()]
    if not entries:
        print_error("no model came with this installation; give --model a folder or a hub repository")
    for entry in entries:
        typer.echo(f"{entry.name:<12} {entry.size / MEGABYTE:6.1f} MB  {printable(str(entry.folder))}")


@models.command()
@handle_errors
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="official, or a hub repository that holds a model.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Also copy it to this new folder, for a machine offline.")
    ] = None,
    update: Update = False,
    text_tower: TextTower = False,
) -> None:
    """Fetch a model, so that it works without a network from now on; what is there already is verified.

    The first fetch is trusted: revision and checksums are locked, and later fetches must match them.
    """
    from enclap.hub.resolve import bundle_model, pull_model
    from enclap.text import printable

    with _notes():
        if output is None:
            typer.echo(printable(str(pull_model(name, update, text_tower))))
        else:
            bundle_model(name, Path(output), update, text_tower)
            typer.echo(printable(output))


@models.command()
@handle_errors
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder of an EnCLAP checkpoint, or file or folder of CLAP or EnCodec.")
    ],
    output: Output,
    codec: Source = None,
    clap: Source = None,
    tokenizer: Source = None,
    text_tower: TextTower = False,
    graphs: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Also make the ONNX graphs.")] = True,
) -> None:
    """Make a model folder of a published checkpoint.

    An EnCLAP checkpoint (config.json and pytorch_model.bin) becomes a whole model: its codec, CLAP and tokenizer are
    the released ones, fetched unless cached, or those that you name. A CLAP (LAION's .pt or transformers' format) or
    EnCodec (original or transformers' format) becomes a folder that a training recipe or --clap and --codec can name.
    Pickles are opened by a reader that accepts tensors alone.
    """
    from enclap.files import check_free
    from enclap.hub import official_release as releases
    from enclap.text import printable

    check_free(Path(output))
    releases.require_converter()
    if _convert_part(Path(source), Path(output), tokenizer if text_tower else None, text_tower):
        return
    released = (releases.CODEC, releases.CLAP, releases.TOKENIZER)
    with _notes():
        found = [_place(given, part) for given, part in zip((codec, clap, tokenizer), released, strict=True)]
        parts = (Path(source), found[0], found[1], found[2])
        releases.convert_parts(parts, Path(output), text_tower=text_tower, graphs=graphs)
    typer.echo(printable(output))


@models.command()
@handle_errors
def card(name: Annotated[str, typer.Argument(metavar="NAME", help="A model that is on this machine.")]) -> None:
    """Show a model's card: what it was trained on, how good it is, what it must not be used for."""
    from enclap.errors import ModelError
    from enclap.hub.layout import CARD
    from enclap.hub.resolve import find_local_model
    from enclap.text import printable

    path = find_local_model(name) / CARD
    if not path.is_file():
        raise ModelError(f"{printable(name)}: has no card ({CARD})")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        typer.echo(printable(line))


@models.command()
@handle_errors
def export(folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model folder with weights.")]) -> None:
    """Make a folder's ONNX graphs from its weights, in place of those that it has."""
    from enclap.hub import official_release as releases
    from enclap.text import printable

    releases.require_converter()
    from enclap.convert.convert import export_in_place

    export_in_place(Path(folder))
    typer.echo(printable(str(Path(folder) / "onnx")))


def _convert_part(source: Path, output: Path, tokenizer: str | None, text_tower: bool) -> bool:
    """Whether the source was a CLAP or an EnCodec; it is then converted."""
    from enclap.convert import convert as converter
    from enclap.convert.checkpoints import CAPTION, CLAP
    from enclap.files import new_folder
    from enclap.hub import official_release as releases
    from enclap.hub.layout import TOKENIZER
    from enclap.text import printable

    kind = converter.kind_of_source(source)
    if kind == CAPTION:
        return False
    words = None
    if kind == CLAP and text_tower:
        words = source if (source / TOKENIZER).is_file() else _place(tokenizer, releases.TOKENIZER)
    with new_folder(output) as temporary:
        if kind == CLAP:
            converter.convert_clap(source, temporary, words)
        else:
            converter.convert_codec(source, temporary)
    typer.echo(f"{converter.DESCRIPTIONS[kind]}: {printable(str(output))}")
    return True


def _place(given: str | None, released: Repository) -> Path:
    """Where a part lies on the disk: where the user says, or the snapshot of a hub repository."""
    from dataclasses import replace

    from enclap.hub.download import fetch
    from enclap.hub.resolve import HUB_ID

    if given is None:
        return fetch(released).folder
    if not Path(given).exists() and HUB_ID.fullmatch(given):
        return fetch(replace(released, identifier=given)).folder
    return Path(given)


@contextmanager
def _notes() -> Iterator[None]:
    """Writes what the program has to say meanwhile as lines on standard error."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print_error(record.getMessage())

    handler, logger = Lines(logging.WARNING), logging.getLogger("enclap")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
