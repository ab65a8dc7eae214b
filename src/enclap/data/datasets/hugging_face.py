"""Data sets of the Hugging Face hub and of its library's own folders, their audio taken undecoded into our reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from enclap.data.columns import FaultyRow, names_captions, references_of
from enclap.data.datasets.base import CaptionedClip, Fault, common_split, report
from enclap.errors import DataError, MissingExtra
from enclap.text import first_line, printable

SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")
"""Files by which a folder is known as one that the library saved."""


class HuggingFaceDataset:
    """The clips of a repository on the hub ("owner/name"), or of a folder that `save_to_disk` wrote.

    The column of the library's type Audio is the sound; sentences are in `caption`, `caption_1` … or `captions`. The
    library's own decoder is never asked. faults: see `TableDataset`; lines are the numbers of rows.
    """

    def __init__(self, name: str, faults: list[Fault] | None = None) -> None:
        self._name = name
        self._splits = audio_splits(name)
        for table, _ in self._splits.values():
            if not any(map(names_captions, table.features)):
                raise DataError(f"{printable(name)}: no column caption; it has {', '.join(table.features)}")
        self._good: dict[str, list[int]] = {}
        report(self.find_faults(), faults)

    def find_faults(self) -> list[Fault]:
        """What is wrong with the captions; rows without fault are remembered."""
        found = []
        for split, (table, audio) in self._splits.items():
            texts, good = table.remove_columns(audio), []
            for number, row in enumerate(texts):
                try:
                    references_of(row)
                    good.append(number)
                except FaultyRow as fault:
                    found.append(Fault(f"{self._name} ({split})", number + 1, str(fault)))
            self._good[split] = good
        return found

    def __len__(self) -> int:
        return sum(map(len, self._good.values()))

    def __iter__(self) -> Iterator[CaptionedClip]:
        for split, (table, audio) in self._splits.items():
            for number in self._good[split]:
                row = table[number]
                sound = row[audio]
                yield CaptionedClip(
                    f"{split}/{number}",
                    Path(sound["path"]) if sound["bytes"] is None else sound["bytes"],
                    tuple(dict.fromkeys(references_of(row))),
                    common_split(split),
                    table=f"{self._name} ({split})",
                    line=number + 1,
                )


def audio_splits(name: str) -> dict[str, tuple[Any, str]]:
    """Each split of a data set, its audio undecoded, and what its column of type Audio is called.

    name: "owner/name" on the hub, or a folder that `save_to_disk` wrote. DataError when it cannot be loaded, or has
    another number of such columns than one.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("a Hugging Face data set", "data") from error
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # nobody is told what is loaded here
    datasets.disable_progress_bars()
    try:
        loaded: Any = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
    except Exception as error:  # whatever the library and the hub's client raise
        raise DataError(f"{printable(name)}: cannot be loaded as a data set: {first_line(error)}") from error
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    found: dict[str, tuple[Any, str]] = {}
    for split, table in splits.items():
        columns = [key for key, feature in table.features.items() if isinstance(feature, datasets.Audio)]
        if len(columns) != 1:
            raise DataError(f"{printable(name)}: {len(columns)} columns of type Audio; one is needed")
        found[split] = table.cast_column(columns[0], datasets.Audio(decode=False)), columns[0]
    return found
