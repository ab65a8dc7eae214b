"""What the columns of tables are called, whoever made them: a clip's name and file, its captions, labels and split.

The same names are fields of JSON lines, of the .json members of archives, and columns of Hugging Face data sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enclap.data.datasets.base import common_split

CLIP_COLUMNS = ("path", "file_name", "fname", "file_path", "youtube_id", "audiocap_id")
"""What names a clip; the first that a table has is taken. The official EnCLAP tables have `file_path`, Clotho and audio
folders `file_name`, AudioCaps `youtube_id` and `start_time` (its `audiocap_id` numbers captions)."""
REFERENCE, CAPTION = re.compile(r"reference(_\d+)?"), re.compile(r"caption(_\d+)?")
LISTS = ("references", "captions")
"""What may hold several captions, where a format has lists."""
PREDICTIONS = ("candidate", "caption", "text", "caption_1")
"""What may hold the one caption of a system; the first that a table has is taken."""

Fields = dict[str, Any]


class FaultyRow(ValueError):
    """What is wrong with a row, in words."""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """What a table says of a clip.

    line: where its first row begins. name: of the clip. files: names that its audio may have, the likeliest first.
    captions: at least one. split: "" where none is named. labels: of its sounds, in order of time. number: of the
    caption, in tables that number captions as AudioCaps' do.
    """

    line: int
    name: str
    files: tuple[str, ...]
    captions: tuple[str, ...]
    split: str = ""
    labels: tuple[str, ...] = ()
    number: str = ""


def parse_row(line: int, fields: Fields, captions_of: Callable[[Fields], Sequence[str]]) -> ClipRow:
    """The row as a clip. captions_of: gives its captions; it raises FaultyRow, as this does."""
    column = next((name for name in CLIP_COLUMNS if name in fields), None)
    if column is None:
        raise FaultyRow(f"names no clip; it needs one of {', '.join(CLIP_COLUMNS)}")
    name = str(fields[column]).strip() if isinstance(fields[column], str | int) else ""
    if not name:
        raise FaultyRow(f"{column} is empty")
    files, number = [name], ""
    if column == "youtube_id":
        number = str(fields.get("audiocap_id") or "")
        name, files = audiocaps_names(name, fields.get("start_time"), number)
    labels = fields.get("labels") or fields.get("label") or ""
    sounds = labels if isinstance(labels, list) else str(labels).split(";")
    return ClipRow(
        line,
        name,
        tuple(files),
        tuple(captions_of(fields)),
        split_of(fields),
        tuple(str(sound).strip() for sound in sounds if str(sound).strip()),
        number,
    )


def audiocaps_names(video: str, start_time: object, number: str) -> tuple[str, list[str]]:
    """The name of a clip of AudioCaps, and the file names that downloaders give it."""
    start = "" if start_time is None else str(start_time).strip()
    whole = start.removesuffix(".0")
    files = [f"{video}_{whole}", f"{video}_{start}", f"Y{video}", video, *([number] if number else [])]
    return (f"{video}_{whole}" if whole else video), files


def split_of(fields: Fields) -> str:
    """The split that a row names by the name that is used here; "" where it names none."""
    split = fields.get("split") or ""
    if not isinstance(split, str):
        raise FaultyRow("split must be a word")
    return common_split(split)


def names_captions(column: str) -> bool:
    """Whether a column of this name holds captions that people wrote."""
    return bool(column in LISTS or REFERENCE.fullmatch(column) or CAPTION.fullmatch(column))


def captions_in(fields: Fields) -> list[Any] | None:
    """All captions of a row as they stand there, in order of their numbers; None where no column is for them.

    They are in a list, or in `reference`, `reference_1` and so on, else in `caption`, `caption_1` and so on.
    """
    listed = next((fields[name] for name in LISTS if isinstance(fields.get(name), list)), None)
    if listed is not None:
        return list(listed)
    pattern = REFERENCE if any(map(REFERENCE.fullmatch, fields)) else CAPTION
    columns = sorted(filter(pattern.fullmatch, fields), key=lambda name: (len(name), name))
    return [fields[name] for name in columns if fields[name] is not None] if columns else None


def sentences_of(values: Iterable[Any]) -> list[str]:
    """The captions that are not empty, with single spaces; FaultyRow when none remains or one is no text."""
    values = list(values)
    if not all(isinstance(value, str) for value in values):
        raise FaultyRow("a caption is no text")
    sentences = [" ".join(value.split()) for value in values if value.strip()]
    if not sentences:
        raise FaultyRow("no caption, all are empty")
    return sentences


def references_of(fields: Fields) -> list[str]:
    """All captions of a row."""
    values = captions_in(fields)
    if values is None:
        raise FaultyRow("no captions; it needs caption, caption_1 or reference_1")
    return sentences_of(values)


def prediction_of(fields: Fields) -> list[str]:
    """The one caption of a row, by a system; also as `enclap caption --format jsonl --window 0` writes it."""
    value = next((fields[name] for name in PREDICTIONS if name in fields), None)
    windows = fields.get("captions")
    if value is None and isinstance(windows, list):
        if len(windows) != 1:
            raise FaultyRow(f"{len(windows)} captions for one clip; caption with --window 0")
        value = windows[0].get("text") if isinstance(windows[0], Mapping) else windows[0]
    if value is None:
        raise FaultyRow("no caption; it needs candidate or caption")
    if not isinstance(value, str):
        raise FaultyRow("the caption is no text")
    if not value.strip():
        raise FaultyRow("the caption is empty")
    return [" ".join(value.split())]


def header_fault(header: Sequence[str], has_lists: bool = False) -> str | None:
    """What is wrong with a table's column names, if anything. has_lists: whether its cells may be lists."""
    if len(set(header)) < len(header):
        return "two columns of the header have the same name"
    captions = [name in PREDICTIONS or (names_captions(name) and (has_lists or name not in LISTS)) for name in header]
    if not any(captions) or not set(CLIP_COLUMNS) & set(header):
        return f"the header needs a clip ({', '.join(CLIP_COLUMNS)}) and a caption; it has {', '.join(header)}"
    return None
