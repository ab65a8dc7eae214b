"""Writes the measured figures between the markers of README.md, the model card and docs/benchmarks.md: `make report`.

The figures come from benchmarks/results/*.json alone, which the measuring scripts write; none is typed by
hand. With --check nothing is written and the exit code says whether the documents are up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from enclap.hub.integrity import CHECKSUMS, write_checksums
from tables import RESULTS, SummaryRow, Table, load_all, summarise

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = {
    ROOT / "src" / "enclap" / "bundled" / "mini" / "README.md": ("mini", "card"),
    ROOT / "docs" / "benchmarks.md": ("mini", "card", "official"),
}
"""Each document and the kinds of the tables that it shows; README.md shows `SUMMARY`, any other document all."""
ALL = ("mini", "card", "official")

HEARING = "Hearing of mini, test recordings"
CONSTANT = ("best constant caption", None, "best constant caption")
TRANSFORMERS = ("plain transformers", "10-s recording, plain transformers loop", "measured")
SUMMARY = (
    SummaryRow("mini: names the sound, ESC-10", HEARING, "ESC-10: the caption names the sound", CONSTANT),
    SummaryRow(
        "mini: names the sound, all labels",
        HEARING,
        "all labels of the first collection: named, mean over labels",
        CONSTANT,
    ),
    SummaryRow("mini: names both of two ESC-10 sounds", HEARING, "two ESC-10 sounds in order: both named", CONSTANT),
    SummaryRow(
        "mini: 5-s file, cold start", "Speed of mini", "`enclap caption` of a 5-s file, cold process, 2 cores: time"
    ),
    SummaryRow("mini: peak memory of that", "Speed of mini", "the same: peak memory"),
    SummaryRow(
        "mini: 60 minutes of MP3",
        "Long recordings with mini",
        "60 minutes of MP3 in one `enclap caption`, 2 cores: time",
    ),
    SummaryRow("base: 10-s file, float32", "Speed of base", "10-s recording, float32", TRANSFORMERS),
    SummaryRow("base: 10-s file, int8", "Speed of base", "10-s recording, int8", TRANSFORMERS),
    SummaryRow("large: 10-s file, float32", "Speed of large", "10-s recording, float32", TRANSFORMERS),
    SummaryRow("large: 10-s file, int8", "Speed of large", "10-s recording, int8", TRANSFORMERS),
)
"""At most ten rows."""

BEGIN, END = "<!-- numbers:begin -->", "<!-- numbers:end -->"


def with_figures(document: str, figures: str) -> str:
    """The document with `figures` between its markers; ValueError unless it has one pair."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before or END in after:
        raise ValueError(f"it needs {BEGIN} and {END}, once each, in that order")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """0 when every document holds the figures, 1 when one does not (or cannot)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the measured tables")
    parser.add_argument("documents", type=Path, nargs="*", help="default: all that show figures")
    options = parser.parse_args(arguments)
    tables = load_all(options.results)
    outcomes = []
    for document in options.documents or [README, *DOCUMENTS]:
        outcomes.append(_fill(document, _figures(document, tables), options.check))
    return max(outcomes)


def _figures(document: Path, tables: list[Table]) -> str:
    """What stands between the document's markers."""
    if document == README:
        return summarise(tables, SUMMARY)
    shown = [table.markdown() for table in tables if table.place in DOCUMENTS.get(document, ALL)]
    return "\n\n".join(shown) or "Not measured yet."


def _fill(document: Path, figures: str, check: bool) -> int:
    """0 when the document holds the figures afterwards."""
    try:
        text = document.read_text(encoding="utf-8")
        filled = with_figures(text, figures)
    except (OSError, ValueError) as error:
        print(f"{document}: {error}", file=sys.stderr)
        return 1
    if filled == text:
        print(f"{document.name}: up to date")
        return 0
    if check:
        print(f"{document}: figures are out of date; run `make report`", file=sys.stderr)
        return 1
    document.write_text(filled, encoding="utf-8")
    if (document.parent / CHECKSUMS).exists():
        write_checksums(document.parent)  # a model folder's checksums cover its card
    print(f"{document.name}: figures written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
