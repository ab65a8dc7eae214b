"""What a person types after `enclap caption` -> the recordings that are meant."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import AudioNotFound
from enclap.text import printable

STANDARD_INPUT = "-"
UNNAMED = "audio"  # what the captions of standard input are filed under

_SUFFIXES = """
    3g2 3gp aa aac aax ac3 ac4 adts aif aifc aiff amr ape aptx au avi caf dff dsf dts dtshd dv eac3 f4v flac
    flv g722 gsm iamf ircam lc3 m2a m2ts m4a m4b m4v mka mkv mlp mov mp2 mp3 mp4 mpa mpc mpeg mpg mts mxf nist
    nut oga ogg ogv oma opus paf qcp qoa ra rf64 rka rm rmvb shn sln snd sox spdif sph spx tak thd ts tta voc
    vob vqf w64 wav wave weba webm wma wmv wsd wtv wv
"""
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
"""What is taken from a folder: sound, and video that may have some. A file that is named is always tried."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file to caption, or "-". mirror: its place below the folder or glob that it was found by, else its name."""

    path: str
    mirror: str


def expand(paths: Sequence[str]) -> list[Recording | AudioNotFound]:
    """Files and "-" in the order given, folders and globs replaced by their files in order of name.

    In the place of a path that leads to nothing stands the AudioNotFound that says so. Of several folders each keeps
    its name in `mirror`; of a single one it is left out.
    """
    several = sum(Path(path).is_dir() for path in paths) > 1
    return [found for path in paths for found in _expand_one(path, several)]


def _expand_one(path: str, keep_name: bool) -> Iterator[Recording | AudioNotFound]:
    if path == STANDARD_INPUT:
        yield Recording(path, UNNAMED)
    elif Path(path).is_dir():
        yield from _folder(path, _folder_name(path) if keep_name else "")
    elif os.path.lexists(path):  # when it cannot be opened, opening it will say why
        yield Recording(path, Path(path).name)
    elif glob.has_magic(path):
        yield from _matches(path)
    else:
        yield AudioNotFound(f"{printable(path)}: no such file")


def _folder_name(path: str) -> str:
    name = Path(path).name
    return name if name not in ("", "..") else Path(path).resolve().name


def _matches(pattern: str) -> Iterator[Recording | AudioNotFound]:
    root, rest = _split(pattern)
    matches = sorted(str(match) for match in root.glob(rest) if not _is_hidden(match, root, rest))
    if not matches:
        yield AudioNotFound(f"{printable(pattern)}: no file matches")
    for match in matches:
        if not Path(match).is_dir():
            yield Recording(match, os.path.relpath(match, root))
        elif "**" not in rest:  # which has gone into the folders itself
            yield from _folder(match, os.path.relpath(match, root))


def _split(pattern: str) -> tuple[Path, str]:
    """The folder before the first wildcard, and the rest as `Path.glob` takes it.

    Not `glob.glob`, whose ** follows links to folders, and so never ends where they form loops.
    """
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    # Only alone does ** mean "and below"; inside a name it is a star. At the end it means every file below.
    rest = [part if part == "**" else re.sub(r"\*\*+", "*", part) for part in parts[first:]]
    return Path(*parts[:first]), "/".join([*rest, "*"] if rest[-1] == "**" else rest)


def _is_hidden(match: Path, root: Path, pattern: str) -> bool:
    """Whether the match goes through a hidden name that the pattern does not spell with its dot."""
    hidden = any(part.startswith(".") for part in match.relative_to(root).parts)
    return hidden and not any(part.startswith(".") for part in pattern.split("/"))


def _folder(folder: str, mirror: str) -> Iterator[Recording | AudioNotFound]:
    """The recordings in a folder and those below; hidden ones are left out, links to folders not followed."""
    found = sorted(_walk(folder))
    if not found:
        yield AudioNotFound(f"{printable(folder)}: no sound files in this folder")
    for path in found:
        yield Recording(path, str(Path(mirror, os.path.relpath(path, folder))))


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield str(Path(parent) / name)
