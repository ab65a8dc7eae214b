"""A folder of audio files in which clips are found by name, also where the table writes other endings or only ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

NOT_AUDIO = {".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".md", ".npy", ".npz", ".tar", ".py"}


class AudioFolder:
    """The files of a folder and of those in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, names: Sequence[str]) -> Path | str:
        """The file that the first of `names` leads to, else what is wrong.

        A name is a path in the folder; its ending may be another than the file's, and the folders before it may be
        missing or others, as long as one file alone has that name.
        """
        for name in names:
            path = self.folder / name
            try:
                if path.is_file() and path.suffix.lower() not in NOT_AUDIO:
                    return path
            except (OSError, ValueError):  # a name that no file can have
                continue
        for name in names:
            path = Path(name)
            found = self._by_stem.get(path.stem if path.suffix.lower() in NOT_AUDIO else path.name, [])
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(sorted(path.relative_to(self.folder).as_posix() for path in found)[:3])
                return f"{name!r} is any of {shown}"
        return f"no file {names[0]!r}"

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        """The files by their names without folders, with and without ending."""
        files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() not in NOT_AUDIO and path.is_file() and not path.name.startswith("."):
                for name in {path.stem, path.name}:
                    files.setdefault(name, []).append(path)
        return files
