"""Reports what pasting a teacher's best class names is worth: `python benchmarks/teacher.py --split SPLIT`.

The baseline that mini has to beat: mn04_as names the one, two or three most probable of AudioSet's classes in a
recording's first 10 seconds, and a frame turns their lexicon labels into a sentence. Scored as `hearing.py` scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import MANIFEST, Recording, read_collection, read_manifest
from enclap.data.splits import TEST, VALIDATION, select
from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.baselines import score_named
from enclap.evaluation.hearing import FAMILY_NAMED, SOUND_NAMED, Hearing
from enclap.evaluation.mini_hearing import ESC, FAMILY, NAMED
from enclap.training.mini.context import CORPUS_RATE
from enclap.training.mini.opinions import WINDOW, class_labels
from enclap.training.teachers.mobilenet import MobileNetFrontEnd
from enclap.training.teachers.weights import load_mobilenet
from hearing import RECORDINGS, percent, recordings_parser
from tables import Table, hardware, save, today

COUNTS = (1, 2, 3)
"""How many of the classes are pasted."""


@torch.inference_mode()
def rank_labels(folder: Path, chosen: list[Recording], teachers: Path) -> list[list[str]]:
    """For each recording the labels of the teacher's classes, most probable first, each once."""
    teacher, front_end = load_mobilenet(teachers), MobileNetFrontEnd()
    found = []
    for recording in chosen:
        samples = np.resize(resample(read_audio(folder / recording.path), CORPUS_RATE)[:WINDOW], WINDOW)
        logits = teacher(front_end(torch.from_numpy(samples)[None]))[0]
        labels = (class_labels()[index] for index in logits.argsort(descending=True).tolist())
        found.append(list(dict.fromkeys(label for label in labels if label)))
    return found


def paste(labels: list[str]) -> str:
    """The labels' noun phrases in a sentence."""
    lexicon = load_lexicon()
    return finish(f"there is the sound of {' and '.join(lexicon[label].nouns[0] for label in labels)}")


def main() -> None:
    """Measure, print and store."""
    parser = recordings_parser(__doc__, (TEST, VALIDATION))
    parser.add_argument("--teachers", type=Path, default=RECORDINGS.parents[1] / "reference" / "teachers")
    options = parser.parse_args()
    chosen = select(read_collection(options.recordings), options.split)
    first = {recording.path for recording in read_manifest(options.recordings / MANIFEST)}
    ranked = rank_labels(options.recordings, chosen, options.teachers)
    rows: dict[str, list[str]] = {ESC: [], NAMED: [], FAMILY: []}
    for count in COUNTS:
        pairs = [(paste(labels[:count]), clip) for labels, clip in zip(ranked, chosen, strict=True)]
        for what, is_scored, metric, score in (
            (ESC, lambda clip: clip.fold is not None, Hearing(), SOUND_NAMED),
            (NAMED, lambda clip: clip.path in first, Hearing(over_labels=True), SOUND_NAMED),
            (FAMILY, lambda clip: clip.path in first, Hearing(over_labels=True), FAMILY_NAMED),
        ):
            scored = [(text, (clip.label,)) for text, clip in pairs if is_scored(clip)]
            scores = metric.score([text for text, _ in scored], [labels for _, labels in scored])
            rows[what].append(percent(score_named(scores, score).value))
    result = Table(
        title=f"The teacher's best class names in a frame, {options.split} recordings",
        columns=("what", *(f"best {count}" for count in COUNTS)),
        rows=tuple((what, *shares) for what, shares in rows.items()),
        command=f"python benchmarks/teacher.py --split {options.split}",
        date=today(),
        hardware=hardware(),
        order=13,
        place="card",
        note="mn04_as, 527 classes; labels with the lexicon's names for these classes.",
    )
    print(result.markdown())
    if not options.no_save:
        save(result, f"teacher-{options.split}")


if __name__ == "__main__":
    main()
