"""Makes losses.json again: `python tests/golden/mini/make.py`, after a change that is meant to change the training.

The file holds the losses of the first six steps of each stage of a tiny mini, whose recordings and recipes are in
tests/tiny_mini.py. Floating-point sums differ between processors, numbers of cores and versions of PyTorch. Over so few
steps that is less than 1e-5 of a loss, the tolerance of codec and distillation. The stages after them read weights that
were rounded to float16, where a last bit may decide which way: 1e-4 was seen with one core and two; their tolerance is
1e-3.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tiny_mini import logged_losses, tiny_run, train_in_this_process  # noqa: E402 - the path comes first

STEPS = 6

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        run = tiny_run(Path(scratch), STEPS)
        train_in_this_process(run, last="caption")
        table = {
            "made_by": f"enclap {version('enclap')}, recipes of tests/tiny_mini.py, {STEPS} steps, one thread",
            "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
            "losses": logged_losses(run.output),
        }
        (HERE / "losses.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
