"""Calibrates a model's scores on the validation recordings: `python benchmarks/confidence.py --model FOLDER`.

Captions every validation recording, alone and in the pairs of hearing.py, fits the curve from score to the probability
that the caption names what is heard, chooses the threshold below which a vaguer sentence is better (most labels named
or family named, mean over labels), and writes confidence.json and reliability.svg into the folder. With --split test it
changes nothing and only measures how reliable the folder's calibration is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.read import read_audio
from enclap.audio.window import DEFAULT_WINDOW, split_windows
from enclap.data.recordings import read_manifest
from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.calibration import VERSION, Calibration
from enclap.decoding.options import DecodingOptions
from enclap.decoding.repetition import repetitions_last
from enclap.engines import load_engine
from enclap.evaluation.calibration import Bin, calibration_error, fit_logistic, reliability
from enclap.evaluation.hearing import mentions_family, names
from enclap.hub.resolve import find_model
from enclap.types import Block, Waveform
from hearing import PAIRS, PHRASE, ROOT, common_groups, draw_pairs, join, rate, select
from tables import Table, hardware, save, today

BINS = 6
THRESHOLDS = np.linspace(0.0, 0.6, 25)


@dataclass(frozen=True)
class Heard:
    """A caption with its raw score, what it should name, and the vaguer sentence that could stand in its place."""

    labels: tuple[str, ...]
    text: str
    score: float
    vaguer: str

    @property
    def right(self) -> bool:
        """Whether all labels are named."""
        return all(names(self.text, label) for label in self.labels)


def listen(options: argparse.Namespace) -> list[Heard]:
    """Recordings of the split, alone and in pairs, captioned without any calibration."""
    everything = read_manifest(options.recordings / "manifest.csv")
    chosen = select(everything, options.split)
    stream = draw_pairs(common_groups(everything, chosen), seed=2)
    together = [next(stream) for _ in range(PAIRS)]
    sources: list[Waveform] = [read_audio(options.recordings / clip.path) for clip in chosen]
    sources += [Waveform(*join(options.recordings, pair)) for pair in together]
    wanted = [(clip.label,) for clip in chosen] + [tuple(clip.label for clip in pair) for pair in together]
    engine, vague, heard = load_engine(find_model(options.model)), vague_sentences(), []
    texts, decoding = engine.embed_text(vague), DecodingOptions(candidates=DecodingOptions().beams)
    for labels, source in zip(wanted, sources, strict=True):
        window = next(iter(split_windows([Block(source.samples, 0)], source.rate, DEFAULT_WINDOW)))
        features = engine.extract([window])
        best = repetitions_last(engine.generate(features, decoding)[0], PHRASE)[0]
        assert features[0].embedding is not None
        heard.append(Heard(labels, best.text, best.score, vague[int(np.argmax(texts @ features[0].embedding))]))
    return heard


def vague_sentences() -> tuple[str, ...]:
    """A sentence for each family, in order of their names."""
    families = load_lexicon().families
    return tuple(finish(families[name].clause) for name in sorted(families))


def calibrate(heard: Sequence[Heard]) -> Calibration:
    """The calibration that these captions ask for."""
    scores = np.array([item.score for item in heard])
    right = np.array([float(item.right) for item in heard])
    slope, offset = fit_logistic(scores, right)
    fitted = {"slope": slope, "offset": offset}
    curve = Calibration(version=VERSION, **fitted, threshold=0.0, vague=vague_sentences(), phrase=PHRASE)
    alone = [item for item in heard if len(item.labels) == 1]
    rates = [named(alone, curve.model_copy(update={"threshold": float(value)})) for value in THRESHOLDS]
    best = float(THRESHOLDS[int(np.argmax([family for _, family in rates]))])
    for threshold, (exact, family) in zip(THRESHOLDS, rates, strict=True):
        print(f"threshold {threshold:.3f}: named {exact:.1f} %, named or family named {family:.1f} %")
    return curve.model_copy(update={"threshold": best, "vague": curve.vague if best > 0 else ()})


def named(alone: Sequence[Heard], curve: Calibration) -> tuple[float, float]:
    """Per cent of labels named, and named or family named, as means over labels, with the curve's threshold."""
    doubtful = [curve.is_doubtful(item.text, curve.probability(item.score)) for item in alone]
    texts = [item.vaguer if doubt else item.text for item, doubt in zip(alone, doubtful, strict=True)]
    labels = [item.labels[0] for item in alone]
    return rate(texts, labels, names, macro=True), rate(texts, labels, mentions_family, macro=True)


def draw(bins: Sequence[Bin], target: Path) -> None:
    """The reliability figure: promised against kept."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "enclap"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.2, 3.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1, linestyle="--")
    axes.plot(
        [item.promised for item in bins], [item.kept for item in bins], color="#1f5fa8", marker="o", linewidth=1.6
    )
    for item in bins:
        place = {"textcoords": "offset points", "xytext": (7, -11), "fontsize": 8, "color": "#606060"}
        axes.annotate(str(item.count), (item.promised, item.kept), **place)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score (probability promised)", ylabel="captions that name what is heard")
    axes.set_title("Reliability of mini's score (captions per point)", fontsize=9.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


def table(bins: Sequence[Bin], curve: Calibration, heard: Sequence[Heard], options: argparse.Namespace) -> Table:
    """How reliable the scores are, group by group."""
    rows = [(f"{item.promised:.2f}", f"{item.kept:.2f}", str(item.count)) for item in bins]
    alone = [item for item in heard if len(item.labels) == 1]
    plain, cautious = named(alone, curve.model_copy(update={"threshold": 0.0})), named(alone, curve)
    return Table(
        title=f"Reliability of {options.model}'s score, {options.split} recordings alone and in pairs",
        columns=("mean score", "share of captions that name all that is heard", "captions"),
        rows=tuple(rows),
        command=f"python benchmarks/confidence.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=14 if options.split == "test" else 15,
        place="card",
        note=f"Expected calibration error {calibration_error(list(bins)):.3f}. Threshold {curve.threshold:.3f}: "
        f"labels named {plain[0]:.1f} % without and {cautious[0]:.1f} % with vaguer sentences, "
        f"named or family named {plain[1]:.1f} % and {cautious[1]:.1f} %.",
    )


def main() -> None:
    """Calibrate or measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--recordings", type=Path, default=ROOT.parent / "shared" / "data" / "sounds")
    parser.add_argument("--no-save", action="store_true", help="store no table and no figure")
    options = parser.parse_args()
    folder, heard = find_model(options.model), listen(options)
    curve = calibrate(heard) if options.split == "validation" else Calibration.read(folder)
    if curve is None:
        parser.error(f"{folder} has no calibration yet; run this with --split validation first")
    promised = np.array([curve.probability(item.score) for item in heard])
    bins = reliability(promised, np.array([float(item.right) for item in heard]), BINS)
    result = table(bins, curve, heard, options)
    print(result.markdown())
    if options.split == "validation":
        curve.write(folder)
    if options.no_save:
        return
    if options.split == "test":
        draw(bins, folder / "reliability.svg")
    save(result, f"reliability-{options.split}")


if __name__ == "__main__":
    main()
