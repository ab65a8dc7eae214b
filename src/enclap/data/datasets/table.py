"""A data set as a table that names audio files and their captions: one's own, EnCLAP's, Clotho's or AudioCaps'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enclap.data.datasets.audio_folder import AudioFolder
from enclap.data.datasets.base import SPLIT_NAMES, TRAIN, CaptionedClip, Fault, report, split_named
from enclap.data.datasets.rows import NAME_COLUMNS, READERS
from enclap.errors import DataError
from enclap.text import printable

METADATA = "metadata"
"""What the table of an audio folder is called; its split is then the folder's name."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of the table says.

    line: where it begins in the file, from 1. name: of the clip. files: names that its audio may have.
    """

    line: int
    name: str
    files: tuple[str, ...]
    captions: tuple[str, ...]
    split: str


class TableDataset:
    """The clips of a table that has an audio file and its captions in each row.

    A .csv or .tsv file has a header, a .jsonl file an object in each line, a .parquet file columns. The audio is named
    by `path`, `file_path` (the official EnCLAP tables, whose .npy names lead to the audio of the same name),
    `file_name` (Clotho, audio folders) or `youtube_id` with `start_time` (AudioCaps). Sentences are in `caption`, or
    `caption_1`, `caption_2` and so on, or a list `captions`. A `split` may be given; else the name of the table says
    it ("val.csv"), else it is "train". Rows of the same clip make one with the captions of all.

    audio: the folder that the names are relative to; None for the table's own. prefix: put before the clips' names.
    faults: a list that takes every fault, whose rows are then left out; None raises a DataError that names them all.
    """

    def __init__(
        self, path: Path, audio: Path | None = None, prefix: str = "", faults: list[Fault] | None = None
    ) -> None:
        self._table = str(path)
        self._prefix = prefix
        folder_split = SPLIT_NAMES.get(path.parent.name.lower(), TRAIN)
        rows, found = read_table(path, folder_split if path.stem == METADATA else split_named(path.stem))
        clips: dict[str, Row] = {}
        for row in rows:
            first = clips.setdefault(row.name, row)
            if first.split != row.split:
                other = f"split {row.split!r}, but {first.split!r} in line {first.line}"
                found.append(Fault(self._table, row.line, other))
            elif first is not row and set(row.captions) <= set(first.captions):
                found.append(Fault(self._table, row.line, f"says what line {first.line} says; remove one of them"))
            captions = tuple(dict.fromkeys((*first.captions, *row.captions)))
            clips[row.name] = replace(first, captions=captions)
        folder = AudioFolder(path.parent if audio is None else audio)
        self._clips: list[tuple[Row, Path]] = []
        for row in clips.values():
            file = folder.find(row.files)
            if isinstance(file, Path):
                self._clips.append((row, file))
            else:
                found.append(Fault(self._table, row.line, file))
        if not found and not clips:
            found.append(Fault(self._table, 0, "no rows; write one with path and caption for each clip"))
        report(found, faults)

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[CaptionedClip]:
        for row, file in self._clips:
            yield CaptionedClip(
                self._prefix + row.name, file, row.captions, row.split, table=self._table, line=row.line
            )


def read_table(path: Path, split: str) -> tuple[list[Row], list[Fault]]:
    """The rows that can be read, and what is wrong with the others. split: of rows that name none."""
    shown = printable(str(path))
    if path.suffix.lower() not in READERS:
        raise DataError(f"{shown}: not a table that is read here; give {' or '.join(READERS)}")
    rows: list[Row] = []
    faults: list[Fault] = []
    try:
        for line, found in READERS[path.suffix.lower()](path):
            row = found if isinstance(found, str) else parse_row(line, found, split)
            if isinstance(row, Row):
                rows.append(row)
            else:
                faults.append(Fault(str(path), line, row))
    except OSError as error:
        raise DataError(f"{shown}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: not UTF-8 ({error}); save it as UTF-8") from error
    return rows, faults


def parse_row(line: int, fields: dict[str, Any], default_split: str) -> Row | str:
    """The row, or all that is wrong with it."""
    column = next((name for name in NAME_COLUMNS if name in fields), "path")
    path, captions, split = fields.get(column), fields["captions"], fields.get("split") or default_split
    faults = []
    if not isinstance(path, str) or not path.strip():
        faults.append(f"no {column}")
    if not isinstance(captions, list) or not all(isinstance(text, str) and text.strip() for text in captions):
        faults.append("captions must be sentences")
    elif not captions:
        faults.append("no caption")
    if not isinstance(split, str):
        faults.append("split must be a word")
    if faults:
        return ", ".join(faults)
    name, files = str(path).strip(), [str(path).strip()]
    if column == "youtube_id":
        name, files = audiocaps_names(name, str(fields.get("start_time", "")).strip(), fields.get("audiocap_id"))
    sentences = tuple(" ".join(text.split()) for text in captions)
    return Row(line, name, tuple(files), sentences, SPLIT_NAMES.get(split.strip().lower(), split.strip()))


def audiocaps_names(video: str, start: str, number: object) -> tuple[str, list[str]]:
    """The name of a clip of AudioCaps, and the file names that downloaders give it."""
    whole = start.removesuffix(".0")
    files = [f"{video}_{whole}", f"{video}_{start}", f"Y{video}", video, *([] if number is None else [str(number)])]
    return (f"{video}_{whole}" if whole else video), files
