"""What each input adds: `python benchmarks/inputs.py --model FOLDER`, on pairs of ESC-10 sounds one after the other.

The same model writes about the same pairs with both inputs, with all codes hidden (as masked codec modeling hides
them), and with an embedding of zeros (as it was shown now and then in training).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from enclap.data.recordings import read_manifest
from enclap.decoding.options import DecodingOptions
from enclap.engines import load_engine
from enclap.evaluation.hearing import has_correct_order
from enclap.hub.layout import read_json
from enclap.hub.resolve import find_model
from enclap.types import Features, Waveform, Window
from hearing import PAIRS, ROOT, both_named, common_groups, draw_pairs, join, select
from tables import Table, hardware, save, today


def without_codes(features: Features, entries: int) -> Features:
    """The features with every code hidden."""
    return replace(features, codes=np.full_like(features.codes, entries))


def without_embedding(features: Features, entries: int) -> Features:
    """The features with an embedding of zeros."""
    assert features.embedding is not None
    return replace(features, embedding=np.zeros_like(features.embedding))


CASES: dict[str, Callable[[Features, int], Features]] = {
    "codes and embedding": lambda features, entries: features,
    "embedding alone": without_codes,
    "codes alone": without_embedding,
}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--recordings", type=Path, default=ROOT.parent / "shared" / "data" / "sounds")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    chosen = select(read_manifest(options.recordings / "manifest.csv"), options.split)
    esc = [recording for recording in chosen if recording.fold is not None]
    stream = draw_pairs(common_groups(chosen, esc), seed=1)
    pairs = [next(stream) for _ in range(PAIRS)]
    folder = find_model(options.model)
    engine, entries = load_engine(folder), int(read_json(folder / "config.json")["codebook_entries"])
    waveforms = [Waveform(*join(options.recordings, pair)) for pair in pairs]
    features = engine.extract([Window(waveform, 0.0, waveform.seconds) for waveform in waveforms])
    rows = []
    for name, change in CASES.items():
        found = engine.generate([change(item, entries) for item in features], DecodingOptions())
        told = [(clip[0].text, [sound.label for sound in pair]) for clip, pair in zip(found, pairs, strict=True)]
        both = [(text, labels) for text, labels in told if both_named(text, "; ".join(labels))]
        right = sum(has_correct_order(text, *labels) for text, labels in both)
        order = f"{100 * right / len(both):.0f} % of {len(both)}" if both else "none named"
        rows.append((name, f"{100 * len(both) / PAIRS:.1f} %", order))
    result = Table(
        title=f"What the inputs of {options.model} add: two ESC-10 sounds in order, {PAIRS} pairs",
        columns=("the captioner is shown", "both named", "of those: order right"),
        rows=tuple(rows),
        command=f"python benchmarks/inputs.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=16,
        note="Training hid all codes of 3 % of the clips of its second round, and left out 5 % of the embeddings.",
        place="card",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, "inputs")


if __name__ == "__main__":
    main()
