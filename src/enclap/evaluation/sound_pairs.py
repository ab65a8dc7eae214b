"""The clips on which mini's hearing is measured and calibrated: recordings alone, and two in a row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import Recording, read_manifest
from enclap.data.splits import select
from enclap.types import Waveform

PAIRS = 200
COMMON_LABELS = 34
PAIR_RATE = 32_000
PAUSE = 0.2  # seconds between the two sounds of a pair
LONGEST_SOUND = 4.8  # seconds of each
ESC_SEED, COMMON_SEED = 1, 2  # of the pairs drawn among ESC-10's classes, and among the commonest labels

Pair = tuple[Recording, Recording]


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """Audio and the labels of its sounds, in order of time."""

    labels: tuple[str, ...]
    waveform: Waveform


def common_groups(recordings: Sequence[Recording], chosen: Sequence[Recording]) -> list[list[Recording]]:
    """The chosen recordings of the labels that have the most `recordings`, a list for each label."""
    counts = Counter(recording.label for recording in recordings)
    by_label = defaultdict(list)
    for recording in chosen:
        by_label[recording.label].append(recording)
    labels = sorted(by_label, key=lambda label: (-counts[label], label))[:COMMON_LABELS]
    return [by_label[label] for label in labels]


def draw_pairs(groups: Sequence[Sequence[Recording]], seed: int, count: int) -> list[Pair]:
    """Pairs of recordings of two different groups, groups drawn uniformly."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        first, second = (groups[index] for index in generator.choice(len(groups), 2, replace=False))
        pairs.append((first[int(generator.integers(len(first)))], second[int(generator.integers(len(second)))]))
    return pairs


def esc_pairs(chosen: Sequence[Recording]) -> list[Pair]:
    """Pairs of different ESC-10 classes among the chosen recordings."""
    return draw_pairs(common_groups(chosen, [clip for clip in chosen if clip.fold is not None]), ESC_SEED, PAIRS)


def common_pairs(recordings: Sequence[Recording], chosen: Sequence[Recording]) -> list[Pair]:
    """Pairs of the chosen recordings of the commonest labels."""
    return draw_pairs(common_groups(recordings, chosen), COMMON_SEED, PAIRS)


def join_pair(folder: Path, pair: Pair) -> LabelledClip:
    """Two sounds one after the other, each at most 4.8 s, with a short pause between them."""
    sounds = [resample(read_audio(folder / clip.path), PAIR_RATE) for clip in pair]
    length, pause = int(LONGEST_SOUND * PAIR_RATE), np.zeros(int(PAUSE * PAIR_RATE), np.float32)
    samples = np.concatenate([sounds[0][:length], pause, sounds[1][:length]])
    return LabelledClip((pair[0].label, pair[1].label), Waveform(samples, PAIR_RATE))


def labelled_clips(folder: Path, split: str) -> Iterator[LabelledClip]:
    """The recordings of a split one by one, then pairs of them with common labels, each read when it is asked for."""
    recordings = read_manifest(folder / "manifest.csv")
    chosen = select(recordings, split)
    for clip in chosen:
        yield LabelledClip((clip.label,), read_audio(folder / clip.path))
    for pair in common_pairs(recordings, chosen):
        yield join_pair(folder, pair)
