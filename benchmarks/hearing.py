"""How often captions name what is heard: `python benchmarks/hearing.py --model FOLDER --split validation|test`.

Reads the recordings in ../shared (or --recordings), captions those of the split, alone and in pairs, and writes the
figures, each beside that of one constant caption and of the same captions dealt out in another order, to
benchmarks/results/. With --note, a line with the settings and the figures is added to candidates.jsonl: settings are
chosen by the validation figures in that log, and the test split is looked at once for each release.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from enclap import Captioner
from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import Recording, read_manifest, share
from enclap.decoding.selection import WORD, repeats_phrase
from enclap.evaluation.hearing import WORDS_READ, has_correct_order, mentions_family, names
from enclap.types import Waveform
from tables import RESULTS, Table, hardware, save, today

Judge = Callable[[str, str], bool]
Figures = dict[str, dict[str, float]]
ROOT = Path(__file__).resolve().parent.parent
PAIRS = 200
COMMON_LABELS = 34
PAIR_RATE = 32_000
PAUSE = 0.2  # seconds between the two sounds of a pair
LONGEST_SOUND = 4.8  # seconds of each
CHANCE_ORDERS = 50
PHRASE = 3  # words that a caption should not say twice
ESC = "ESC-10: the caption names the sound"
FAMILY = "all labels: named or family named, mean over labels"
ESC_PAIRS = "two ESC-10 sounds in order: both named"
COMMON_PAIRS = f"two sounds of the {COMMON_LABELS} commonest labels: both named"
FAULTY = "captions with a repeated phrase or without an end"
ASKED = {
    ESC: "70 %",
    FAMILY: "30 %",
    ESC_PAIRS: "35 %",
    f"{ESC_PAIRS}, of those: order right": "85 %",
    COMMON_PAIRS: "12 %",
}


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


def both_named(caption: str, pair: str) -> bool:
    """Whether a caption names both labels of "first; second", or a single one."""
    return all(names(caption, label) for label in pair.split("; "))


def draw_pairs(groups: Sequence[Sequence[Recording]], seed: int) -> Iterator[tuple[Recording, Recording]]:
    """Endless pairs of recordings of two different groups, groups drawn uniformly."""
    generator = np.random.default_rng(seed)
    while True:
        first, second = generator.choice(len(groups), 2, replace=False)
        yield tuple(groups[index][int(generator.integers(len(groups[index])))] for index in (first, second))


def join(folder: Path, pair: Sequence[Recording]) -> tuple[np.ndarray, int]:
    """Two sounds one after the other, each at most 4.8 s, with a short pause: samples and their rate."""
    sounds = [resample(read_audio(folder / clip.path), PAIR_RATE) for clip in pair]
    length, pause = int(LONGEST_SOUND * PAIR_RATE), np.zeros(int(PAUSE * PAIR_RATE), np.float32)
    return Waveform(np.concatenate([sounds[0][:length], pause, sounds[1][:length]]), PAIR_RATE).samples, PAIR_RATE


def pairs(
    captioner: Captioner, folder: Path, groups: Sequence[Sequence[Recording]], what: str, seed: int
) -> tuple[Figures, list[tuple[str, str]]]:
    """Two sounds one after the other: both named, and of those the order right; and the pairs with their captions."""
    stream = draw_pairs(groups, seed)
    chosen = [next(stream) for _ in range(PAIRS)]
    captions = [result.text for result in captioner.caption([join(folder, pair) for pair in chosen])]
    wanted = ["; ".join(clip.label for clip in pair) for pair in chosen]
    hits = [
        (caption, pair.split("; ")) for caption, pair in zip(captions, wanted, strict=True) if both_named(caption, pair)
    ]
    right = [has_correct_order(caption, *labels) for caption, labels in hits]
    order = {"measured": 100.0 * float(np.mean(right)) if right else 0.0, "items": len(hits)}
    figures = {what: beside_chance(captions, wanted, both_named), f"{what}, of those: order right": order}
    return figures, list(zip(wanted, captions, strict=True))


def common_groups(recordings: Sequence[Recording], chosen: Sequence[Recording]) -> list[list[Recording]]:
    """The chosen recordings of the labels that have the most recordings, a list for each label."""
    counts = Counter(recording.label for recording in recordings)
    by_label = defaultdict(list)
    for recording in chosen:
        by_label[recording.label].append(recording)
    labels = sorted(by_label, key=lambda label: (-counts[label], label))[:COMMON_LABELS]
    return [by_label[label] for label in labels]


def is_faulty(caption: str) -> bool:
    """Whether a caption says a phrase of three words twice, is longer than may be, or does not end."""
    too_long = len(WORD.findall(caption.lower())) > WORDS_READ
    return repeats_phrase(caption, PHRASE) or too_long or not caption.endswith(".")


def measure(options: argparse.Namespace) -> tuple[Figures, list[tuple[str, str]]]:
    """All figures, and the labels ("first; second" for pairs) with their captions."""
    everything = read_manifest(options.recordings / "manifest.csv")
    chosen = select(everything, options.split)
    captioner = Captioner.from_pretrained(options.model)
    results = captioner.caption([options.recordings / recording.path for recording in chosen])
    captions = [result.captions[0].text for result in results]
    labels = [recording.label for recording in chosen]
    classes = [index for index, recording in enumerate(chosen) if recording.fold is not None]
    esc = common_groups(chosen, [chosen[index] for index in classes])
    figures = {
        ESC: beside_chance([captions[index] for index in classes], [labels[index] for index in classes], names),
        "all labels: named, mean over labels": beside_chance(captions, labels, names, macro=True),
        FAMILY: beside_chance(captions, labels, mentions_family, macro=True),
    }
    told = list(zip(labels, captions, strict=True))
    for what, groups, seed in ((ESC_PAIRS, esc, 1), (COMMON_PAIRS, common_groups(everything, chosen), 2)):
        found, more = pairs(captioner, options.recordings, groups, what, seed)
        figures |= found
        told += more
    figures[FAULTY] = {"measured": 100.0 * float(np.mean([is_faulty(text) for _, text in told]))}
    figures[FAULTY]["items"] = len(told)
    return figures, told


def table(figures: Figures, options: argparse.Namespace) -> Table:
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
        columns=("what", "measured", "captions shuffled", "best constant caption", "target: at least", "items"),
        rows=tuple(rows),
        command=f"python benchmarks/hearing.py --model {options.model} --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=10 if options.split == "test" else 11,
        place="mini" if options.split == "test" else "card",
        note="Beam 4. A caption names a sound when its first 20 words hold all words of one of the label's synonyms.",
    )


def log_candidate(figures: Figures, options: argparse.Namespace) -> None:
    """Add this candidate to the log of all that were measured."""
    line = {
        "date": today(),
        "split": options.split,
        "settings": options.note,
        "figures": {what: round(found["measured"], 1) for what, found in figures.items()},
    }
    with (RESULTS.parent / "candidates.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="model name or folder (default: mini)")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--recordings", type=Path, default=ROOT.parent / "shared" / "data" / "sounds")
    parser.add_argument("--captions", type=Path, help="write labels, whether they are named, and captions to this file")
    parser.add_argument("--note", help="the candidate's settings: add it to candidates.jsonl")
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def main() -> None:
    """Measure, print and store."""
    options = parse()
    figures, told = measure(options)
    result = table(figures, options)
    print(result.markdown())
    if options.captions:
        rows = (f"{label}\t{both_named(text, label)}\t{text}" for label, text in told)
        options.captions.write_text("\n".join(sorted(rows)) + "\n", encoding="utf-8")
    if options.note:
        log_candidate(figures, options)
    if not options.no_save:
        save(result, f"hearing-{options.split}")


if __name__ == "__main__":
    main()
