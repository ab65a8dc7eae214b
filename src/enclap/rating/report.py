"""The report of a study: report.json, report.md with a figure, and every answer with the system that it is about."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from enclap.evaluation.captioning.figures import draw_scores
from enclap.evaluation.captioning.report import markdown_cell, write_csv
from enclap.files import replacement_folder, write_whole
from enclap.rating.answers import Answer
from enclap.rating.scales import POINTS, SCALE_NAMES, SCALES
from enclap.rating.statistics import RatingResults
from enclap.rating.study import HUMAN, Study

SCHEMA = 1
REPORT, TABLE, ANSWER_TABLE, FIGURE = "report.md", "report.json", "answers.csv", "means.svg"
SHOWN_AS_DIFFERENT = 0.05
"""Adjusted probability below which a report calls two systems different."""


def write_report(results: RatingResults, study: Study, answers: Sequence[Answer], folder: Path) -> None:
    """Write the report into the folder, in place of an earlier one."""
    with replacement_folder(folder) as temporary:
        write_whole(temporary / TABLE, json.dumps({"schema": SCHEMA} | asdict(results), indent=1) + "\n")
        rows = (
            [
                str(answer.rater),
                study.clips[answer.clip].path,
                ";".join(study.clips[answer.clip].items[answer.item].systems),
                study.clips[answer.clip].items[answer.item].text,
                answer.scale,
                str(answer.value),
            ]
            for answer in answers
        )
        write_csv(temporary / ANSWER_TABLE, ["rater", "path", "systems", "caption", "scale", "value"], rows)
        has_figure = importlib.util.find_spec("matplotlib") is not None and bool(answers)
        if has_figure:
            draw_means(results, temporary / FIGURE)
        write_whole(temporary / REPORT, "\n".join(report_lines(results, study, has_figure)) + "\n")


def draw_means(results: RatingResults, path: Path) -> None:
    """Draw the means with their intervals, a panel for each scale, the systems below each other."""
    rows = {
        system: {
            scale: {"value": mean.value, "low": mean.low, "high": mean.high}
            for scale, mean in results.means[system].items()
        }
        for system in results.means
    }
    draw_scores(rows, path, (POINTS[0], POINTS[-1]))


def report_lines(results: RatingResults, study: Study, has_figure: bool) -> list[str]:
    """The lines of report.md."""
    lines = [
        "# Ratings",
        "",
        f"{len(study.clips)} clips, {results.captions} captions of {len(study.systems)} systems; `{HUMAN}` is what a "
        "person wrote. Captions that several systems share were rated once and count for each.",
        "",
        "Rated completely: "
        + ", ".join(f"rater {number} {count} of {results.captions}" for number, count in results.progress.items())
        + ".",
        "",
        "## Means",
        "",
        *rating_table(results),
        "",
        "From 1 to 4. In brackets: the middle 95 % over resampled sets of clips; the raters are taken as they are. "
        + " ".join(f"*{scale.name.capitalize()}*: {scale.question}" for scale in SCALES),
    ]
    lines += ["", f"![Means with their intervals]({FIGURE})"] if has_figure else []
    lines += ["", "## Agreement of the raters", "", "| scale | Krippendorff's alpha, ordinal |", "|---|---|"]
    for scale, value in results.agreement.items():
        lines.append(f"| {scale} | {value if isinstance(value, str) else f'{value:.3f}'} |")
    lines += ["", "1 is agreement, 0 is chance. Krippendorff (2004) relies on 0.8 and more, and draws tentative"]
    lines += ["conclusions from 0.667 on.", "", *comparison_lines(results)]
    return lines


def rating_table(results: RatingResults) -> list[str]:
    """The lines of a Markdown table: the mean of each system on each scale with its interval."""
    lines = [f"| system | {' | '.join(SCALE_NAMES)} | answers |", "|---" * (len(SCALE_NAMES) + 2) + "|"]
    for system, means in results.means.items():
        cells = []
        for scale in SCALE_NAMES:
            mean = means.get(scale)
            cells.append("-" if mean is None else f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]")
        count = sum(mean.answers for mean in means.values())
        lines.append(f"| {markdown_cell(system)} | {' | '.join(cells)} | {count} |")
    return lines


def comparison_lines(results: RatingResults) -> list[str]:
    """The lines about every two systems on the same clips."""
    lines = ["## Every two systems", "", "| scale | systems | clips | difference | 95 % interval | p | p, adjusted |"]
    lines.append("|---" * 7 + "|")
    for test in results.tests:
        shown = "" if test.adjusted < SHOWN_AS_DIFFERENT else " (not shown)"
        names = f"{markdown_cell(test.first)} - {markdown_cell(test.second)}"
        bounds = f"{test.low:+.2f} to {test.high:+.2f}"
        figures = f"{test.difference:+.2f}{shown} | {bounds} | {test.probability:.4f} | {test.adjusted:.4f}"
        lines.append(f"| {test.scale} | {names} | {test.clips} | {figures} |")
    how = "On clips on which some rater judged both; p by changes of sign over clips, adjusted for all rows (Holm)."
    return [*lines, "", f'{how} "Not shown": an adjusted p of {SHOWN_AS_DIFFERENT} or more.']
