"""A page of real examples: `python benchmarks/showcase.py CAPTIONS` writes docs/mini-examples.md.

CAPTIONS is what `hearing.py --split test --captions` wrote: label, whether it was named, caption. The page shows
recordings and pairs of them drawn by a fixed seed, good and bad ones as they come, and which of the ESC-10 sounds are
taken for which.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.hearing import mentions_label
from tables import today

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {
    "baby crying": "baby",
    "chainsaw": "chainsaw",
    "clock ticking": "clock",
    "dog barking": "dog",
    "fire crackling": "fire",
    "helicopter": "helicopter",
    "person sneezing": "sneeze",
    "rain": "rain",
    "rooster crowing": "rooster",
    "sea waves": "waves",
}
EXAMPLES, EXAMPLES_OF_PAIRS = 40, 20
PAIR = "; "
NONE = "other"


def read(path: Path) -> list[tuple[str, bool, str]]:
    """Label, whether it was named, and caption of each line."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return [(label, right == "True", caption) for label, right, caption in rows]


def examples(rows: list[tuple[str, bool, str]], count: int) -> list[str]:
    """A table of `count` of the rows, drawn at random."""
    chosen = np.random.default_rng(0).choice(len(rows), min(count, len(rows)), replace=False)
    lines = ["| sound | caption | named |", "| --- | --- | --- |"]
    lines += [f"| {rows[i][0]} | {rows[i][2]} | {'yes' if rows[i][1] else 'no'} |" for i in sorted(chosen)]
    return lines


def confusions(rows: list[tuple[str, bool, str]], classes: dict[str, str]) -> list[str]:
    """A table of the classes: the sound by row, what the caption names by column; it may name several."""
    columns = [*classes.values(), NONE]
    lines = ["| sound | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for label, short in classes.items():
        said: Counter[str] = Counter()
        for _, _, caption in (row for row in rows if row[0] == label):
            named = [other for name, other in classes.items() if mentions_label(caption, name)]
            said.update(named or [NONE])
        lines.append(f"| **{short}** | " + " | ".join(str(said[column] or "") for column in columns) + " |")
    return lines


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "mini-examples.md")
    options = parser.parse_args()
    unknown = sorted(set(CLASSES) - set(load_lexicon().entries))
    if unknown:
        parser.error(f"no such labels: {unknown}")
    rows = read(options.captions)
    single, pairs = ([row for row in rows if (PAIR in row[0]) == paired] for paired in (False, True))
    page = [
        "# What mini says",
        "",
        f"Test recordings, which were not used for training; written {today()} by `benchmarks/showcase.py` from the",
        "captions of `python benchmarks/hearing.py --split test --captions FILE`. The examples are drawn at random.",
        "",
        *examples(single, EXAMPLES),
        "",
        "## Two sounds one after the other",
        "",
        *examples(pairs, EXAMPLES_OF_PAIRS),
        "",
        "## Confusions among the ESC-10 sounds",
        "",
        "Rows: the sound in the recording. Columns: the sounds that the caption names, one or several.",
        "",
        *confusions(single, CLASSES),
    ]
    options.output.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
