"""A data set as a table of one's own: CSV or JSON lines that name audio files and their captions."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enclap.data.datasets.base import TRAIN, CaptionedClip
from enclap.errors import DataError
from enclap.text import printable

FAULTS_SHOWN = 20
"""Faults that an error lists; of more it says how many there are."""
CAPTION_COLUMN = re.compile(r"caption(_\d+)?")


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of the table says. line: where it begins in the file, from 1. path: as written."""

    line: int
    path: str
    captions: tuple[str, ...]
    split: str


class TableDataset:
    """The clips of a table that has an audio file and its captions in each row.

    A .csv file has a header with `path` and `caption`, or `caption_1`, `caption_2` and so on for several; a .jsonl file
    has an object in each line, with `path` and `caption`, or `captions` as a list. A `split` may be given, else it is
    "train". Paths are relative to the table's folder. Rows of the same path make one clip with the captions of all.
    DataError lists every fault with its line.
    """

    def __init__(self, path: Path) -> None:
        rows, faults = _read(path)
        clips: dict[str, Row] = {}
        for row in rows:
            first = clips.setdefault(row.path, row)
            if first.split != row.split:
                faults.append((row.line, f"split {row.split!r}, but {first.split!r} in line {first.line}"))
            captions = tuple(dict.fromkeys((*first.captions, *row.captions)))
            clips[row.path] = Row(first.line, row.path, captions, first.split)
        for row in clips.values():
            try:
                is_there = (path.parent / row.path).is_file()
            except (OSError, ValueError):  # a name that no file can have
                is_there = False
            if not is_there:
                faults.append((row.line, f"no file {row.path!r}"))
        if faults:
            shown = [f"line {line}: {fault}" for line, fault in sorted(faults)[:FAULTS_SHOWN]]
            more = [f"and {len(faults) - FAULTS_SHOWN} faults more"] if len(faults) > FAULTS_SHOWN else []
            raise DataError(printable(f"{path}: {'; '.join([*shown, *more])}"))
        if not clips:
            raise DataError(f"{printable(str(path))}: no rows; write one with path and caption for each clip")
        self._folder = path.parent
        self._rows = list(clips.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[CaptionedClip]:
        for row in self._rows:
            yield CaptionedClip(row.path, self._folder / row.path, row.captions, row.split)


Faults = list[tuple[int, str]]  # line, what is wrong there


def _read(path: Path) -> tuple[list[Row], Faults]:
    """The rows that can be read, and what is wrong with the others."""
    readers: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any] | str]]]] = {
        ".csv": read_csv,
        ".jsonl": read_json_lines,
    }
    if path.suffix not in readers:
        raise DataError(f"{printable(str(path))}: not a table that is read here; give {' or '.join(readers)}")
    rows: list[Row] = []
    faults: Faults = []
    try:
        for line, found in readers[path.suffix](path):
            row = found if isinstance(found, str) else parse_row(line, found)
            if isinstance(row, Row):
                rows.append(row)
            else:
                faults.append((line, row))
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(str(path))}: not UTF-8 ({error}); save it as UTF-8") from error
    return rows, faults


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line and cells of each row, or what is wrong with it; `captions` holds what all caption columns hold."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] | None = None
        line = 1
        try:
            for cells in reader:
                if header is None:
                    header = [cell.strip() for cell in cells]
                    if "path" not in header or not any(map(CAPTION_COLUMN.fullmatch, header)):
                        yield line, f"the header needs the columns path and caption; it has {', '.join(header)}"
                        return
                elif len(cells) > len(header):
                    yield line, f"{len(cells)} cells, but the header has {len(header)}; put quotes around commas"
                elif cells:
                    pairs = list(zip(header, cells, strict=False))
                    captions = [cell for name, cell in pairs if CAPTION_COLUMN.fullmatch(name) and cell.strip()]
                    yield line, {**dict(pairs), "captions": captions}
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, f"not CSV from here on ({error})"


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line and fields of each object, or what is wrong with it."""
    with path.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield line, f"not JSON ({error})"
                continue
            if not isinstance(fields, dict):
                yield line, "not an object with path and caption"
            elif "captions" in fields:
                yield line, fields
            else:
                yield line, {**fields, "captions": [fields["caption"]] if "caption" in fields else []}


def parse_row(line: int, fields: dict[str, Any]) -> Row | str:
    """The row, or all that is wrong with it."""
    path, captions, split = fields.get("path"), fields["captions"], fields.get("split") or TRAIN
    faults = []
    if not isinstance(path, str) or not path.strip():
        faults.append("no path")
    if not isinstance(captions, list) or not all(isinstance(text, str) and text.strip() for text in captions):
        faults.append("captions must be sentences")
    elif not captions:
        faults.append("no caption")
    if not isinstance(split, str):
        faults.append("split must be a word")
    if faults:
        return ", ".join(faults)
    sentences = tuple(" ".join(text.split()) for text in captions)
    return Row(line, str(path).strip(), sentences, split.strip())
