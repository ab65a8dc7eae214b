"""`enclap index`: a folder of sounds to a library that `enclap search` asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName, PrecisionName
from enclap.cli.exit import SOME_FAILED, print_error
from enclap.errors import UsageError
from enclap.text import printable

if TYPE_CHECKING:
    from enclap.search.indexing import Indexed

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of sounds, with those below.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="LIBRARY", help="Folder of the library.")]
Reindex = Annotated[
    bool, typer.Option("--reindex", help="Hear everything again; the old rows serve until that is done.")
]


def index(
    folder: Folder,
    output: Output,
    reindex: Reindex = False,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: options.Device = "auto",
    precision: options.Precision = PrecisionName.float32,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Hear a folder of sounds once, so that they can be found by words.

    Run it again after changes: only new and changed files are heard, and
    files that are gone vanish. Needs the extra search.

    \b
    Examples:
      enclap index recordings/ --output library
      enclap search library "water dripping in a cave"

    \b
    Exit codes: 0 all indexed, 1 some files failed, 2 wrong usage,
    3 model or environment, 130 interrupted.
    """
    from enclap.cli.extras import require_extra

    require_extra("enclap index", "search", "lancedb")
    if not folder.is_dir():
        raise UsageError(f"{printable(str(folder))}: no such folder; name the one whose sounds shall be found")
    from enclap.captioner import Captioner
    from enclap.cli.messages import messages_shown
    from enclap.cli.progress import ProgressBar
    from enclap.search.making import make_library

    def show(done: Indexed) -> None:
        if not quiet:
            print_error(f"{done.done} of {done.found} files")

    with messages_shown(ProgressBar(wanted=False), quiet=quiet):
        name = os.path.abspath(model) if Path(model).is_dir() else model  # noqa: PTH100  (links are kept)
        captioner = Captioner.from_pretrained(name, engine.value, device, precision.value, threads)
        done = make_library(output, Path(os.path.abspath(folder)), captioner, reindex=reindex, on_progress=show)  # noqa: PTH100
    for fault in done.faults:
        print_error(f"enclap: {fault}")
    if not quiet:
        print_error(f"enclap: {printable(str(output))}: {done}")
    if done.faults:
        raise SystemExit(SOME_FAILED)
