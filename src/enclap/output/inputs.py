"""What a person types after `enclap caption` -> the recordings that are meant."""

from __future__ import annotations

import codecs
import glob
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from enclap.errors import AudioNotFound
from enclap.files import is_folder
from enclap.text import printable

logger = logging.getLogger("enclap")

STANDARD_INPUT = "-"
UNNAMED = "audio"  # the name that the captions of standard input are stored under

_SUFFIXES = """
    3g2 3gp aa aac aax ac3 ac4 adts aif aifc aiff amr ape aptx au avi caf dff dsf dts dtshd dv eac3 f4v flac
    flv g722 gsm iamf ircam lc3 m2a m2ts m4a m4b m4v mka mkv mlp mov mp2 mp3 mp4 mpa mpc mpeg mpg mts mxf nist
    nut oga ogg ogv oma opus paf qcp qoa ra rf64 rka rm rmvb shn sln snd sox spdif sph spx tak thd ts tta voc
    vob vqf w64 wav wave weba webm wma wmv wsd wtv wv
"""
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
"""What is taken from a folder: sound, and video that may have some. A file that is named is always tried."""
SHARED_SUFFIXES = frozenset((".aptx", ".dts", ".g722", ".gsm", ".mts", ".nut", ".sln", ".ts", ".voc"))
"""Endings that text files have too, as TypeScript does, or of formats without a signature, which anything fits."""
HEAD_BYTES = 4096
SPACES = frozenset(b"\t\n\r\f")
LEAST_ASCII = 0.7  # of the characters of a text that is not UTF-8


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to caption, or "-". mirror: its path below the folder or glob that it was found by, else its name."""

    path: str
    mirror: str


Input = InputFile | AudioNotFound


def expand(paths: Sequence[str]) -> list[Input]:
    """Files and "-" in the order given, folders and globs replaced by their files in order of name.

    For a path that leads to nothing, and for a folder that cannot be read, the list holds the AudioNotFound that says
    so. Of several folders each keeps its name in `mirror`; of a single one it is left out.
    """
    several = sum(is_folder(path) for path in paths) > 1
    found: list[Input] = []
    for path in paths:
        if path == STANDARD_INPUT:
            found.append(InputFile(path, UNNAMED))
        elif is_folder(path):
            name = Path(path).name
            name = name if name not in ("", "..") else Path(path).resolve().name
            found += _folder(path, name if several else "")
        elif _is_there(path):
            found.append(InputFile(path, Path(path).name))
        elif glob.has_magic(path):
            found += _matches(path)
        else:
            found.append(AudioNotFound(f"{printable(path) or repr(path)}: no such file"))
    return found


def is_text(path: str) -> bool:
    """Whether a file begins as text does: printable, without a NUL, in UTF-8, UTF-16 or mostly ASCII."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False  # opening it for its sound will say why
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        decoded = head[: len(head) // 2 * 2].decode("utf-16", "replace")
        return all(character.isprintable() or ord(character) in SPACES for character in decoded)
    if not head or any((byte < 0x20 and byte not in SPACES) or byte == 0x7F for byte in head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may cut off the last character
    except UnicodeDecodeError:
        return sum(byte < 0x7F for byte in head) >= LEAST_ASCII * len(head)
    return True


def _is_there(path: str) -> bool:
    """Whether there is something at the path, or nobody can say, in which case opening it will say why."""
    try:
        os.lstat(path)  # not Path's: Path("") is the current folder
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def recordings_below(folder: str) -> Iterator[Input]:
    """The recordings in a folder and those below, folder after folder, the names of each in order.

    Hidden ones are left out, links to folders not followed; the AudioNotFound of a folder that cannot be read stands in
    the place of its files.
    """
    for parent, names in _walk(str(Path(folder))):
        if isinstance(names, AudioNotFound):
            yield names
            continue
        for name in sorted(names):
            path, suffix = _join(parent, name), Path(name).suffix.lower()
            if suffix in AUDIO_SUFFIXES and _is_recording(path, suffix in SHARED_SUFFIXES):
                yield InputFile(path, os.path.relpath(path, folder))


def _folder(folder: str, mirror: str) -> Iterator[Input]:
    """The recordings of `recordings_below` in order of their paths; AudioNotFound when there are none."""
    found = [
        InputFile(item.path, str(Path(mirror, item.mirror))) if isinstance(item, InputFile) else item
        for item in recordings_below(folder)
    ]
    if not found:
        yield AudioNotFound(f"{printable(folder)}: no sound files in this folder")
    yield from sorted(found, key=lambda item: item.path if isinstance(item, InputFile) else str(item))


def _walk(folder: str, hidden: bool = False) -> Iterator[tuple[str, list[str] | AudioNotFound]]:
    """Each folder from this one downwards with the names of its files, or why it cannot be read.

    Not `os.walk`, which calls itself for every level and gives up at a thousand. hidden: whether names that begin with
    a dot count.
    """
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        entries = _listed(parent)
        if isinstance(entries, AudioNotFound):
            yield parent, entries
            continue
        visible = {name: is_real for name, is_real in entries.items() if hidden or not name.startswith(".")}
        yield parent, [name for name, is_real in visible.items() if not is_real]
        waiting += sorted((_join(parent, name) for name, is_real in visible.items() if is_real), reverse=True)


def _listed(folder: str) -> dict[str, bool] | AudioNotFound:
    """The names in a folder, each with whether it is a folder itself, not a link to one; or why it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError as error:
        return AudioNotFound(f"{printable(folder)}: the folder cannot be read: {error.strerror or error}")


def _join(folder: str, name: str) -> str:
    """The path of a name in a folder, as Path has it; Path itself would take apart a deep folder's path every time."""
    return name if folder == "." else os.path.join(folder, name)  # noqa: PTH118


def _is_recording(path: str, may_be_text: bool) -> bool:
    """Whether a file that nobody named is to be captioned: no pipe or device, which might never end, and no text."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            logger.info("%s: left out, not an ordinary file; name it to have it captioned", printable(path))
            return False
    except OSError:
        return True  # opening it will say why
    if may_be_text and is_text(path):
        logger.info("%s: left out, a text; name it to have it tried", printable(path))
        return False
    return True


def _matches(pattern: str) -> Iterator[Input]:
    """What a glob leads to: files, and of the folders that it matches, what is in them."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:first]), parts[first:]
    recursive, spelled = "**" in rest, Path(pattern).suffix.lower()
    hidden = any(part.startswith(".") and part != ".." for part in rest)
    found: list[Input] = []
    for match in _glob(root, (*rest, "*") if rest[-1] == "**" else rest, hidden):
        if isinstance(match, AudioNotFound):
            found.append(match)
        elif not is_folder(match):
            suffix = match.suffix.lower()
            if _is_recording(str(match), suffix in SHARED_SUFFIXES and suffix != spelled):
                found.append(InputFile(str(match), _below(match, root)))
        elif not recursive:  # else its files have matched themselves
            found += _folder(str(match), _below(match, root))
    if not found:
        yield AudioNotFound(f"{printable(pattern)}: no file matches")
    named = {item.path if isinstance(item, InputFile) else str(item): item for item in found}
    yield from (named[name] for name in sorted(named))


def _glob(folder: Path, parts: Sequence[str], hidden: bool) -> Iterator[Path | AudioNotFound]:
    """What matches the parts of a pattern below a folder, or why a folder cannot be read.

    Not `Path.glob` or `glob.glob`: they leave out what they cannot read without a word, and follow links, which may
    form loops, in one version of Python and not in another.
    """
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for parent, files in _walk(str(folder), hidden):
            yield from [files] if isinstance(files, AudioNotFound) else _glob(Path(parent), rest, hidden)
    elif not glob.has_magic(part):
        yield from _glob(folder / part, rest, hidden) if _is_there(str(folder / part)) else ()
    elif isinstance(listed := _listed(str(folder)), AudioNotFound):
        yield listed
    else:
        names = [name for name in listed if fnmatch(name, part) and (hidden or not name.startswith("."))]
        for name in names:
            if not rest or is_folder(folder / name):
                yield from _glob(folder / name, rest, hidden)


def _below(path: Path, folder: Path) -> str:
    """The path from a folder on; the name alone where it leads out of the folder, as a pattern with ".." may."""
    relative = os.path.relpath(path, folder)
    return path.name if Path(relative).parts[0] == ".." else relative
