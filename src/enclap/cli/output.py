"""Where captions go: standard output, a file that appears whole, or a folder with a file per recording."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from enclap.errors import EnvironmentFault, UsageError
from enclap.formats import FORMATS, SUFFIXES
from enclap.names import printable
from enclap.types import CaptionResult

UNNAMED = "audio"  # file name for the captions of standard input


def deliver(results: Iterable[CaptionResult], model: str, style: str, output: str | None) -> None:
    """Write the results in the format called `style`, each as soon as it is there.

    output: None for standard output, else a file, or a folder: one that exists or a name ending in a slash.
    Raises BrokenPipeError when nobody reads standard output any more, and what `replacing` raises.
    """
    if output is None:
        for piece in FORMATS[style](results, model):
            sys.stdout.write(piece)
            sys.stdout.flush()
    elif names_folder(output):
        _fill_folder(results, model, style, Path(output))
    else:
        with replacing(Path(output)) as file:
            file.writelines(FORMATS[style](results, model))


def names_folder(output: str) -> bool:
    """Whether the path that was typed means a folder."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file under a temporary name, which takes the place of `path` when the block ends well.

    Raises UsageError when its folder is missing, EnvironmentFault when it cannot be written.
    """
    shown = printable(str(path))
    if not path.parent.is_dir():
        raise UsageError(f"{shown}: the folder {printable(str(path.parent))} does not exist; make it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(f"{shown}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def _fill_folder(results: Iterable[CaptionResult], model: str, style: str, folder: Path) -> None:
    """One file per recording, named after it."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{printable(str(folder))}: cannot be made: {error.strerror or error}") from error
    taken: set[str] = set()
    for result in results:
        name = _free_name(Path(result.path or UNNAMED), SUFFIXES[style], taken)
        with replacing(folder / name) as file:
            file.writelines(FORMATS[style]([result], model))


def _free_name(recording: Path, suffix: str, taken: set[str]) -> str:
    """dog.srt for dog.wav; dog.mp3.srt, then dog.mp3-2.srt, when a recording before it had that name."""
    stem = UNNAMED if recording.name == "-" else recording.stem
    choices = [stem, recording.name, *(f"{recording.name}-{number}" for number in range(2, len(taken) + 3))]
    name = next(choice + suffix for choice in choices if choice + suffix not in taken)
    taken.add(name)
    return name
