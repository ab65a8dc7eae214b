"""`enclap mcp`: a tool for agents on this machine, over standard input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName, PrecisionName
from enclap.errors import MissingExtra, UsageError
from enclap.text import printable


def mcp(
    folder: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder whose files may be read. [default: the current one]"),
    ] = None,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Library of `enclap index` that can be searched.")
    ] = None,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: options.Device = "auto",
    precision: options.Precision = PrecisionName.float32,
    threads: options.Threads = None,
) -> None:
    """Offer captions as a tool to an agent, over standard input and output.

    Only files below the folders that are named can be captioned.

    \b
    Examples:
      enclap mcp --folder ~/recordings
    """
    try:
        from enclap.serving.mcp import serve_stdio
    except ModuleNotFoundError as error:
        raise MissingExtra("enclap mcp", "serve") from error
    from enclap.captioner import Captioner
    from enclap.cli.serve import opened_library

    folders = tuple(folder or [Path.cwd()])
    for item in folders:
        if not item.is_dir():
            raise UsageError(f"{printable(str(item))}: no such folder; --folder names one whose files may be read")
    searched = opened_library(library, "enclap mcp --library")
    captioner = Captioner.from_pretrained(model, engine.value, device, precision.value, threads)
    serve_stdio(captioner, folders, searched)
