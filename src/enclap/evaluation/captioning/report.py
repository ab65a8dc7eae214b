"""The folder of an evaluation: scores.json, clips.csv, report.md with figures, and what it takes to repeat it."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from enclap.evaluation.captioning.evaluate import Evaluation
from enclap.evaluation.captioning.rows import COMPARED, MEANINGS, SAME_CLIPS, SYSTEM
from enclap.evaluation.captioning.suite import CIDER_D, ROUGE_L, SPIDER
from enclap.evaluation.captioning.tables import CaptionSet
from enclap.files import new_folder, write_whole
from enclap.text import printable

SCHEMA = 1
SCORES, CLIPS, REPORT = "scores.json", "clips.csv", "report.md"
PREDICTIONS, OTHER_PREDICTIONS, REFERENCES = "predictions.csv", "compared.csv", "references.csv"
LEADING = (SPIDER, CIDER_D, ROUGE_L)
"""Metrics by which clips are called good or bad; the first that was computed."""
BEST_AND_WORST = 5  # clips that the report shows of each


def write_folder(evaluation: Evaluation, folder: Path, source: Mapping[str, str]) -> None:
    """Write the evaluation into a new folder, which is there whole or not at all; UsageError when it exists already.

    source: where the captions come from, by what they are, for the record.
    """
    captions = evaluation.captions
    with new_folder(folder) as temporary:
        write_whole(temporary / SCORES, json.dumps(as_table(evaluation, source), indent=1, allow_nan=False) + "\n")
        write_csv(temporary / CLIPS, *clip_table(evaluation))
        for name, texts in ((PREDICTIONS, captions.predictions), (OTHER_PREDICTIONS, evaluation.compared)):
            if texts is not None:
                write_csv(temporary / name, ["path", "caption"], zip(captions.clips, texts, strict=True))
        write_csv(temporary / REFERENCES, *reference_table(captions))
        figures = draw_figures(evaluation, temporary)
        write_whole(temporary / REPORT, "\n".join(report_lines(evaluation, source, figures)) + "\n")


def clip_table(evaluation: Evaluation) -> tuple[list[str], Iterable[Sequence[str]]]:
    """Header and rows of clips.csv: the captions of each clip, and every metric of them; empty where it has no score.

    What the captions are compared with has the same columns with a name before theirs.
    """
    captions = evaluation.captions
    header, columns = ["path"], [captions.clips]
    for row, prefix, texts in ((SYSTEM, "", captions.predictions), (COMPARED, f"{COMPARED}_", evaluation.compared)):
        scores = evaluation.scores.get(row, {})
        if texts is not None:
            header += [f"{prefix}caption", *(f"{prefix}{name}" for name in scores)]
            columns += [tuple(texts)]
            columns += [
                tuple(repr(float(value)) if math.isfinite(value) else "" for value in item.clips)
                for item in scores.values()
            ]
    return header, zip(*columns, strict=True)


def reference_table(captions: CaptionSet) -> tuple[list[str], Iterable[Sequence[str]]]:
    """Header and rows of references.csv; it is read back as the same references and labels."""
    most = max(map(len, captions.references))
    header = ["path", *(f"reference_{number + 1}" for number in range(most))]
    rows = (
        [clip, *texts, *[""] * (most - len(texts))]
        for clip, texts in zip(captions.clips, captions.references, strict=True)
    )
    if not any(captions.labels):
        return header, rows
    return [*header, "labels"], ([*row, ";".join(labels)] for row, labels in zip(rows, captions.labels, strict=True))


def as_table(evaluation: Evaluation, source: Mapping[str, str]) -> dict[str, Any]:
    """What scores.json holds; a number that is not finite is null."""
    return {
        "schema": SCHEMA,
        "clips": len(evaluation.captions.clips),
        "metrics": _values(evaluation, SYSTEM),
        "not_computed": dict(evaluation.not_computed),
        "rows": {name: _values(evaluation, name) for name in evaluation.scores if name != SYSTEM},
        "difference": {
            name: {key: _number(value) for key, value in asdict(item).items()}
            for name, item in evaluation.difference.items()
        },
        "warnings": list(evaluation.warnings),
        "source": dict(source),
        "options": {
            key: str(value) if isinstance(value, Path) else value for key, value in asdict(evaluation.options).items()
        },
        "versions": dict(evaluation.versions),
    }


def _values(evaluation: Evaluation, row: str) -> dict[str, dict[str, float | None]]:
    found = {}
    for name, scores in evaluation.scores.get(row, {}).items():
        interval = evaluation.intervals[row].get(name)
        low, high = (None, None) if interval is None else (_number(interval.low), _number(interval.high))
        found[name] = {"value": _number(scores.value), "low": low, "high": high}
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table in UTF-8 with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def report_lines(evaluation: Evaluation, source: Mapping[str, str], figures: Sequence[tuple[str, str]]) -> list[str]:
    """The lines of report.md."""
    options = evaluation.options
    lines = [
        "# Evaluation",
        "",
        f"{len(evaluation.captions.clips)} clips. "
        + ". ".join(f"{key}: {markdown_cell(value)}" for key, value in source.items())
        + ".",
        *(f"\n**Note:** {warning}." for warning in evaluation.warnings),
        "",
        "## Scores",
        "",
        *score_table(evaluation),
        "",
        f"In brackets: the middle 95 % of {options.resamples} resamples of the clips. The columns are",
        "",
        *(f"- *{name}*: {MEANINGS[name]};" for name in evaluation.scores),
    ]
    if evaluation.not_computed:
        lines += ["", "## Not computed", ""]
        lines += [f"- {name}: {markdown_cell(reason)}" for name, reason in evaluation.not_computed.items()]
    if evaluation.difference:
        lines += ["", "## Two systems", "", *difference_table(evaluation)]
    for name, meaning in figures:
        lines += ["", f"![{meaning}]({name})"]
    if not figures:
        lines += ["", "Figures need the extra `plot`: pip install 'enclap[plot]'."]
    lines += best_and_worst(evaluation)
    versions = ", ".join(f"{name} {markdown_cell(version)}" for name, version in evaluation.versions.items())
    return [*lines, "", "## Repeat it", "", f"    {repeating_command(evaluation)}", "", f"Computed with {versions}."]


def repeating_command(evaluation: Evaluation) -> str:
    """The command that computes the same again inside the folder, all but what needs the recordings."""
    options = evaluation.options
    words = ["enclap evaluate", f"--predictions {PREDICTIONS}", f"--references {REFERENCES}"]
    words += [f"--compare {OTHER_PREDICTIONS}"] if evaluation.compared is not None else []
    words += [f"--tokenizer {options.tokenizer}", f"--comparison-clips {options.comparison_clips}"]
    words += [f"--resamples {options.resamples}", f"--seed {options.seed}"]
    named = (("--sentence-model", options.models.sentences), ("--fluency-model", options.models.fluency))
    return " ".join([*words, *(f"{option} {shlex.quote(name)}" for option, name in named if name is not None)])


def score_table(evaluation: Evaluation) -> list[str]:
    """The lines of a Markdown table: each metric of every row with its 95 % interval."""
    names = list(evaluation.scores)
    lines = [f"| metric | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for metric in evaluation.metrics:
        cells = []
        for name in names:
            scores, interval = evaluation.scores[name].get(metric), evaluation.intervals[name].get(metric)
            text = "" if scores is None else _figure(scores.value)
            cells.append(
                text if not text or interval is None else f"{text} [{_figure(interval.low)}, {_figure(interval.high)}]"
            )
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return lines


def difference_table(evaluation: Evaluation) -> list[str]:
    """The lines of a Markdown table: by how much two systems differ in each metric."""
    lines = ["The predictions minus the captions that they are compared with, on the same resamples of the clips.", ""]
    lines += ["| metric | difference | 95 % interval | p |", "|---|---|---|---|"]
    for name, item in evaluation.difference.items():
        shown = "" if item.low > 0.0 or item.high < 0.0 else " (not shown)"
        bounds = f"{_figure(item.low)} to {_figure(item.high)}"
        lines.append(f"| {name} | {_figure(item.value)}{shown} | {bounds} | {item.probability:.3f} |")
    return lines


def best_and_worst(evaluation: Evaluation) -> list[str]:
    """The lines of two Markdown tables: the clips with the highest and the lowest scores; none without scores."""
    leading = next((name for name in LEADING if name in evaluation.metrics), None)
    if leading is None:
        return []
    captions, scores = evaluation.captions, evaluation.metrics[leading].clips
    order = sorted(range(len(scores)), key=lambda clip: (-scores[clip], clip))
    lines = []
    for title, chosen in (("Best", order[:BEST_AND_WORST]), ("Worst", order[::-1][:BEST_AND_WORST])):
        lines += [
            "",
            f"## {title} clips by {leading}",
            "",
            f"| clip | {leading} | prediction | first reference |",
            "|---|---|---|---|",
        ]
        for clip in chosen:
            texts = (
                captions.clips[clip],
                _figure(scores[clip]),
                captions.predictions[clip],
                captions.references[clip][0],
            )
            lines.append(f"| {' | '.join(map(markdown_cell, texts))} |")
    return lines


def _figure(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def markdown_cell(text: str) -> str:
    """Text that neither ends a cell of a table nor is read as markup."""
    return "".join(f"\\{letter}" if letter in "\\|`*_[]<>" else letter for letter in printable(text))


def draw_figures(evaluation: Evaluation, folder: Path) -> list[tuple[str, str]]:
    """Name and meaning of each figure, drawn into the folder; none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None or not evaluation.metrics:
        return []
    from enclap.evaluation.captioning import figures

    found = [("scores.svg", "Every metric of every row with its 95 % interval")]
    rows = {
        name: _values(evaluation, name)
        for name in evaluation.scores
        if name != (SYSTEM if SAME_CLIPS in evaluation.scores else SAME_CLIPS)
    }
    figures.draw_scores(rows, folder / "scores.svg")
    leading = next((name for name in LEADING if name in evaluation.metrics), None)
    if leading is not None:
        values = {
            name: evaluation.scores[name][leading].clips
            for name in (SYSTEM, COMPARED)
            if leading in evaluation.scores.get(name, {})
        }
        figures.draw_distribution(leading, values, folder / "clips.svg")
        found.append(("clips.svg", f"{leading} of the clips"))
    return found
