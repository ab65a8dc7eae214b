"""Reports how reliable a model's scores are: `python benchmarks/confidence.py --model FOLDER --split SPLIT`.

`enclap.evaluation.calibration` measures the calibration that is in the folder; it is made by the last stage of the
training. On the test split the reliability figure of the model card is drawn too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enclap.data.splits import EXTERNAL, TEST, VALIDATION
from enclap.decoding.calibration import Calibration
from enclap.decoding.memory import SoundMemory
from enclap.engines import load_engine
from enclap.evaluation.calibration import (
    Bin,
    ScoredCaption,
    calibration_error,
    named_shares,
    reliability,
    score_captions,
)
from enclap.evaluation.sound_pairs import labelled_clips
from enclap.hub.integrity import CHECKSUMS, write_checksums
from enclap.hub.resolve import find_model
from hearing import percent, recordings_parser
from tables import Table, hardware, save, today

BINS = 6


def draw(bins: Sequence[Bin], target: Path) -> None:
    """The reliability figure: accuracy over confidence."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "enclap"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.2, 3.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1, linestyle="--")
    points = ([item.confidence for item in bins], [item.accuracy for item in bins])
    axes.plot(*points, color="#1f5fa8", marker="o", linewidth=1.6)
    for item in bins:
        style = {"textcoords": "offset points", "xytext": (7, -11), "fontsize": 8, "color": "#606060"}
        axes.annotate(str(item.count), (item.confidence, item.accuracy), **style)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score (confidence)", ylabel="captions that name all that can be heard")
    axes.set_title("Reliability of mini's score (captions per point)", fontsize=9.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


def table(
    bins: Sequence[Bin], calibration: Calibration, captions: Sequence[ScoredCaption], options: argparse.Namespace
) -> Table:
    """How reliable the scores are, group by group."""
    plain = named_shares(captions, calibration.model_copy(update={"threshold": 0.0}))
    vaguer = named_shares(captions, calibration)
    return Table(
        title=f"Reliability of {options.model}'s score, {options.split} recordings alone and in pairs",
        columns=("mean score", "share of captions that name all that is heard", "captions"),
        rows=tuple((f"{item.confidence:.2f}", f"{item.accuracy:.2f}", str(item.count)) for item in bins),
        command=f"python benchmarks/confidence.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order={TEST: 14, EXTERNAL: 15}.get(options.split, 16),
        place="card",
        note=f"Expected calibration error {calibration_error(bins):.3f}. "
        f"Threshold {calibration.threshold:.3f}: "
        f"labels named {percent(plain[0])} without and {percent(vaguer[0])} with vaguer sentences, "
        f"named or family named {percent(plain[1])} and {percent(vaguer[1])}.",
    )


def main() -> None:
    """Measure, print, write."""
    parser = recordings_parser(__doc__, (VALIDATION, TEST, EXTERNAL))
    options = parser.parse_args()
    folder = find_model(options.model)
    calibration = Calibration.read(folder)
    if calibration is None:
        parser.error(f"{folder} has no calibration; the last stage of its training makes one")
    clips = labelled_clips(options.recordings, options.split)
    captions = score_captions(load_engine(folder), clips, SoundMemory.read(folder))
    probabilities = np.array([item.probability(calibration) for item in captions])
    bins = reliability(probabilities, np.array([float(item.is_correct) for item in captions]), BINS)
    result = table(bins, calibration, captions, options)
    print(result.markdown())
    if options.no_save:
        return
    save(result, f"reliability-{options.split}")
    if options.split == TEST:
        draw(bins, folder / "reliability.svg")
        if (folder / CHECKSUMS).exists():
            write_checksums(folder)


if __name__ == "__main__":
    main()
