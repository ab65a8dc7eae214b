"""Writes the measured figures between the markers of README.md, the model card and docs/performance.md: `make report`.

The figures come from benchmarks/results/*.json alone, which the measuring scripts write; none is typed by
hand. With --check nothing is written and the exit code says whether the documents are up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from enclap.hub.integrity import CHECKSUMS, write_checksums
from tables import RESULTS, load_all

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = {
    ROOT / "README.md": ("mini", "official"),
    ROOT / "src" / "enclap" / "bundled" / "mini" / "README.md": ("mini", "card"),
    ROOT / "docs" / "performance.md": ("official",),
}
"""Each document and the places of the tables that it shows."""
ALL = ("mini", "card", "official")
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
    for document in options.documents or DOCUMENTS:
        shown = [table.markdown() for table in tables if table.place in DOCUMENTS.get(document, ALL)]
        outcomes.append(_fill(document, "\n\n".join(shown) or "Not measured yet.", options.check))
    return max(outcomes)


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
