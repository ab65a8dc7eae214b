"""`enclap models`: list, download, convert and export models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.exit import handle_errors, print_error

if TYPE_CHECKING:
    from enclap.hub.download import Repository

MEGABYTE = 1e6

models = typer.Typer(no_args_is_help=True, help="List, download, convert and export models.")
Output = Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to create.")]
Update = Annotated[bool, typer.Option("--update", help="Take the newest revision and lock to it.")]
TextTower = Annotated[bool, typer.Option("--text-tower", help="Keep CLAP's text tower.")]
Source = Annotated[str | None, typer.Option(metavar="SOURCE", help="A file, a folder, or a repository on the hub.")]


@models.callback()
def _models() -> None:
    """List, download, convert and export models."""


@models.command("list")
@handle_errors
def list_models() -> None:
    """List the models on this machine.

    Each with the size of its files and its folder; all of them work without a network.
    """
    from enclap.hub.resolve import bundled_models, fetched_models
    from enclap.text import printable

    entries = [*bundled_models(), *fetched_models()]
    if not entries:
        print_error("no model came with this installation; name a folder or a hub repository with --model")
    for entry in entries:
        typer.echo(f"{entry.name:<12} {entry.size / MEGABYTE:6.1f} MB  {printable(str(entry.folder))}")


@models.command()
@handle_errors
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="official, or a repository on the hub.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Also copy it to a new folder, for a machine offline."),
    ] = None,
    update: Update = False,
    text_tower: TextTower = False,
) -> None:
    """Download a model, or verify one that is here.

    From then on it works without a network. The first download is trusted: its revision and checksums are locked, and
    later downloads must match them.
    """
    from enclap.cli.messages import messages_shown
    from enclap.hub.resolve import bundle_model, pull_model
    from enclap.text import printable

    with messages_shown(levels=False):
        if output is None:
            typer.echo(printable(str(pull_model(name, update, text_tower))))
        else:
            bundle_model(name, Path(output), update, text_tower)
            typer.echo(printable(output))


@models.command()
@handle_errors
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Folder of an EnCLAP checkpoint, or file or folder of CLAP or EnCodec."),
    ],
    output: Output,
    codec: Source = None,
    clap: Source = None,
    tokenizer: Source = None,
    text_tower: TextTower = False,
    graphs: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Also export the ONNX graphs.")] = True,
) -> None:
    """Convert a published checkpoint.

    An EnCLAP checkpoint (config.json and pytorch_model.bin) becomes a complete model folder. Its codec, CLAP and
    tokenizer are the released ones, downloaded unless cached, or those that you name. A CLAP (LAION's .pt or
    transformers' format) or EnCodec (original or transformers' format) becomes a folder for training recipes, --clap
    and --codec. Pickle files are opened by a reader that accepts nothing but tensors.
    """
    from enclap.files import check_free
    from enclap.hub import official_release as releases
    from enclap.text import printable

    check_free(Path(output))
    releases.require_converter()
    if _convert_part(Path(source), Path(output), tokenizer if text_tower else None, text_tower):
        return
    released = (releases.CODEC, releases.CLAP, releases.TOKENIZER)
    from enclap.cli.messages import messages_shown

    with messages_shown(levels=False):
        found = [_part_folder(given, part) for given, part in zip((codec, clap, tokenizer), released, strict=True)]
        parts = (Path(source), found[0], found[1], found[2])
        releases.convert_parts(parts, Path(output), text_tower=text_tower, graphs=graphs)
    typer.echo(printable(output))


@models.command()
@handle_errors
def card(name: Annotated[str, typer.Argument(metavar="NAME", help="A model on this machine.")]) -> None:
    """Show a model's card.

    It says what the model was trained on, how good it is, and what it must not be used for.
    """
    from enclap.errors import ModelError
    from enclap.files import is_file
    from enclap.hub.layout import CARD
    from enclap.hub.resolve import find_local_model
    from enclap.text import printable

    path = find_local_model(name) / CARD
    if not is_file(path):
        raise ModelError(f"{printable(name)}: has no card ({CARD})")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        typer.echo(printable(line))


@models.command()
@handle_errors
def export(folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model folder that holds weights.")]) -> None:
    """Export a model's ONNX graphs.

    They are made from the weights in the folder and replace those that it has.
    """
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
        words = source if (source / TOKENIZER).is_file() else _part_folder(tokenizer, releases.TOKENIZER)
    with new_folder(output) as temporary:
        if kind == CLAP:
            converter.convert_clap(source, temporary, words)
        else:
            converter.convert_codec(source, temporary)
    typer.echo(f"{converter.DESCRIPTIONS[kind]}: {printable(str(output))}")
    return True


def _part_folder(given: str | None, released: Repository) -> Path:
    """The file or folder of a part: the one that the user names, or the snapshot of a hub repository."""
    from dataclasses import replace

    from enclap.files import is_file, is_folder
    from enclap.hub.download import fetch
    from enclap.hub.resolve import HUB_ID

    if given is None:
        return fetch(released).folder
    if HUB_ID.fullmatch(given) and not (is_file(given) or is_folder(given)):
        return fetch(replace(released, identifier=given)).folder
    return Path(given)
