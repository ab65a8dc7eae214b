"""Tables of clips and their captions, in CSV, TSV, JSON lines or Parquet: every fault is named with its line.

Data sets, references and predictions are all read here; what the columns are called stands in `columns`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from enclap.data.columns import ClipRow, FaultyRow, Fields, header_fault, parse_row, references_of
from enclap.data.datasets.base import SPLIT_NAMES, TRAIN, Fault, split_named
from enclap.errors import DataError, MissingExtra
from enclap.text import first_line, printable

METADATA = "metadata"
"""What the table of an audio folder is called; its split is then the folder's name."""

NumberedFields = tuple[int, Fields | str]
"""The line where a row begins, from 1, and its fields, or what is wrong with it; line 0 is the table as a whole."""


def read_clips(path: Path, is_distinct: bool = True) -> tuple[list[ClipRow], list[Fault]]:
    """The clips of a table with all that their rows say, and the faults of the rows that are left out.

    Rows of the same clip make one with the captions of all. is_distinct: a caption that a clip has twice is kept once,
    and a row that says nothing new is a fault, unless it is numbered as another person's caption; without it every
    caption counts. DataError as in `read_table`.
    """
    rows, faults = read_table(path)
    clips: dict[str, ClipRow] = {}
    for row in rows:
        first = clips.setdefault(row.name, row)
        captions = row.captions if first is row else (*first.captions, *row.captions)
        if first.split != row.split:
            fault = f"split {row.split!r}, but {first.split!r} in line {first.line}"
            faults.append(Fault(str(path), row.line, fault))
            continue
        is_other = bool(row.number) and row.number != first.number  # a tenth of AudioCaps' clips have equal captions
        if is_distinct and first is not row and not is_other and set(row.captions) <= set(first.captions):
            faults.append(Fault(str(path), row.line, f"says what line {first.line} says; remove one of them"))
            continue
        captions = tuple(dict.fromkeys(captions)) if is_distinct else captions
        clips[row.name] = replace(first, captions=captions, labels=first.labels or row.labels)
    return list(clips.values()), faults


def read_table(
    path: Path, captions_of: Callable[[Fields], Sequence[str]] = references_of
) -> tuple[list[ClipRow], list[Fault]]:
    """The rows that can be read, and what is wrong with the others.

    captions_of: gives the captions of a row; it raises FaultyRow. A row that names no split is in the one that the
    table's name says ("val.csv"), else in "train". DataError when the file cannot be read as a table at all.
    """
    shown = printable(str(path))
    if path.suffix.lower() not in READERS:
        raise DataError(f"{shown}: not a table that is read here; give {' or '.join(READERS)}")
    of_folder = SPLIT_NAMES.get(path.parent.name.lower(), TRAIN)
    split = of_folder if path.stem == METADATA else split_named(path.stem)
    rows: list[ClipRow] = []
    faults: list[Fault] = []
    try:
        for line, fields in READERS[path.suffix.lower()](path):
            try:
                if isinstance(fields, str):
                    raise FaultyRow(fields)
                row = parse_row(line, fields, captions_of)
                rows.append(replace(row, split=row.split or split))
            except FaultyRow as fault:
                faults.append(Fault(str(path), line, str(fault)))
    except OSError as error:
        raise DataError(f"{shown}: cannot be read: {error.strerror or first_line(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    return rows, faults


HeaderCheck = Callable[[Sequence[str], bool], str | None]
"""What is wrong with a table's column names, if anything; the second argument: whether its cells may be lists."""


def read_csv(path: Path, check: HeaderCheck = header_fault, *, delimiter: str = ",") -> Iterator[NumberedFields]:
    """The rows below a header; one that cannot do is the only fault of its table."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True, delimiter=delimiter)
        header: list[str] | None = None
        line = 1
        try:
            for cells in reader:
                if header is None:
                    header = [cell.strip() for cell in cells]
                    if fault := check(header, False):
                        yield line, fault
                        return
                elif cells and len(cells) != len(header):
                    yield line, f"{len(cells)} cells, but the header has {len(header)}; put quotes around commas"
                elif cells:
                    yield line, dict(zip(header, cells, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, f"not CSV from here on ({error})"


def read_json_lines(path: Path, check: HeaderCheck = header_fault) -> Iterator[NumberedFields]:
    """An object in each line that is not empty; there is no header to check."""
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


def read_parquet(path: Path, check: HeaderCheck = header_fault) -> Iterator[NumberedFields]:
    """The rows of a Parquet file, counted from 1; MissingExtra without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("a Parquet table", "data") from error
    try:
        with pq.ParquetFile(path) as file:
            if fault := check(file.schema_arrow.names, True):
                yield 0, fault
                return
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except pa.ArrowInvalid as error:
        yield 0, f"not Parquet ({first_line(error)})"


READERS: dict[str, Callable[..., Iterator[NumberedFields]]] = {
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}
"""What reads a table, by its extension: a path, and optionally a `HeaderCheck` in the place of that for captions."""
