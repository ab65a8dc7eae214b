"""What benchmarks/search.py makes to be found: cuts, copies and composed recordings, and how it scores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import Recording

RATE = 32_000
LEVEL = 0.25
"""Of a softer copy: 12 dB down."""
CUT_SHARE = 0.5
"""Of a recording that a cut holds; from its second tenth on."""
SHORTEST_CUT = 1.0  # seconds
COPIES = ("mp3", "softer", "cut", "cut, softer, mp3")
GAP = (5.0, 20.0)  # seconds of soft noise between two sounds of a composed recording
FLOOR = 0.001


@dataclass(frozen=True, slots=True)
class Moment:
    """A sound in a composed recording: when it is heard, and its labels."""

    file: str
    start: float
    end: float
    labels: tuple[str, ...]


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """A file of 16-bit samples [N] at RATE."""
    return _encode(path, samples, "pcm_s16le", "s16", None)


def write_mp3(path: Path, samples: np.ndarray, bits: int = 96_000) -> Path:
    """An MP3 file of samples [N] at RATE. bits: each second."""
    return _encode(path, samples, "mp3", "s16p", bits)


def make_copies(folder: Path, recording: Recording, target: Path) -> dict[str, tuple[Path, float]]:
    """A file for each of COPIES that the recording is long enough for, with the seconds at which it begins there."""
    samples = resample(read_audio(folder / recording.path), RATE)
    start = len(samples) // 10
    cut = samples[start : start + round(CUT_SHARE * len(samples))]
    stem, offset = recording.path.replace("/", "-"), start / RATE
    made = {
        "mp3": (write_mp3(target / f"{stem}-copy.mp3", samples), 0.0),
        "softer": (write_wav(target / f"{stem}-softer.wav", LEVEL * samples), 0.0),
    }
    if len(cut) >= SHORTEST_CUT * RATE:
        made["cut"] = (write_wav(target / f"{stem}-cut.wav", cut), offset)
        made["cut, softer, mp3"] = (write_mp3(target / f"{stem}-cut.mp3", LEVEL * cut), offset)
    return made


def make_cuts(folder: Path, recording: Recording, target: Path, parts: int = 2) -> list[Path]:
    """So many parts of a recording that follow each other, as files."""
    samples = resample(read_audio(folder / recording.path), RATE)
    stem = recording.path.replace("/", "-")
    return [
        write_wav(target / f"{stem}-{number}.wav", part) for number, part in enumerate(np.array_split(samples, parts))
    ]


def make_moments(folder: Path, recordings: Sequence[Recording], target: Path, count: int, seed: int) -> list[Moment]:
    """Composed recordings of one to five minutes: sounds of the recordings one after the other over soft noise."""
    generator = np.random.default_rng(seed)
    moments = []
    for number in range(count):
        wanted, name = generator.uniform(60.0, 300.0), f"composed{number}.wav"
        parts: list[np.ndarray] = []
        length = 0
        while length < wanted * RATE:
            gap = np.zeros(round(generator.uniform(*GAP) * RATE), np.float32)
            recording = recordings[int(generator.integers(len(recordings)))]
            sound = resample(read_audio(folder / recording.path), RATE)[: 20 * RATE]
            start = length + len(gap)
            parts += [gap, sound]
            length = start + len(sound)
            moments.append(Moment(name, start / RATE, length / RATE, recording.labels))
        samples = np.concatenate(parts)
        write_wav(target / name, samples + FLOOR * generator.normal(size=len(samples)).astype(np.float32))
    return moments


def overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Intersection over union of two spans."""
    shared = min(first[1], second[1]) - max(first[0], second[0])
    return max(0.0, shared) / (max(first[1], second[1]) - min(first[0], second[0]))


def average_precision(relevant: Iterable[bool], total: int, first: int) -> float:
    """Of a ranking's first hits: precision at each relevant one, over as many as there can be."""
    found, precisions = 0, 0.0
    for rank, is_relevant in enumerate(list(relevant)[:first], start=1):
        if is_relevant:
            found += 1
            precisions += found / rank
    return precisions / min(total, first)


def span_precision(
    hits: Sequence[tuple[str, float, float]], truth: Sequence[Moment], least: float, first: int
) -> float:
    """Average precision of spans (file, start, end): each true one is found once, by a hit that overlaps it so far."""
    left, relevant = list(truth), []
    for file, start, end in hits[:first]:
        found = next((m for m in left if m.file == file and overlap((m.start, m.end), (start, end)) >= least), None)
        relevant.append(found is not None)
        if found is not None:
            left.remove(found)
    return average_precision(relevant, len(truth), first)


def fit_curve(values: np.ndarray, correct: np.ndarray, steps: int = 100) -> tuple[tuple[float, ...], float]:
    """Weights and offset of the logistic curve of `correct` [N] over `values` [N, K], by Newton's method.

    The targets are Platt's, a little inside 0 and 1.
    """
    design = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    positives = correct.sum()
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (len(correct) - positives + 2.0)
    targets, weights = np.where(correct > 0.5, high, low), np.zeros(design.shape[1])
    for _ in range(steps):
        probability = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30.0, 30.0)))
        curvature = (design * (probability * (1.0 - probability))[:, None]).T @ design
        weights += np.linalg.solve(curvature + 1e-6 * np.eye(len(weights)), design.T @ (targets - probability))
    return tuple(float(weight) for weight in weights[:-1]), float(weights[-1])


def _encode(path: Path, samples: np.ndarray, codec: str, layout: str, bits: int | None) -> Path:
    pcm = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        if bits is not None:
            stream.bit_rate = bits  # type: ignore[attr-defined]
        frame = av.AudioFrame.from_ndarray(pcm[None], format=layout, layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):  # type: ignore[attr-defined]
            container.mux(packet)
    return path
