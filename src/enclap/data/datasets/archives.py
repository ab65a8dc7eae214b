"""A data set in tar archives, as the WebDataset library reads them: KEY.flac beside KEY.txt or KEY.json."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from enclap.data.columns import FaultyRow, captions_in, sentences_of, split_of
from enclap.data.datasets.base import CaptionedClip, Fault, report, split_named
from enclap.errors import DataError
from enclap.text import printable

TEXT_ENDINGS = ("json", "txt")
OTHER_ENDINGS = {"npy", "npz", "pth", "pyd", "cls", "id", "index", "jpg", "png"}
"""Members beside the audio that other programs put into such archives."""
LARGEST_TEXT = 2**20  # bytes of a member that holds captions


@dataclass(slots=True)
class _Sample:
    """The members of one key: where the audio's bytes are, and the texts."""

    line: int
    audio: tuple[int, int] | None = None  # offset and size
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A clip whose audio lies in an archive."""

    archive: Path
    name: str
    offset: int
    size: int
    captions: tuple[str, ...]
    split: str
    line: int


class ArchiveDataset:
    """The clips of uncompressed tar archives; audio is read when a clip is asked for.

    A .txt member has a caption in each line; a .json member has `caption`, `caption_1` … or `captions`, and may have a
    `split`, which else the archive's name says. faults: see `TableDataset`; lines are the numbers of the entries.
    """

    def __init__(self, paths: Sequence[Path], faults: list[Fault] | None = None) -> None:
        found: list[Fault] = []
        self._entries: list[_Entry] = []
        for path in paths:
            for key, sample in read_samples(path).items():
                entry = make_entry(path, key, sample)
                if isinstance(entry, _Entry):
                    self._entries.append(entry)
                else:
                    found.append(Fault(str(path), sample.line, f"{key}: {entry}"))
        if not found and not self._entries:
            found.append(Fault(str(paths[0]), 0, "no clips; it needs KEY.flac with KEY.txt or KEY.json"))
        report(found, faults)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[CaptionedClip]:
        for entry in self._entries:
            with entry.archive.open("rb") as stream:
                stream.seek(entry.offset)
                content = stream.read(entry.size)
            yield CaptionedClip(
                entry.name, content, entry.captions, entry.split, table=str(entry.archive), line=entry.line
            )


def read_samples(path: Path) -> dict[str, _Sample]:
    """The samples of an archive by key, in order; DataError when it is no uncompressed tar."""
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for line, member in enumerate(archive, start=1):
                name = PurePosixPath(member.name)
                stem, _, ending = name.name.partition(".")
                ending = ending.lower()
                if not member.isfile() or not stem or ending in OTHER_ENDINGS:
                    continue
                sample = samples.setdefault((name.parent / stem).as_posix(), _Sample(line))
                if ending not in TEXT_ENDINGS:
                    sample.audio = (member.offset_data, member.size)
                elif member.size <= LARGEST_TEXT and (stream := archive.extractfile(member)) is not None:
                    sample.texts[ending] = stream.read()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{printable(str(path))}: not an uncompressed tar archive ({error})") from error
    return samples


def make_entry(path: Path, key: str, sample: _Sample) -> _Entry | str:
    """The clip of a sample, or what is wrong with it."""
    fields: Any = {}
    try:
        if "json" in sample.texts:
            fields = json.loads(sample.texts["json"])
        text = sample.texts.get("txt", b"").decode()
    except (ValueError, RecursionError) as error:
        return f"its text cannot be read ({error})"
    if not isinstance(fields, dict):
        return "its .json is not an object with captions"
    try:
        sentences = dict.fromkeys(sentences_of([*(captions_in(fields) or []), *text.splitlines()]))
        split = split_of(fields) or split_named(path.stem)
    except FaultyRow as fault:
        return str(fault)
    if sample.audio is None:
        return "no audio"
    return _Entry(path, f"{path.stem}/{key}", *sample.audio, tuple(sentences), split, sample.line)
