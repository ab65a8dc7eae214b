"""How often captions name what is heard: `python benchmarks/hearing.py --model FOLDER --split validation|test`.

Reads the recordings in ../shared (or --recordings), captions those of the split, and writes the figures, each beside
that of one constant caption and of the same captions dealt out in another order, to benchmarks/results/.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from enclap import Captioner
from enclap.audio.read import read_audio
from enclap.data.manifest import Recording, read_manifest, share
from enclap.evaluation.naming import names, names_family, order_right
from tables import Table, hardware, save, today

Judge = Callable[[str, str], bool]
ROOT = Path(__file__).resolve().parent.parent
PAIRS = 200
PAUSE = 0.2  # seconds between the two sounds of a pair
CHANCE_ORDERS = 50
ESC = "ESC-10: the caption names the sound"
ASKED = {ESC: "50 %"}


def select(recordings: Sequence[Recording], split: str) -> list[Recording]:
    """The recordings of the test split, or those that no stage of the training saw."""
    if split == "test":
        return [recording for recording in recordings if recording.split == "test"]
    return [
        recording
        for recording in recordings
        if recording.split == "train"
        and (recording.fold == 4 if recording.fold else share(recording.recording, "held out") < 0.15)
        and share(recording.recording, "captioner") >= 0.5
    ]


def rate(captions: Sequence[str], labels: Sequence[str], judge: Judge, macro: bool) -> float:
    """Per cent of captions that the judge accepts; macro: the mean over labels."""
    hits = defaultdict(list)
    for caption, label in zip(captions, labels, strict=True):
        hits[label if macro else ""].append(judge(caption, label))
    return 100.0 * float(np.mean([np.mean(values) for values in hits.values()]))


def beside_chance(
    captions: Sequence[str], labels: Sequence[str], judge: Judge, macro: bool = False
) -> dict[str, float]:
    """The rate, the rate of the captions in other orders, and of the best constant caption among them."""
    generator = np.random.default_rng(0)
    shuffled = [
        rate([captions[index] for index in generator.permutation(len(captions))], labels, judge, macro)
        for _ in range(CHANCE_ORDERS)
    ]
    constant = max(rate([caption] * len(labels), labels, judge, macro) for caption in set(captions))
    return {
        "measured": rate(captions, labels, judge, macro),
        "shuffled": float(np.mean(shuffled)),
        "constant": constant,
        "items": len(labels),
    }


def pairs(captioner: Captioner, folder: Path, recordings: Sequence[Recording]) -> dict[str, dict[str, float]]:
    """Two ESC-10 sounds one after the other: both named, and of those the order right; per cent."""
    generator = np.random.default_rng(1)
    clips = [recording for recording in recordings if recording.fold is not None]
    sources, wanted = [], []
    while len(sources) < PAIRS:
        first, second = (clips[int(index)] for index in generator.integers(0, len(clips), 2))
        if first.label == second.label:
            continue
        sounds = [read_audio(folder / clip.path) for clip in (first, second)]
        length = int(4.8 * sounds[0].rate)
        pause = np.zeros(int(PAUSE * sounds[0].rate), np.float32)
        sources.append(
            (np.concatenate([sounds[0].samples[:length], pause, sounds[1].samples[:length]]), sounds[0].rate)
        )
        wanted.append((first.label, second.label))
    captions = [result.text for result in captioner.caption(sources)]
    both = [
        (caption, *labels)
        for caption, labels in zip(captions, wanted, strict=True)
        if names(caption, labels[0]) and names(caption, labels[1])
    ]
    right = [order_right(caption, first, second) for caption, first, second in both]
    return {
        "two ESC-10 sounds in order: both named": {
            "measured": 100.0 * len(both) / len(captions),
            "items": len(captions),
        },
        "of those: order right": {"measured": 100.0 * float(np.mean(right)) if right else 0.0, "items": len(both)},
    }


def table(figures: dict[str, dict[str, float]], options: argparse.Namespace) -> Table:
    """The figures beside what chance gives and what was asked."""
    rows = [
        (
            what,
            *(f"{found[key]:.1f} %" if key in found else "" for key in ("measured", "shuffled", "constant")),
            ASKED.get(what, "") if options.split == "test" else "",
            str(int(found["items"])),
        )
        for what, found in figures.items()
    ]
    return Table(
        title=f"Hearing of {options.model}, {options.split} recordings",
        columns=("what", "measured", "captions shuffled", "best constant caption", "asked: at least", "items"),
        rows=tuple(rows),
        command=f"python benchmarks/hearing.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=10,
        note="Beam 4. A caption names a sound when its first 20 words hold all words of one of the label's synonyms.",
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--recordings", type=Path, default=ROOT.parent / "shared" / "data" / "sounds")
    parser.add_argument("--captions", type=Path, help="write labels and captions to this file")
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def main() -> None:
    """Measure, print and store."""
    options = parse()
    recordings = select(read_manifest(options.recordings / "manifest.csv"), options.split)
    captioner = Captioner.from_pretrained(options.model)
    results = captioner.caption([options.recordings / recording.path for recording in recordings])
    captions = [result.captions[0].text for result in results]
    labels = [recording.label for recording in recordings]
    classes = [index for index, recording in enumerate(recordings) if recording.fold is not None]
    figures = {
        ESC: beside_chance([captions[index] for index in classes], [labels[index] for index in classes], names),
        "all labels: named, mean over labels": beside_chance(captions, labels, names, macro=True),
        "all labels: named or family named": beside_chance(captions, labels, names_family, macro=True),
        **pairs(captioner, options.recordings, recordings),
    }
    result = table(figures, options)
    print(result.markdown())
    if options.captions:
        rows = (f"{label}\t{names(text, label)}\t{text}" for text, label in zip(captions, labels, strict=True))
        options.captions.write_text("\n".join(sorted(rows)) + "\n", encoding="utf-8")
    if not options.no_save:
        save(result, f"hearing-{options.split}")


if __name__ == "__main__":
    main()
