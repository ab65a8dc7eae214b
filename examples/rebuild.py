"""Rebuilds the example sounds of this folder: `make examples`.

Everything in them is made by the project itself (enclap.data.synthetic.demonstration) and dedicated to the public
domain (CC0 1.0). The containers differ, to show that any kind of file will do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from enclap.data.synthetic.demonstration.scenes import EXAMPLES


def write_examples(folder: Path) -> None:
    """Writes every example into the folder and says how large each one is."""
    for example in EXAMPLES:
        path = folder / example.name
        path.write_bytes(example.encoded())
        sys.stdout.write(f"{path.name}: {example.seconds:g} s, {path.stat().st_size / 1_000:.0f} kB\n")


if __name__ == "__main__":
    write_examples(Path(__file__).resolve().parent)
