"""Predictions and references read from tables, and matched clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enclap.data.columns import ClipRow, prediction_of
from enclap.data.datasets.base import Fault, report
from enclap.data.tables import read_clips, read_table
from enclap.errors import DataError
from enclap.text import printable

MOST_WORDS = 1_000
"""Words of one caption; more is a document and not a caption, and ROUGE-L takes their square in time."""


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
    rows, faults = read_table(path, prediction_of)
    first_lines: dict[str, int] = {}
    for row in rows:
        first = first_lines.setdefault(row.name, row.line)
        if first != row.line:
            faults.append(Fault(str(path), row.line, f"{row.name!r} is in line {first} already; a clip has one row"))
    return _checked(path, rows, faults)


def read_references(path: Path) -> list[ClipCaptions]:
    """The captions of each clip, from `reference_1`, `reference_2` ... or `caption`, `caption_1`, `caption_2` ...

    In JSON lines and Parquet `captions` or `references` may be a list. Empty cells are left out, as long as one caption
    remains. Rows of the same clip are joined, as in a data set; a caption that it has twice counts twice. `labels`,
    with semicolons between them, are the clip's sounds. DataError names every fault.
    """
    return _checked(path, *read_clips(path, is_distinct=False))


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


def check_length(where: str, clip: str, captions: Sequence[str]) -> None:
    """Raises DataError for a caption that is a document. where: the table that it is in."""
    longest = max(len(caption.split()) for caption in captions)
    if longest > MOST_WORDS:
        words = f"{clip!r} has a caption of {longest} words; at most {MOST_WORDS} are compared"
        raise DataError(printable(f"{where}: {words}"))


def _checked(path: Path, rows: Sequence[ClipRow], faults: Sequence[Fault]) -> list[ClipCaptions]:
    """The captions of the rows; DataError when anything is wrong with the table."""
    report(faults, None)
    if not rows:
        raise DataError(f"{printable(str(path))}: no clips; write a row for each")
    for row in rows:
        check_length(str(path), row.name, row.captions)
    return [ClipCaptions(row.name, row.captions, row.labels) for row in rows]
