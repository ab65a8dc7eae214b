"""Tables of clips and their captions, in CSV or JSON lines: each row read, and every fault named with its line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from enclap.errors import DataError
from enclap.text import printable

IDENTIFIERS = ("path", "file_name", "fname", "audiocap_id")
"""Columns that may name a clip; the first that a table has is taken."""
REFERENCE, CAPTION = re.compile(r"reference(_\d+)?"), re.compile(r"caption(_\d+)?")
CANDIDATES = ("candidate", "caption", "text", "caption_1")
"""Columns that may hold the caption of a system; the first that a table has is taken."""
LISTS = ("references", "captions")
"""Fields of JSON lines that may hold several captions."""
FAULTS_SHOWN = 20
"""Faults that an error lists; of more it says how many there are."""

Fields = dict[str, Any]
Faults = list[tuple[int, str]]  # line, what is wrong there
Item = TypeVar("Item")


class FaultyRow(ValueError):
    """What is wrong with a row, in words."""


@dataclass(frozen=True, slots=True)
class ClipCaptions:
    """The captions of one clip, at least one. labels: of its sounds, in order of time, where the table has them."""

    clip: str
    captions: tuple[str, ...]
    labels: tuple[str, ...] = ()


def read_table(path: Path, parse: Callable[[Fields], Item]) -> tuple[list[tuple[int, Item]], Faults]:
    """What `parse` makes of each row, with the line where the row begins, and the faults of all other rows.

    parse: raises FaultyRow. DataError when the file cannot be read as a table at all.
    """
    readers = {".csv": csv_rows, ".jsonl": json_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{printable(str(path))}: not a table that is read here; give .csv or .jsonl")
    items: list[tuple[int, Item]] = []
    faults: Faults = []
    try:
        for line, fields in readers[path.suffix.lower()](path):
            if isinstance(fields, str):
                faults.append((line, fields))
                continue
            try:
                items.append((line, parse(fields)))
            except FaultyRow as fault:
                faults.append((line, str(fault)))
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(str(path))}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    return items, faults


def check_faults(path: Path, faults: Faults) -> None:
    """Raises one DataError that lists the faults with their lines; nothing without any."""
    if faults:
        shown = [f"line {line}: {fault}" for line, fault in sorted(faults)[:FAULTS_SHOWN]]
        more = [f"and {len(faults) - FAULTS_SHOWN} more faults"] if len(faults) > FAULTS_SHOWN else []
        raise DataError(printable(f"{path}: {'; '.join([*shown, *more])}"))


def parse_clip(fields: Fields, captions_of: Callable[[Fields], Sequence[str]]) -> ClipCaptions:
    """The clip of a row. captions_of: gives the captions of the row; it raises FaultyRow, as this does."""
    column = next((name for name in IDENTIFIERS if name in fields), None)
    if column is None:
        raise FaultyRow(f"names no clip; it needs one of {', '.join(IDENTIFIERS)}")
    clip = fields[column]
    if isinstance(clip, int):
        clip = str(clip)
    if not isinstance(clip, str) or not clip.strip():
        raise FaultyRow(f"{column} is empty")
    captions = tuple(" ".join(caption.split()) for caption in captions_of(fields))
    labels = fields.get("labels") or fields.get("label") or ""
    names = labels if isinstance(labels, list) else str(labels).split(";")
    return ClipCaptions(clip.strip(), captions, tuple(str(name).strip() for name in names if str(name).strip()))


def references_of(fields: Fields) -> list[str]:
    """All captions of a row, from a list or from `reference_1`, `caption_1` and so on, in the order of their numbers.

    Empty ones are left out; FaultyRow when none remains.
    """
    values = next((fields[name] for name in LISTS if isinstance(fields.get(name), list)), None)
    if values is None:
        pattern = REFERENCE if any(map(REFERENCE.fullmatch, fields)) else CAPTION
        columns = sorted(filter(pattern.fullmatch, fields), key=lambda name: (len(name), name))
        if not columns:
            raise FaultyRow("no captions; it needs caption, caption_1 or reference_1")
        values = [fields[name] for name in columns if fields[name] is not None]
    if not all(isinstance(value, str) for value in values):
        raise FaultyRow("a caption is no text")
    captions = [value for value in values if value.strip()]
    if not captions:
        raise FaultyRow("all captions are empty")
    return captions


def csv_rows(path: Path) -> Iterator[tuple[int, Fields | str]]:
    """Line and cells of each row, or what is wrong with it; a header that cannot do is the only fault of its table."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] | None = None
        line = 1
        try:
            for cells in reader:
                if header is None:
                    header = [cell.strip() for cell in cells]
                    if fault := header_fault(header):
                        yield line, fault
                        return
                elif cells and len(cells) != len(header):
                    yield line, f"{len(cells)} cells, but the header has {len(header)}; put quotes around commas"
                elif cells:
                    yield line, dict(zip(header, cells, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, f"not CSV from here on ({error})"


def header_fault(header: Sequence[str]) -> str | None:
    """What is wrong with a table's column names, if anything."""
    if len(set(header)) < len(header):
        return "two columns of the header have the same name"
    is_caption = [name in CANDIDATES or REFERENCE.fullmatch(name) or CAPTION.fullmatch(name) for name in header]
    if not any(is_caption) or not set(IDENTIFIERS) & set(header):
        return f"the header needs a clip ({', '.join(IDENTIFIERS)}) and a caption; it has {', '.join(header)}"
    return None


def json_rows(path: Path) -> Iterator[tuple[int, Fields | str]]:
    """Line and fields of each object, or what is wrong with it."""
    with path.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError):
                yield line, "not JSON"
                continue
            yield line, fields if isinstance(fields, dict) else "not an object with a clip and its caption"
