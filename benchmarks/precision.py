"""Measures what int8 changes: the share of equal captions, and every metric there is, beside float32.

On the bundled model with real recordings (a copy whose quantised graphs are made here) and on the published sizes with
weights from a rule. The rule's sentences mean nothing, and nearly equal words lie closer there than in a trained model:
their share of equal captions is the harshest there is.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enclap import Captioner, DecodingOptions
from enclap.data.recordings import read_manifest
from enclap.engines import load_engine
from enclap.evaluation.hearing import mentions_family, mentions_label
from enclap.export.folder import export_folder
from enclap.hub.resolve import find_model
from enclap.types import Features
from tables import Table, hardware, save, today

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SOUNDS = ("dog", "rain")
RULE_CLIPS = 20

Row = tuple[str, str, str, str]


def mini_rows(recordings: Path, limit: int) -> list[Row]:
    """Agreement and naming of the bundled model on test recordings."""
    rows = [row for row in read_manifest(recordings / "manifest.csv") if row.split == "test"][:limit]
    texts = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(find_model("mini"), Path(scratch) / "mini"))
        export_folder(folder, int8=True)
        (folder / "SHA256SUMS").unlink()
        for precision in ("float32", "int8"):
            captioner = Captioner.from_pretrained(folder, "onnx", "cpu", precision)
            results = captioner.caption([recordings / row.path for row in rows])
            texts[precision] = [result.captions[0].text for result in results]
    found = [("mini: equal captions", "", percent(equal_share(texts["float32"], texts["int8"])), f"{len(rows)}")]
    for what, judge in (("sound named", mentions_label), ("sound or its family named", mentions_family)):
        shares = [
            percent(float(np.mean([judge(text, row.label) for text, row in zip(texts[precision], rows, strict=True)])))
            for precision in ("float32", "int8")
        ]
        found.append((f"mini: {what}", *shares, f"{len(rows)}"))
    return found


def rule_rows(folder: Path, clips: int) -> list[Row]:
    """Agreement of a published size with weights from the rule, over segments of the reference's recordings."""
    features = rule_features(clips)
    options = DecodingOptions(max_length=50)
    found = {
        precision: load_engine(folder, "onnx", "cpu", precision).generate(features, options)
        for precision in ("float32", "int8")
    }
    ids = {precision: [clip[0].token_ids for clip in clips_] for precision, clips_ in found.items()}
    same = np.mean([np.mean([a == b for a, b in zip(*pair, strict=False)]) for pair in zip(*ids.values(), strict=True)])
    scores = [np.mean([clip[0].score for clip in found[precision]]) for precision in ("float32", "int8")]
    name = folder.name
    return [
        (f"{name}: equal captions", "", percent(equal_share(ids["float32"], ids["int8"])), f"{clips}"),
        (f"{name}: equal words, position by position", "", percent(float(same)), f"{clips}"),
        (f"{name}: mean log-probability per word", f"{scores[0]:.3f}", f"{scores[1]:.3f}", f"{clips}"),
    ]


def rule_features(clips: int) -> list[Features]:
    """Segments of three seconds of the reference's codes, with embeddings between those of its two recordings."""
    with np.load(SHARED / "reference" / "encoders" / "encoders.npz") as arrays:
        codes = [arrays[f"encodec_{sound}_codes"].T.astype(np.int64) for sound in SOUNDS]
        embeddings = [arrays[f"clap_{sound}_embedding"] for sound in SOUNDS]
    generator = np.random.default_rng(0)
    features = []
    for number in range(clips):
        source = codes[number % len(codes)]
        start = int(generator.integers(0, len(source) - 225 + 1))
        weight = generator.random()
        mixed = weight * embeddings[0] + (1 - weight) * embeddings[1]
        features.append(Features(source[start : start + 225], (mixed / np.linalg.norm(mixed)).astype(np.float32)))
    return features


def equal_share(first: Sequence[object], second: Sequence[object]) -> float:
    """The share of positions at which both have the same."""
    return float(np.mean([one == other for one, other in zip(first, second, strict=True)]))


def percent(value: float) -> str:
    """A share in words."""
    return f"{100 * value:.1f} %"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="folders of `rule_weights.py`, to be measured too")
    parser.add_argument("--recordings", type=Path, default=SHARED / "data" / "sounds")
    parser.add_argument("--limit", type=int, default=10_000, help="test recordings of the bundled model")
    parser.add_argument("--clips", type=int, default=RULE_CLIPS, help="clips of each folder")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    rows = mini_rows(options.recordings, options.limit)
    for folder in options.folders:
        rows += rule_rows(folder, options.clips)
    result = Table(
        title="What int8 changes",
        columns=("what", "float32", "int8", "clips"),
        rows=tuple(rows),
        command="python benchmarks/precision.py SCRATCH/base SCRATCH/large",
        date=today(),
        hardware=hardware(),
        order=60,
        note="Beam 4. Base and large have weights from a rule, whose sentences mean nothing.",
        place="official",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, "precision")


if __name__ == "__main__":
    main()
