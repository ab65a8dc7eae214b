"""A data set as a table of one's own: CSV or JSON lines that name audio files and their captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from enclap.data.datasets.base import TRAIN, CaptionedClip
from enclap.data.tables import FaultyRow, Fields, check_faults, parse_clip, read_table, references_of
from enclap.errors import DataError
from enclap.text import printable


class TableDataset:
    """The clips of a table that has an audio file and its captions in each row.

    A .csv file has a header with `path`, `file_name` or `fname`, and `caption`, or `caption_1`, `caption_2` and so on
    for several (`reference_1` ... do as well); a .jsonl file has an object in each line, with the same names, or
    `captions` as a list. A `split` may be given, else it is "train", and `labels` with semicolons between them. Paths
    are relative to the table's folder. Rows of the same path make one clip with the captions of all.

    is_distinct: keep a caption that a clip has twice only once. DataError lists every fault with its line.
    """

    def __init__(self, path: Path, is_distinct: bool = True) -> None:
        rows, faults = read_table(path, lambda fields: clip_of_row(fields, path.parent))
        clips: dict[str, CaptionedClip] = {}
        lines: dict[str, int] = {}
        for line, row in rows:
            first = clips.get(row.name)
            if first is None:
                lines[row.name], clips[row.name] = line, row
                continue
            if first.split != row.split:
                faults.append((line, f"split {row.split!r}, but {first.split!r} in line {lines[row.name]}"))
            captions = (*first.captions, *row.captions)
            clips[row.name] = CaptionedClip(row.name, row.source, captions, first.split, first.labels or row.labels)
        for clip in clips.values():
            try:
                is_there = Path(str(clip.source)).is_file()
            except (OSError, ValueError):  # a name that no file can have
                is_there = False
            if not is_there:
                faults.append((lines[clip.name], f"no file {clip.name!r}"))
        check_faults(path, faults)
        if not clips:
            raise DataError(f"{printable(str(path))}: no rows; write one with path and caption for each clip")
        self._clips = list(clips.values())
        self._is_distinct = is_distinct

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[CaptionedClip]:
        for clip in self._clips:
            captions = tuple(dict.fromkeys(clip.captions)) if self._is_distinct else clip.captions
            yield CaptionedClip(clip.name, clip.source, captions, clip.split, clip.labels)


def clip_of_row(fields: Fields, folder: Path) -> CaptionedClip:
    """The clip of a row, as if it were its clip's only one."""
    row, split = parse_clip(fields, references_of), fields.get("split") or TRAIN
    if not isinstance(split, str):
        raise FaultyRow("split must be a word")
    return CaptionedClip(row.clip, folder / row.clip, row.captions, split.strip(), row.labels)
