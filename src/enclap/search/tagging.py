"""Labels of whole recordings, with times, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from enclap.audio.window import DEFAULT_WINDOW, is_silent
from enclap.captioner import Captioner, check_finite
from enclap.errors import InputError, UsageError
from enclap.files import is_file
from enclap.output.formats import DIGITS, SMALLEST_GAP, clock, json_line, safe_cell, table_row
from enclap.output.inputs import Input, InputFile
from enclap.search.hearing import require_text_tower
from enclap.search.labels import LabelSet
from enclap.text import printable
from enclap.types import Window, embedding_of

SCHEMA = 1
"""Version of the JSON; raised when a field changes its meaning."""
MOST_LABELS, MOST_LETTERS = 10_000, 200


@dataclass(frozen=True, slots=True)
class TagSpan:
    """A label and when it fits, in seconds on the recording's time line; score: the highest probability there."""

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Tagged:
    """The labels of one recording, in order of time, the more probable first."""

    path: str
    duration: float
    spans: tuple[TagSpan, ...]


def read_labels(typed: str) -> list[str]:
    """The labels in a file, one a line, else the words between commas; UsageError when there is none, or too many."""
    if is_file(typed):
        try:
            labels = Path(typed).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UsageError(f"{printable(typed)}: the labels cannot be read: {reason}") from error
    else:
        labels = typed.split(",")
    found = list(dict.fromkeys(label.strip() for label in labels if label.strip()))
    if not found:
        raise UsageError(f"--labels {printable(typed)!r}: holds no label; write words with commas, or name a file")
    if len(found) > MOST_LABELS or any(len(label) > MOST_LETTERS for label in found):
        limits = f"at most {MOST_LABELS} labels of {MOST_LETTERS} letters"
        raise UsageError(f"--labels {printable(typed[:40])}: too many or too long; give {limits}")
    return found


def tag_recordings(
    captioner: Captioner,
    inputs: Sequence[Input],
    labels: Sequence[str] | None,
    threshold: float,
    window: float = DEFAULT_WINDOW,
) -> Generator[Tagged | InputError, None, None]:
    """The labels of each input that are at least so probable, or why it has none, in order.

    labels: None for all that the lexicon knows. Raises ModelError without a text tower, UsageError for a window that
    the model does not take.
    """
    require_text_tower(captioner.engine, captioner.model)
    captioner.check_window(window)
    return tag_each(captioner, inputs, LabelSet(captioner.engine, labels, captioner.memory), threshold, window)


def tag_each(
    captioner: Captioner, inputs: Sequence[Input], known: LabelSet, threshold: float, window: float
) -> Generator[Tagged | InputError, None, None]:
    """The labels of each input, or why it has none."""
    for found in inputs:
        if not isinstance(found, InputFile):
            yield found
            continue
        try:
            yield tag_recording(captioner, found.path, known, threshold, window)
        except InputError as error:
            yield error


def join_spans(spans: Sequence[TagSpan]) -> list[TagSpan]:
    """The spans with those of one label that touch joined, the score the highest of them."""
    joined: list[TagSpan] = []
    last: dict[str, int] = {}
    for span in sorted(spans, key=lambda span: span.start):
        place = last.get(span.label)
        if place is not None and span.start - joined[place].end < SMALLEST_GAP:
            before = joined[place]
            joined[place] = TagSpan(before.start, span.end, span.label, max(before.score, span.score))
        else:
            last[span.label] = len(joined)
            joined.append(span)
    return sorted(joined, key=lambda span: (span.start, -span.score))


def tag_recording(captioner: Captioner, path: str, labels: LabelSet, threshold: float, length: float) -> Tagged:
    """The labels of the recording at a path."""
    spans: list[TagSpan] = []
    waiting: list[Window] = []
    end = 0.0

    def tag_waiting() -> None:
        for window, features in zip(waiting, captioner.engine.extract(waiting), strict=True):
            check_finite(features, window, path)
            tags = labels.tags(embedding_of(features), threshold)
            spans.extend(TagSpan(window.start, window.end, tag.label, tag.score) for tag in tags)
        waiting.clear()

    with closing(captioner.windows(path, length)) as pieces:
        for window, _ in pieces:
            end = window.end
            if not is_silent(window.waveform.samples):
                waiting.append(window)
            if len(waiting) == captioner.engine.windows_together:
                tag_waiting()
    if waiting:
        tag_waiting()
    return Tagged(path, end, tuple(join_spans(spans)))


@dataclass(frozen=True, slots=True)
class TagFormat:
    """How tagged recordings are written: head (of the model's name), a piece for each, what is between, tail."""

    piece: Callable[[Tagged], str]
    head: Callable[[str], str] = lambda model: ""
    separator: str = ""
    tail: str = ""


def tags_text(result: Tagged) -> str:
    """The path, then a line for each label."""
    lines = [f"{printable(result.path)}\n"]
    for span in result.spans:
        times = f"{clock(span.start)} - {clock(span.end)}"
        lines.append(f"  {times}  {span.score:.2f}  {printable(span.label)}\n")
    return "".join(lines)


def tags_table(result: Tagged) -> dict[str, object]:
    """A recording as JSON shows it."""
    tags = [
        {
            "start": round(span.start, DIGITS["seconds"]),
            "end": round(span.end, DIGITS["seconds"]),
            "label": span.label,
            "score": round(span.score, DIGITS["score"]),
        }
        for span in result.spans
    ]
    return {"path": printable(result.path), "duration": round(result.duration, DIGITS["seconds"]), "tags": tags}


def tags_csv(result: Tagged) -> str:
    """A row for each label."""
    rows = []
    for span in result.spans:
        times = [f"{moment:.{DIGITS['seconds']}f}" for moment in (span.start, span.end)]
        cells = [safe_cell(printable(result.path)), *times, safe_cell(printable(span.label))]
        rows.append(table_row([*cells, f"{span.score:.{DIGITS['score']}f}"], ","))
    return "".join(rows)


TAG_FORMATS = {
    "text": TagFormat(tags_text),
    "json": TagFormat(
        lambda result: "\n" + json_line(tags_table(result)),
        lambda model: f'{{"schema": {SCHEMA}, "model": {json_line(printable(model))}, "results": [',
        ",",
        "\n]}\n",
    ),
    "csv": TagFormat(tags_csv, lambda model: table_row(("path", "start", "end", "label", "score"), ",")),
}
