"""A data set as a table that names audio files and their captions: one's own, EnCLAP's, Clotho's or AudioCaps'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from enclap.data.datasets.audio_folder import AudioFolder
from enclap.data.datasets.base import CaptionedClip, Fault, report
from enclap.data.tables import read_clips


class TableDataset:
    """The clips of a table that has an audio file and its captions in each row.

    A .csv or .tsv file has a header, a .jsonl file an object in each line, a .parquet file columns. The audio is named
    by one of `columns.CLIP_COLUMNS`, where an .npy name leads to the audio of the same name. Sentences are in
    `caption`, or `caption_1`, `caption_2` and so on (`reference_1` ... do as well), or a list `captions`; `labels` may
    stand beside them, with semicolons between. A `split` may be given; else the name of the table says it ("val.csv"),
    else it is "train". Rows of the same clip make one with the captions of all.

    audio: the folder that the names are relative to; None for the table's own. prefix: put before the clips' names.
    faults: a list that takes every fault, whose rows are then left out; None raises a DataError that names them all.
    is_distinct: see `read_clips`; training takes each caption of a clip once, evaluation takes all.
    """

    def __init__(
        self,
        path: Path,
        audio: Path | None = None,
        prefix: str = "",
        faults: list[Fault] | None = None,
        is_distinct: bool = True,
    ) -> None:
        table = str(path)
        rows, found = read_clips(path, is_distinct)
        folder = AudioFolder(path.parent if audio is None else audio)
        self._clips: list[CaptionedClip] = []
        for row in rows:
            file = folder.find(row.files)
            if isinstance(file, str):
                found.append(Fault(table, row.line, file))
                continue
            name = prefix + row.name
            self._clips.append(CaptionedClip(name, file, row.captions, row.split, row.labels, table, row.line))
        if not found and not rows:
            found.append(Fault(table, 0, "no rows; write one with path and caption for each clip"))
        report(found, faults)

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[CaptionedClip]:
        return iter(self._clips)
