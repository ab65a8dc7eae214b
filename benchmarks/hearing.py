"""Reports how often captions name what can be heard: `python benchmarks/hearing.py --model FOLDER --split SPLIT`.

`enclap.evaluation.mini_hearing` measures; this writes the figures, each beside its baselines, to benchmarks/results/.
With --note, a line with the settings and the figures is added to candidates.jsonl: settings are chosen by the
validation figures in that log, and the test split is looked at once for each release.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from enclap import Captioner
from enclap.data.splits import TEST, VALIDATION
from enclap.evaluation.mini_hearing import (
    COMMON_PAIRS,
    COVERED,
    ESC,
    ESC_PAIRS,
    FAMILY,
    LENGTH,
    NAMED,
    ORDER,
    THREE,
    VOCABULARY,
    Figure,
    HearingReport,
    measure_hearing,
)
from enclap.evaluation.sound_pairs import COVER_FAMILIES, LEVELS
from tables import RESULTS, Table, hardware, save, today

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT.parent / "shared" / "data" / "sounds"
TARGETS = {
    ESC: "88 %",
    NAMED: "44 %",
    FAMILY: "50 %",
    ESC_PAIRS: "60 %",
    ORDER.format(ESC_PAIRS): "95 %",
    COMMON_PAIRS: "25 %",
    THREE: "1.8",
    LENGTH: "6.5",
    VOCABULARY: "450",
    **{
        COVERED.format(family, level): target
        for family in COVER_FAMILIES
        for level, target in zip(LEVELS, ("60 %", "50 %", "35 %"), strict=True)
    },
}


def percent(share: float | None) -> str:
    """A share in words; nothing where there is none."""
    return "" if share is None else f"{100 * share:.1f} %"


def row(what: str, figure: Figure, target: str) -> tuple[str, ...]:
    """A figure beside its baselines and its target."""
    value = f"{figure.value:.3g}" if figure.number else percent(figure.value)
    return (what, value, percent(figure.shuffled), percent(figure.constant), target, str(figure.items))


def table(report: HearingReport, options: argparse.Namespace) -> Table:
    """All figures."""
    is_test = options.split == TEST
    return Table(
        title=f"Hearing of {options.model}, {options.split} recordings",
        columns=("what", "measured", "captions shuffled", "best constant caption", "target", "items"),
        rows=tuple(
            row(what, figure, TARGETS.get(what, "") if is_test else "") for what, figure in report.figures.items()
        ),
        command=f"python benchmarks/hearing.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=10 if is_test else 11,
        place="mini" if is_test else "card",
        note="Beam 6. A caption names a sound when its first 20 words hold all words of one of the label's synonyms.",
    )


def log_candidate(report: HearingReport, options: argparse.Namespace) -> None:
    """Add this candidate to the log of all that were measured."""
    line = {
        "date": today(),
        "split": options.split,
        "settings": options.note,
        "figures": {
            what: round(figure.value if figure.number else 100 * figure.value, 2)
            for what, figure in report.figures.items()
        },
    }
    with (RESULTS.parent / "candidates.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def recordings_parser(description: str | None, splits: Sequence[str] = (VALIDATION, TEST)) -> argparse.ArgumentParser:
    """The arguments of a measurement on the recordings: the model, and which of the splits, the first if none."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--split", choices=splits, default=splits[0])
    parser.add_argument("--recordings", type=Path, default=RECORDINGS)
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser


def main() -> None:
    """Measure, print and store."""
    parser = recordings_parser(__doc__)
    parser.add_argument("--captions", type=Path, help="write labels, whether they are named, and captions to this file")
    parser.add_argument("--note", help="the candidate's settings: add it to candidates.jsonl")
    options = parser.parse_args()
    report = measure_hearing(Captioner.from_pretrained(options.model), options.recordings, options.split)
    result = table(report, options)
    print(result.markdown())
    if options.captions:
        rows = (f"{'; '.join(item.labels)}\t{item.names_all}\t{item.text}" for item in report.captions)
        options.captions.write_text("\n".join(sorted(rows)) + "\n", encoding="utf-8")
    if options.note:
        log_candidate(report, options)
    if not options.no_save:
        save(result, f"hearing-{options.split}")


if __name__ == "__main__":
    main()
