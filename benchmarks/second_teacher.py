"""Reports what a second teacher would add: `python benchmarks/second_teacher.py --opinions FOLDER`.

On validation recordings: whether the best name of mn04_as, of YAMNet and of aiSFX, which has no classes and names the
label of the nearest training recording, is the label or of its family; and how often any of several teachers' is.
FOLDER is where the embeddings of aiSFX are kept, which take some minutes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from enclap.data.recordings import read_collection
from enclap.data.splits import VALIDATION, select
from enclap.evaluation.hearing import mentions_family, mentions_label
from enclap.training.mini.contradictions import may_be_mended
from enclap.training.mini.find_contradictions import AiSfxOpinion, YamNetOpinion, class_names
from enclap.training.mini.opinions import class_labels
from hearing import RECORDINGS, percent
from tables import Table, hardware, today
from teacher import paste, rank_labels

TEACHERS = ("mn04_as", "YAMNet", "aiSFX")
GROUPS = (*((name,) for name in TEACHERS), ("mn04_as", "YAMNet"), ("mn04_as", "aiSFX"), TEACHERS)


def best_labels(recordings: Path, teachers: Path, opinions: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The labels of the validation recordings, and each teacher's best label for each; "" where it says none."""
    collection = read_collection(recordings)
    chosen, training = select(collection, VALIDATION), [item for item in collection if may_be_mended(item)]
    labels = dict(zip(class_names(), class_labels(), strict=True))
    yamnet, aisfx = YamNetOpinion(teachers), AiSfxOpinion(teachers, recordings, training, opinions / "aisfx.npz")
    found = {name: [] for name in TEACHERS}
    for item, ranked in zip(chosen, rank_labels(recordings, chosen, teachers), strict=True):
        found["mn04_as"].append(ranked[0])
        found["YAMNet"].append(next((label for name in yamnet(recordings / item.path) if (label := labels[name])), ""))
        found["aiSFX"].append(next(iter(aisfx(recordings / item.path))))
    return [item.label for item in chosen], found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, default=RECORDINGS)
    parser.add_argument("--teachers", type=Path, default=RECORDINGS.parents[1] / "reference" / "teachers")
    parser.add_argument("--opinions", type=Path, required=True, help="folder for the embeddings of aiSFX")
    options = parser.parse_args()
    labels, found = best_labels(options.recordings, options.teachers, options.opinions)
    said = {name: [paste([label]) if label else "" for label in best] for name, best in found.items()}
    rows = []
    for group in GROUPS:
        row = []
        for scored in (mentions_label, mentions_family):
            right = [any(scored(said[name][at], label) for name in group) for at, label in enumerate(labels)]
            shares = [
                sum(hit for hit, own in zip(right, labels, strict=True) if own == label) / count
                for label, count in Counter(labels).items()
            ]
            row += [percent(sum(right) / len(right)), percent(sum(shares) / len(shares))]
        rows.append((" or ".join(group), *row))
    note = []
    for name in TEACHERS[1:]:
        gained = Counter(
            label
            for at, label in enumerate(labels)
            if mentions_label(said[name][at], label) and not mentions_label(said["mn04_as"][at], label)
        )
        note.append(f"{name} alone: " + ", ".join(f"{label} {count}" for label, count in gained.most_common(12)))
    table = Table(
        title=f"The best name of one teacher or several, {len(labels)} validation recordings",
        columns=("names by", "named", "mean over labels", "or family", "mean over labels"),
        rows=tuple(rows),
        command="python benchmarks/second_teacher.py",
        date=today(),
        hardware=hardware(),
        order=13,
        place="card",
        note="; ".join(note) + ".",
    )
    print(table.markdown())


if __name__ == "__main__":
    main()
