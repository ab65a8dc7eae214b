"""Rows of tables in any of the formats that data sets come in: CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from enclap.data.datasets.base import CAPTION_COLUMN

Fields = dict[str, Any]
NumberedRow = tuple[int, Fields | str]
"""The line where a row begins, from 1, and its fields, or what is wrong with it. `captions` is a list in every row."""
NAME_COLUMNS = ("path", "file_path", "file_name", "youtube_id")
"""Columns that name a clip's audio; the first that a table has is taken."""


def read_csv(path: Path, delimiter: str = ",") -> Iterator[NumberedRow]:
    """The rows of a table with a header."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True, delimiter=delimiter)
        header: list[str] | None = None
        line = 1
        try:
            for cells in reader:
                if header is None:
                    header = [cell.strip() for cell in cells]
                    if not set(NAME_COLUMNS) & set(header) or not any(map(CAPTION_COLUMN.fullmatch, header)):
                        yield line, f"the header needs the columns path and caption; it has {', '.join(header)}"
                        return
                elif len(cells) > len(header):
                    yield line, f"{len(cells)} cells, but the header has {len(header)}; put quotes around commas"
                elif cells:
                    fields: Fields = dict(zip(header, cells, strict=False))
                    yield line, {**fields, "captions": [text for text in captions_in(fields) if text.strip()]}
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, f"not CSV from here on ({error})"


def read_json_lines(path: Path) -> Iterator[NumberedRow]:
    """An object in each line that is not empty."""
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
            else:
                yield line, {**fields, "captions": captions_in(fields)}


def read_parquet(path: Path) -> Iterator[NumberedRow]:
    """The rows of a Parquet file, counted from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches()
        rows = (row for batch in batches for row in batch.to_pylist())
        for line, fields in enumerate(rows, start=1):
            yield line, {**fields, "captions": captions_in(fields)}
    except pa.ArrowInvalid as error:
        yield 1, f"not Parquet ({str(error).splitlines()[0]})"


def captions_in(fields: Fields) -> Any:
    """The captions of a row: its `captions`, else those of `caption`, `caption_1`, `caption_2` and so on, in order."""
    if "captions" in fields:
        return fields["captions"]
    columns = sorted(filter(CAPTION_COLUMN.fullmatch, fields), key=lambda name: (len(name), name))
    return [fields[name] for name in columns if fields[name] is not None]


READERS: dict[str, Callable[[Path], Iterator[NumberedRow]]] = {
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}
"""What reads a table, by its extension."""
