"""What a fine-tuning says at its end: captions before and after, metrics, the curve of the loss, and what to do now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from enclap.evaluation.captioning.rows import COMPARED, SYSTEM, system_row
from enclap.evaluation.captioning.suite import METRICS, SuiteOptions, score_rows
from enclap.hub.integrity import write_checksums
from enclap.training.loss_plot import loss_svg, read_curves

REPORT, PLOT = "report.md", "loss.svg"
EXACT = "word for word"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One clip: its captions, and what the base model and the new one say of it."""

    clip: str
    captions: tuple[str, ...]
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Report:
    """clips: that were trained on. held_out: the clips that were not. shown: clips whose captions are shown, held out
    if any were. notes: what the user should know.
    """

    EXAMPLES: ClassVar[int] = 20

    base: str
    clips: int
    held_out: tuple[Comparison, ...]
    shown: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def exact(self, held_out: bool = True) -> tuple[float, float]:
        """Shares of the clips that are described word for word, before and after."""
        pairs = self.held_out if held_out else self.shown
        before = sum(item.before in item.captions for item in pairs)
        after = sum(item.after in item.captions for item in pairs)
        return before / max(1, len(pairs)), after / max(1, len(pairs))

    def markdown(self) -> str:
        """The report."""
        held = bool(self.held_out)
        lines = [f"# Fine-tuned from {self.base}", "", f"Trained on {self.clips} clips.", ""]
        lines += [*(f"- {note}." for note in self.notes), "", "## Measured", ""]
        lines += [f"On {len(self.shown)} clips " + ("held out:" if held else "that it was trained on:"), ""]
        before, after = self.exact(held)
        lines += ["| | before | after |", "|---|---|---|", f"| {EXACT} | {before:.2f} | {after:.2f} |"]
        scores, missing = suite_scores(self.shown)
        lines += [f"| {name} | {one:.4f} | {other:.4f} |" for name, (one, other) in scores.items()]
        lines += ["", *(f"Not computed: {name}: {reason}." for name, reason in missing.items())]
        lines += ["", f"![The loss]({PLOT})", "", "## Captions", "", "| clip | before | after | a caption of yours |"]
        lines += ["|---|---|---|---|"]
        for item in self.shown[: self.EXAMPLES]:
            cells = (item.clip, item.before, item.after, item.captions[0])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(
            [*lines, "", "Use it: `enclap caption --model FOLDER sound.wav`, with or without PyTorch.", ""]
        )


def suite_scores(compared: Sequence[Comparison]) -> tuple[dict[str, tuple[float, float]], Mapping[str, str]]:
    """The evaluation's metrics before and after, and why those that are missing have none."""
    references = [item.captions for item in compared]
    rows = [
        system_row(SYSTEM, [item.before for item in compared], references),
        system_row(COMPARED, [item.after for item in compared], references),
    ]
    result = score_rows(rows, references, SuiteOptions())
    first, second = (result.scores.get(row.name, {}) for row in rows)
    scores = {name: (first[name].value, second[name].value) for name in METRICS if name in first and name in second}
    return scores, result.not_computed


def write_report(report: Report, log: Path, folder: Path) -> None:
    """Put report.md and loss.svg into the model's folder, and its checksums anew."""
    (folder / PLOT).write_text(loss_svg(read_curves(log)), encoding="utf-8")
    (folder / REPORT).write_text(report.markdown(), encoding="utf-8")
    write_checksums(folder)
