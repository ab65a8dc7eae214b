"""Reports whether captions are English: `python benchmarks/grammar.py CAPTIONS` parses them with link-grammar.

CAPTIONS holds a caption in the last column of each line, as `hearing.py --captions` writes it. Needs `link-parser`
(Debian: apt install link-grammar). Prints every caption without a complete linkage and stores their share.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from enclap.evaluation.grammar import unparsed
from tables import Table, hardware, save, today


def main() -> None:
    """Parse, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    sentences = [line.rsplit("\t", 1)[-1] for line in options.captions.read_text(encoding="utf-8").splitlines()]
    faulty = unparsed(sentences)
    for text in faulty:
        sys.stdout.write(f"no linkage: {text}\n")
    share = 100.0 * (len(sentences) - len(faulty)) / len(sentences)
    result = Table(
        title="English of mini's captions",
        columns=("what", "measured", "target: at least", "captions"),
        rows=(("link-grammar parses the caption", f"{share:.1f} %", "99 %", str(len(sentences))),),
        command=f"python benchmarks/grammar.py {options.captions.name}",
        date=today(),
        hardware=hardware(),
        order=12,
        place="card",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, "grammar")


if __name__ == "__main__":
    main()
