"""From what a user names to a data set: a table, a folder, archives, or a data set of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from enclap.data.datasets.archives import ArchiveDataset
from enclap.data.datasets.base import CaptionDataset, CaptionedClip, Fault, describe_faults
from enclap.data.datasets.check import CheckedDataset, check_audio
from enclap.data.datasets.hugging_face import SAVED, HuggingFaceDataset
from enclap.data.datasets.table import TableDataset
from enclap.data.tables import METADATA, READERS
from enclap.errors import DataError
from enclap.text import printable

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class JoinedDataset:
    """The clips of several data sets, one after the other."""

    def __init__(self, parts: Sequence[CaptionDataset]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[CaptionedClip]:
        for part in self._parts:
            yield from part


def open_dataset(names: Sequence[str], audio: Path | None = None, faults: list[Fault] | None = None) -> CaptionDataset:
    """The clips of all that is named, in that order.

    names: tables (.csv, .tsv, .jsonl, .parquet), folders that hold one, or metadata.* and splits with one each, or tar
    archives; .tar files; folders that the datasets library saved; or a data set on the hub ("owner/name").
    audio: the folder that tables name files in; None for the table's own. faults: see `TableDataset`.
    """
    tables: list[Path] = []
    archives: list[Path] = []
    parts: list[CaptionDataset] = []
    for name in names:
        path = Path(name)
        if path.is_dir() and any((path / saved).is_file() for saved in SAVED):
            parts.append(HuggingFaceDataset(name, faults))
        elif path.is_dir():
            found = tables_in(path)
            tables += found
            archives += [] if found else sorted(path.glob("*.tar"))
        elif path.suffix.lower() == ".tar":
            archives.append(path)
        elif path.exists() or path.suffix.lower() in READERS or not HUB_ID.fullmatch(name):
            tables.append(path)
        else:
            parts.append(HuggingFaceDataset(name, faults))
    prefixes = [f"{shortest_name(path, tables)}/" if len(tables) > 1 else "" for path in tables]
    parts += [TableDataset(path, audio, prefix, faults) for path, prefix in zip(tables, prefixes, strict=True)]
    if archives:
        parts.append(ArchiveDataset(archives, faults))
    if not parts:
        raise DataError(f"{printable(', '.join(names))}: no table (.csv, .tsv, .jsonl, .parquet) and no .tar there")
    return parts[0] if len(parts) == 1 else JoinedDataset(parts)


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder: its own, else those called metadata.* in the folders in it, as audio folders have."""
    own = sorted(path for ending in READERS for path in folder.glob(f"*{ending}"))
    metadata = [path for path in own if path.stem == METADATA]
    if metadata or own:
        return metadata or own
    return sorted(path for ending in READERS for path in folder.glob(f"*/{METADATA}{ending}"))


def open_checked(
    names: Sequence[str], audio: Path | None = None, skip_faulty: bool = False
) -> tuple[CheckedDataset, list[Fault]]:
    """The data set after a look at every row and every audio file, and the faults of what was left out.

    DataError names all faults at once, unless skip_faulty leaves out what has one; and when nothing is left.
    """
    faults: list[Fault] = []
    checked, unreadable = check_audio(open_dataset(names, audio, faults))
    faults = sorted(faults + unreadable)
    if (faults and not skip_faulty) or not len(checked):
        raise DataError(describe_faults(faults))
    return checked, faults


def shortest_name(path: Path, tables: Sequence[Path]) -> str:
    """A name of the table that no other has: its own, or that of its folder before it."""
    alone = [other.stem for other in tables].count(path.stem) == 1
    return path.stem if alone else f"{path.parent.name}/{path.stem}"
