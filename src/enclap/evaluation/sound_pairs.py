"""The clips on which mini's hearing is measured and calibrated: recordings alone, in a row, and under others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import Recording, read_collection
from enclap.data.splits import select
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.types import FloatArray, Waveform

PAIRS = 200
COMMON_LABELS = 34
PAIR_RATE = 32_000
PAUSE = 0.2  # seconds between two sounds in a row
WINDOW = 10.0  # seconds that the sounds in a row fill at most
ESC_SEED, COMMON_SEED, THREE_SEED, COVER_SEED, STRANGER_SEED = 1, 2, 3, 4, 5
COVER_FAMILIES = ("speech", "music")
LEVELS = (0.0, -6.0, -12.0)  # decibels of a sound beside what covers it
BANDS = {"a telephone (300 to 3,400 Hz)": (300.0, 3_400.0), "nothing above 4 kHz": (0.0, 4_000.0)}

Row = tuple[Recording, ...]
"""Recordings that follow each other."""


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """Audio, the labels of its sounds in order of time, and the source repositories of its recordings."""

    labels: tuple[str, ...]
    waveform: Waveform
    sources: tuple[str, ...] = ()


def common_groups(recordings: Sequence[Recording], chosen: Sequence[Recording]) -> list[list[Recording]]:
    """The chosen recordings of the labels that have the most `recordings`, a list for each label."""
    counts = Counter(recording.label for recording in recordings)
    by_label = defaultdict(list)
    for recording in chosen:
        by_label[recording.label].append(recording)
    labels = sorted(by_label, key=lambda label: (-counts[label], label))[:COMMON_LABELS]
    return [by_label[label] for label in labels]


def draw_rows(groups: Sequence[Sequence[Recording]], seed: int, count: int, sounds: int = 2) -> list[Row]:
    """Rows of `sounds` recordings of different groups, groups drawn uniformly."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        chosen = [groups[index] for index in generator.choice(len(groups), sounds, replace=False)]
        rows.append(tuple(group[int(generator.integers(len(group)))] for group in chosen))
    return rows


def esc_groups(chosen: Sequence[Recording]) -> list[list[Recording]]:
    """The chosen ESC-10 recordings, a list for each class."""
    return common_groups(chosen, [clip for clip in chosen if clip.fold is not None])


def esc_pairs(chosen: Sequence[Recording]) -> list[Row]:
    """Pairs of different ESC-10 classes among the chosen recordings."""
    return draw_rows(esc_groups(chosen), ESC_SEED, PAIRS)


def esc_threes(chosen: Sequence[Recording]) -> list[Row]:
    """Three different ESC-10 classes among the chosen recordings."""
    return draw_rows(esc_groups(chosen), THREE_SEED, PAIRS, sounds=3)


def common_pairs(recordings: Sequence[Recording], chosen: Sequence[Recording]) -> list[Row]:
    """Pairs of the chosen recordings of the commonest labels."""
    return draw_rows(common_groups(recordings, chosen), COMMON_SEED, PAIRS)


def stranger_pairs(chosen: Sequence[Recording]) -> list[Row]:
    """Pairs of the chosen recordings of different sources, sources drawn uniformly: as strangers' recordings come.

    None where all are of one source.
    """
    by_source = defaultdict(list)
    for recording in chosen:
        by_source[recording.source_repo].append(recording)
    count = PAIRS if len(by_source) > 1 else 0
    return draw_rows([by_source[source] for source in sorted(by_source)], STRANGER_SEED, count)


def join_row(folder: Path, row: Row) -> LabelledClip:
    """Sounds one after the other with short pauses, all of them together in one window."""
    length, pause = int((WINDOW / len(row) - PAUSE) * PAIR_RATE), np.zeros(int(PAUSE * PAIR_RATE), np.float32)
    parts = [part for clip in row for part in (read_at_pair_rate(folder, clip)[:length], pause)]
    waveform = Waveform(np.concatenate(parts[:-1]), PAIR_RATE)
    return LabelledClip(tuple(clip.label for clip in row), waveform, tuple(clip.source_repo for clip in row))


def read_at_pair_rate(folder: Path, clip: Recording) -> FloatArray:
    """Float32 [N] samples of a recording at 32 kHz."""
    return resample(read_audio(folder / clip.path), PAIR_RATE)


def draw_covers(chosen: Sequence[Recording], family: str, count: int) -> list[Recording]:
    """So many of the chosen recordings of a family of sounds, which are to cover others; none where there are none."""
    fitting = [clip for clip in chosen if load_lexicon()[clip.label].family == family]
    generator = np.random.default_rng(COVER_SEED)
    return [fitting[int(generator.integers(len(fitting)))] for _ in range(count if fitting else 0)]


def cover_clip(folder: Path, clip: Recording, cover: Recording, decibels: float) -> LabelledClip:
    """A sound under another that goes on for its whole time; decibels: its level beside the other's."""
    sound, over = (read_at_pair_rate(folder, item) for item in (clip, cover))
    over = np.resize(over, len(sound))
    level = 10.0 ** (decibels / 20.0) * root_mean_square(over) / max(root_mean_square(sound), 1e-6)
    mixed = over + np.float32(level) * sound
    peak = max(1.0, float(np.abs(mixed).max()))
    return LabelledClip((clip.label,), Waveform((mixed / np.float32(peak)).astype(np.float32), PAIR_RATE))


def limit_band(folder: Path, clip: Recording, lowest: float, highest: float) -> LabelledClip:
    """A recording of which only the frequencies between two limits, in Hz, are left."""
    samples = read_at_pair_rate(folder, clip)
    spectrum, hertz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1.0 / PAIR_RATE)
    spectrum[(hertz < lowest) | (hertz > highest)] = 0.0
    return LabelledClip((clip.label,), Waveform(np.fft.irfft(spectrum, len(samples)).astype(np.float32), PAIR_RATE))


def root_mean_square(samples: FloatArray) -> float:
    """The level of samples [N], 0 to 1."""
    return float(np.sqrt(np.mean(np.square(samples))))


def labelled_clips(folder: Path, split: str) -> Iterator[LabelledClip]:
    """The recordings of a split one by one, then pairs of them with common labels, each read when it is asked for."""
    recordings = read_collection(folder)
    chosen = select(recordings, split)
    for clip in chosen:
        yield LabelledClip((clip.label,), read_audio(folder / clip.path), (clip.source_repo,))
    for pair in common_pairs(recordings, chosen):
        yield join_row(folder, pair)


def calibration_clips(folder: Path, split: str) -> Iterator[LabelledClip]:
    """The labelled clips of a split, then pairs of its recordings from any two sources.

    Common labels are those that a model knows best; pairs of them alone would promise too much of other pairs.
    """
    yield from labelled_clips(folder, split)
    for pair in stranger_pairs(select(read_collection(folder), split)):
        yield join_row(folder, pair)
