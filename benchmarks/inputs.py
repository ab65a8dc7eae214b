"""Reports what each input adds: `python benchmarks/inputs.py --model FOLDER`, on pairs of ESC-10 sounds in order.

`enclap.evaluation.mini_hearing` measures: the same model writes about the same pairs with both inputs, with all codes
hidden, and with an embedding of zeros.
"""

from __future__ import annotations

from enclap.data.splits import TEST, VALIDATION
from enclap.engines import load_engine
from enclap.evaluation.mini_hearing import measure_inputs
from enclap.evaluation.sound_pairs import PAIRS
from enclap.hub.layout import read_json
from enclap.hub.resolve import find_model
from hearing import percent, recordings_parser
from tables import Table, hardware, save, today


def main() -> None:
    """Measure, print and store."""
    options = recordings_parser(__doc__, (TEST, VALIDATION)).parse_args()
    folder = find_model(options.model)
    entries = int(read_json(folder / "config.json")["codebook_entries"])
    figures = measure_inputs(load_engine(folder), entries, options.recordings, options.split)
    rows = [
        (name, percent(both.value), f"{100 * order.value:.0f} % of {order.items}" if order.items else "none named")
        for name, (both, order) in figures.items()
    ]
    result = Table(
        title=f"What the inputs of {options.model} add: two ESC-10 sounds in order, {PAIRS} pairs",
        columns=("the captioner is shown", "both named", "of those: order right"),
        rows=tuple(rows),
        command=f"python benchmarks/inputs.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=16,
        note="Training hid all codes of 3 % of the clips of its second phase, and left out 5 % of the embeddings.",
        place="card",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, "inputs")


if __name__ == "__main__":
    main()
