"""What a person types after `enclap caption` -> the recordings that are meant."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from enclap.errors import AudioNotFound
from enclap.names import printable

STANDARD_INPUT = "-"

_SUFFIXES = """
    3g2 3gp aa aac aax ac3 ac4 adts aif aifc aiff amr ape aptx au avi caf dff dsf dts dtshd dv eac3 f4v flac
    flv g722 gsm iamf ircam lc3 m2a m2ts m4a m4b m4v mka mkv mlp mov mp2 mp3 mp4 mpa mpc mpeg mpg mts mxf nist
    nut oga ogg ogv oma opus paf qcp qoa ra rf64 rka rm rmvb shn sln snd sox spdif sph spx tak thd ts tta voc
    vob vqf w64 wav wave weba webm wma wmv wsd wtv wv
"""
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
"""What is taken from a folder: sound, and video that may have some. A file that is named is always tried."""


def expand(paths: Sequence[str]) -> list[str | AudioNotFound]:
    """Files and "-" in the order given, folders and globs replaced by their files in order of name.

    In the place of a path that leads to nothing stands the AudioNotFound that says so.
    """
    return [found for path in paths for found in _expand_one(path)]


def _expand_one(path: str) -> Iterator[str | AudioNotFound]:
    if path == STANDARD_INPUT:
        yield path
    elif Path(path).is_dir():
        yield from _folder(path)
    elif _may_exist(path):
        yield path
    elif glob.has_magic(path):
        yield from _matches(path)
    else:
        yield AudioNotFound(f"{printable(path)}: no such file")


def _may_exist(path: str) -> bool:
    """False only when nothing is there; when looking fails, opening will say why."""
    try:
        return Path(path).exists()
    except OSError:
        return True


def _matches(pattern: str) -> Iterator[str | AudioNotFound]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if not matches:
        yield AudioNotFound(f"{printable(pattern)}: no file matches")
    for match in matches:
        if not Path(match).is_dir():
            yield match
        elif "**" not in pattern:  # which has gone into the folders itself
            yield from _folder(match)


def _folder(folder: str) -> Iterator[str | AudioNotFound]:
    """The recordings in a folder and those below; hidden ones are left out, links to folders not followed."""
    found = sorted(_walk(folder))
    if not found:
        yield AudioNotFound(f"{printable(folder)}: no sound files in this folder")
    yield from found


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield str(Path(parent) / name)
