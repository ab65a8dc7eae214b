"""What `enclap batch` is given -> the recordings that are meant, one after the other, without holding them all.

A source is a folder, a glob, a list (text, CSV, TSV, JSON lines, Parquet), a tar archive as WebDataset writes them, a
Hugging Face data set, or an address such as s3://bucket/folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from enclap.batch.remote import is_address, remote_files
from enclap.data.columns import CLIP_COLUMNS
from enclap.data.datasets.archives import read_samples
from enclap.data.datasets.hugging_face import SAVED, audio_splits
from enclap.data.datasets.open import HUB_ID
from enclap.data.tables import READERS
from enclap.errors import AudioNotFound, DataError
from enclap.files import is_folder
from enclap.output.inputs import AUDIO_SUFFIXES, InputFile, expand, recordings_below
from enclap.text import first_line, printable

ARCHIVE = ".tar"
TEXT_LIST = ".txt"
NAMES = ("uri", *CLIP_COLUMNS)
"""Columns of a list that name a recording; the first that a list has is taken."""
DATASET = "dataset:"
"""Begins the uri of a row of a Hugging Face data set."""


@dataclass(frozen=True, slots=True)
class Item:
    """One recording of a corpus.

    id: what it is called in the shards. uri: the path or address of its file. stamp: changes when the file does, where
    that can be seen without reading it. offset, size: of the bytes of a member of a tar archive; of a row of a data
    set the offset alone. fault: why it is known already that it cannot be read. clip: what a data set says of it.
    """

    id: str
    uri: str
    stamp: str = ""
    offset: int | None = None
    size: int | None = None
    fault: str | None = None
    clip: dict[str, Any] | None = None


def find_items(sources: Sequence[str]) -> Iterator[Item]:
    """The recordings of all sources, in their order; DataError for a source that cannot be read at all."""
    for source in sources:
        path, suffix = Path(source), PurePosixPath(source).suffix.lower()
        if is_address(source):
            yield from address_items(source, suffix)
        elif is_folder(source):
            yield from folder_items(source)
        elif path.exists() and suffix in (TEXT_LIST, *READERS):
            yield from list_items(path)
        elif not path.exists() and HUB_ID.fullmatch(source) and suffix not in AUDIO_SUFFIXES | {TEXT_LIST, *READERS}:
            yield from dataset_items(source)
        else:
            for found in expand([source]):
                if isinstance(found, AudioNotFound):
                    raise DataError(str(found))
                is_archive = Path(found.path).suffix.lower() == ARCHIVE
                yield from archive_items(found.path) if is_archive else [local_item(found.path)]


def local_item(path: str, name: str | None = None, **known: Any) -> Item:
    """The item of a file on this machine, which need not be there."""
    try:
        facts = os.stat(path)  # noqa: PTH116  (a name that no path can have is a fault of its own)
    except (OSError, ValueError):
        return Item(name or path, path, **known)
    return Item(name or path, path, f"{facts.st_size}-{facts.st_mtime_ns}", **known)


def folder_items(folder: str) -> Iterator[Item]:
    """The recordings of a folder and of those below; where there are none, the members of its archives."""
    if any((Path(folder) / saved).is_file() for saved in SAVED):
        yield from dataset_items(folder)
        return
    empty = True
    for found in recordings_below(folder):
        empty = False
        yield local_item(found.path) if isinstance(found, InputFile) else Item(folder, folder, fault=str(found))
    if empty:
        archives = sorted(str(path) for path in Path(folder).glob(f"*{ARCHIVE}"))
        if not archives:
            raise DataError(f"{printable(folder)}: no sound files and no {ARCHIVE} archives in this folder")
        for archive in archives:
            yield from archive_items(archive)


def list_items(path: Path) -> Iterator[Item]:
    """What a list names: relative paths are in the list's own folder; a column `id` names the rows."""
    if path.suffix.lower() == TEXT_LIST:
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                for line in lines:
                    if name := line.rstrip("\r\n"):
                        yield listed_item(path, name)
        except OSError as error:
            raise DataError(f"{printable(str(path))}: cannot be read: {error.strerror or error}") from error
        return
    try:
        for number, fields in READERS[path.suffix.lower()](path, list_fault):
            where = f"{printable(str(path))} line {number}"
            if isinstance(fields, str) and (not number or (number == 1 and path.suffix.lower() in (".csv", ".tsv"))):
                raise DataError(f"{printable(str(path))}: {fields}")
            if isinstance(fields, str):
                yield Item(where, where, fault=f"{where}: {fields}")
                continue
            name = next((str(fields[column]).strip() for column in NAMES if fields.get(column)), "")
            identity = str(fields.get("id") or "") or None
            empty = f"{where}: names no recording; it needs one of {', '.join(NAMES)}"
            yield listed_item(path, name, identity) if name else Item(where, where, fault=empty)
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(str(path))}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {error.strerror or first_line(error)}") from error


def list_fault(header: Sequence[str], has_lists: bool = False) -> str | None:
    """What is wrong with the columns of a list of recordings, if anything."""
    return None if set(NAMES) & set(header) else f"needs a column {', '.join(NAMES)}; it has {', '.join(header)}"


def listed_item(table: Path, name: str, identity: str | None = None) -> Item:
    """The item that a line of a list names."""
    if is_address(name):
        return Item(identity or name, name)
    is_below = table.parent != Path() and not os.path.isabs(name)  # noqa: PTH117
    path = os.path.join(table.parent, name) if is_below else name  # noqa: PTH118
    return local_item(path, identity or name)


def archive_items(path: str) -> Iterator[Item]:
    """The members of a tar archive that are sound, whether there are captions beside them or not."""
    stamp = local_item(path).stamp
    for key, sample in read_samples(Path(path)).items():
        if sample.audio is not None:
            yield Item(f"{Path(path).stem}/{key}", path, stamp, *sample.audio)


def dataset_items(name: str) -> Iterator[Item]:
    """The rows of all splits of a Hugging Face data set."""
    for split, (table, _) in audio_splits(name).items():
        for row in range(len(table)):
            yield Item(f"{split}/{row}", f"{DATASET}{name}:{split}", getattr(table, "_fingerprint", ""), row)


def address_items(address: str, suffix: str) -> Iterator[Item]:
    """The file at an address, or those that a glob matches or a folder holds."""
    if suffix in READERS or suffix == TEXT_LIST:
        raise DataError(f"{printable(address)}: lists are read from this machine; copy it here first")
    if suffix in AUDIO_SUFFIXES and not re.search(r"[*?\[]", address):
        yield Item(address, address)
        return
    for found, stamp in remote_files(address):
        if PurePosixPath(found).suffix.lower() in AUDIO_SUFFIXES:
            yield Item(found, found, stamp)
