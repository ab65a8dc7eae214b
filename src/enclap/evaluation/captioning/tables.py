"""Predictions and references read from CSV or JSON lines, and matched clip by clip."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enclap.errors import DataError
from enclap.text import printable

IDENTIFIERS = ("path", "file_name", "fname", "audiocap_id")
"""Columns that may name a clip; the first that a table has is taken."""
REFERENCE, CAPTION = re.compile(r"reference(_\d+)?"), re.compile(r"caption(_\d+)?")
CANDIDATE = "candidate"
FAULTS_SHOWN = 5
MOST_WORDS = 1_000
"""Words of one caption; more is a document and not a caption, and ROUGE-L takes their square in time."""

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClipCaptions:
    """The captions of one clip, at least one. labels: of its sounds, in order of time, where the table has them."""

    clip: str
    captions: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaptionSet:
    """One prediction and the references of each clip, all in the same order."""

    clips: tuple[str, ...]
    predictions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[str, ...], ...]


def read_predictions(path: Path) -> list[ClipCaptions]:
    """One caption for each clip, from the column `candidate` or `caption`.

    JSON lines as `enclap caption --format jsonl --window 0` writes them are read too. DataError names every fault.
    """
    return _read(path, _prediction)


def read_references(path: Path) -> list[ClipCaptions]:
    """The captions of each clip, from `reference_1`, `reference_2` ... or `caption`, `caption_1`, `caption_2` ...

    In JSON lines `captions` or `references` may be a list. Empty cells are left out, as long as one caption remains.
    `labels`, with semicolons between them, are the clip's sounds. DataError names every fault.
    """
    return _read(path, _references)


def match(predictions: Sequence[ClipCaptions], references: Sequence[ClipCaptions], where: str) -> CaptionSet:
    """The clips of the references with their predictions; DataError unless both are about the same clips."""
    found = {item.clip: item.captions[0] for item in predictions}
    known = {item.clip for item in references}
    missing = [item.clip for item in references if item.clip not in found]
    unknown = [clip for clip in found if clip not in known]
    faults = []
    for clips, fault in ((missing, "without a prediction"), (unknown, "predicted but without references")):
        if clips:
            shown = ", ".join(repr(name[:60]) for name in clips[:3]) + (", ..." if len(clips) > 3 else "")
            faults.append(f"{len(clips)} of {len(found if clips is unknown else known)} clips {fault} ({shown})")
    if faults:
        raise DataError(
            printable(f"{where}: {'; '.join(faults)}; give both tables the same clips under the same names")
        )
    return CaptionSet(
        clips=tuple(item.clip for item in references),
        predictions=tuple(found[item.clip] for item in references),
        references=tuple(item.captions for item in references),
        labels=tuple(item.labels for item in references),
    )


def _read(path: Path, captions_of: Callable[[Fields], list[str] | str]) -> list[ClipCaptions]:
    """The clips of a table; captions_of gives a row's captions, or says what is wrong with the row."""
    readers = {".csv": csv_rows, ".jsonl": json_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{printable(str(path))}: not a table that is read here; give .csv or .jsonl")
    clips: list[ClipCaptions] = []
    first_lines: dict[str, int] = {}
    faults: list[str] = []
    try:
        for line, fields in readers[path.suffix.lower()](path):
            item = fields if isinstance(fields, str) else parse_clip(fields, captions_of)
            if isinstance(item, str):
                faults.append(f"line {line}: {item}")
            elif item.clip in first_lines:
                first = first_lines[item.clip]
                faults.append(f"line {line}: {item.clip!r} is in line {first} already; a clip has one row")
            else:
                first_lines[item.clip] = line
                clips.append(item)
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(str(path))}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    if faults or not clips:
        shown = "; ".join(faults[:FAULTS_SHOWN]) or "no clips; write a row for each"
        more = f"; and {len(faults) - FAULTS_SHOWN} more faults" if len(faults) > FAULTS_SHOWN else ""
        raise DataError(printable(f"{path}: {shown}{more}"))
    return clips


def parse_clip(fields: Fields, captions_of: Callable[[Fields], list[str] | str]) -> ClipCaptions | str:
    """The clip of a row, or what is wrong with the row."""
    column = next((name for name in IDENTIFIERS if name in fields), None)
    if column is None:
        return f"names no clip; it needs one of {', '.join(IDENTIFIERS)}"
    clip = fields[column]
    if isinstance(clip, int):
        clip = str(clip)
    if not isinstance(clip, str) or not clip.strip():
        return f"{column} is empty"
    captions = captions_of(fields)
    if isinstance(captions, str):
        return captions
    for caption in captions:
        if len(caption.split()) > MOST_WORDS:
            return f"a caption of {len(caption.split())} words; at most {MOST_WORDS} are compared"
    labels = fields.get("labels") or fields.get("label") or ""
    names = labels if isinstance(labels, list) else str(labels).split(";")
    return ClipCaptions(
        clip.strip(),
        tuple(" ".join(caption.split()) for caption in captions),
        tuple(str(name).strip() for name in names if str(name).strip()),
    )


def _prediction(fields: Fields) -> list[str] | str:
    value = next((fields[name] for name in (CANDIDATE, "caption", "text", "caption_1") if name in fields), None)
    windows = fields.get("captions")
    if value is None and isinstance(windows, list):
        if len(windows) != 1:
            return f"{len(windows)} captions for one clip; caption with --window 0"
        value = windows[0].get("text") if isinstance(windows[0], Mapping) else windows[0]
    if value is None:
        return "no caption; it needs candidate or caption"
    if not isinstance(value, str):
        return "the caption is no text"
    return [value] if value.strip() else "the caption is empty"


def _references(fields: Fields) -> list[str] | str:
    listed = fields.get("references", fields.get("captions"))
    if isinstance(listed, list):
        values = listed
    else:
        pattern = REFERENCE if any(map(REFERENCE.fullmatch, fields)) else CAPTION
        columns = sorted(filter(pattern.fullmatch, fields), key=lambda name: (len(name), name))
        if not columns:
            return "no captions; it needs caption, caption_1 or reference_1"
        values = [fields[name] for name in columns if fields[name] is not None]
    if not all(isinstance(value, str) for value in values):
        return "a caption is no text"
    return [value for value in values if value.strip()] or "all captions are empty"


def csv_rows(path: Path) -> Iterator[tuple[int, Fields | str]]:
    """Line and cells of each row, or what is wrong with it."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] | None = None
        line = 1
        try:
            for cells in reader:
                if header is None:
                    header = [cell.strip() for cell in cells]
                    if len(set(header)) < len(header):
                        yield line, "two columns of the header have the same name"
                        return
                elif cells and len(cells) != len(header):
                    yield line, f"{len(cells)} cells, but the header has {len(header)}; put quotes around commas"
                elif cells:
                    yield line, dict(zip(header, cells, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, f"not CSV from here on ({error})"


def json_rows(path: Path) -> Iterator[tuple[int, Fields | str]]:
    """Line and fields of each object, or what is wrong with it."""
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
