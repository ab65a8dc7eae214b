"""Random views of recordings as mel spectrograms: what CLAP is trained on.

All augmentation happens in the mel domain, where it costs little: powers of simultaneous sounds add up, a filter is
a curve added to the bands, a distance is a gain. Item n of a training is drawn from (seed, n) alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enclap.audio.mel import FLOOR, MelFrontEnd
from enclap.data.recordings import Corpus
from enclap.files import replacement_path, write_whole
from enclap.training.recipe import Settings
from enclap.types import FloatArray

FLOOR_DB = float(10.0 * np.log10(FLOOR))


class Augmentation(Settings):
    """How far views stray from the recording; probabilities per view, decibels, or factors."""

    gain_db: float = 12.0
    reverberation: float = 0.2
    band_limit: float = 0.15
    equaliser_db: float = 5.0
    noise: float = 0.5
    stretch: float = 0.15
    pitch_bands: float = 2.0
    mixture: float = 0.35
    sequence: float = 0.15
    time_masks: int = 2
    band_masks: int = 2
    crop: float = 0.6
    placed: float = 0.3


@dataclass(frozen=True)
class MelBank:
    """Mel spectrograms of all recordings.

    mels: float16 dB [total frames, M]. starts: int64 [N + 1], where each recording begins. frames: of a view.
    """

    mels: NDArray[np.float16]
    starts: NDArray[np.int64]
    frames: int

    def mel(self, index: int) -> FloatArray:
        """Float32 dB [F, M] of one recording."""
        return self.mels[self.starts[index] : self.starts[index + 1]].astype(np.float32)


def open_mel_bank(corpus: Corpus, front_end: MelFrontEnd, cache: Path) -> MelBank:
    """The spectrograms of a corpus, computed once into `cache`."""
    data, index = cache / "mels.npy", cache / "mels.json"
    key = {"front_end": repr(front_end), "samples": int(corpus.starts[-1])}
    if not index.exists() or json.loads(index.read_text(encoding="utf-8"))["key"] != key:
        parts = [front_end.log_mel(corpus.audio(number)).astype(np.float16) for number in range(len(corpus))]
        with replacement_path(data) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(parts))
        write_whole(index, json.dumps({"key": key, "lengths": [len(part) for part in parts]}))
    lengths = json.loads(index.read_text(encoding="utf-8"))["lengths"]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return MelBank(np.load(data), starts, front_end.frames)


@dataclass(frozen=True)
class View:
    """A mel spectrogram, float32 dB [F, M], and what share each recording has in it.

    cut: where in the time, 0 to 1, the second recording takes over from the first; None where none does.
    """

    mel: FloatArray
    recordings: tuple[int, ...]
    shares: tuple[float, ...]
    cut: float | None = None


def draw_view(
    bank: MelBank, cumulative_weights: NDArray[np.float64], augmentation: Augmentation, generator: np.random.Generator
) -> View:
    """One view of a recording drawn by its weight, or of two of them.

    Two are laid over each other (mixup in power, arXiv 1710.09412) or follow each other.
    """
    first = int(np.searchsorted(cumulative_weights, generator.random()))
    kind = generator.random()
    if kind >= augmentation.mixture + augmentation.sequence:
        return View(
            finish_view(single_view(bank, first, augmentation, generator), augmentation, generator), (first,), (1.0,)
        )
    second = int(np.searchsorted(cumulative_weights, generator.random()))
    if kind < augmentation.mixture:
        mel, share = overlay(
            single_view(bank, first, augmentation, generator),
            single_view(bank, second, augmentation, generator),
            generator,
        )
    else:
        mel, share = follow(bank, first, second, augmentation, generator)
    cut = None if kind < augmentation.mixture else share
    return View(finish_view(mel, augmentation, generator), (first, second), (share, 1.0 - share), cut)


def single_view(bank: MelBank, index: int, augmentation: Augmentation, generator: np.random.Generator) -> FloatArray:
    """One recording, cropped, bent and set into the full length."""
    mel = _bend(_crop(bank.mel(index), bank.frames, augmentation.crop, generator), augmentation, generator)
    return fill_frames(mel, bank.frames, generator.random() < augmentation.placed, generator)


def _crop(mel: FloatArray, frames: int, smallest: float, generator: np.random.Generator) -> FloatArray:
    """A random segment of at most `frames` frames and at least `smallest` of what there is."""
    longest = min(len(mel), frames)
    length = max(1, int(longest * generator.uniform(smallest, 1.0)))
    start = int(generator.integers(0, len(mel) - length + 1))
    return mel[start : start + length]


def _bend(mel: FloatArray, augmentation: Augmentation, generator: np.random.Generator) -> FloatArray:
    """The spectrogram played a little faster or slower, a little higher or lower (linear interpolation)."""
    factor = 1.0 + augmentation.stretch * generator.uniform(-1.0, 1.0)
    frames = max(1, round(len(mel) * factor))
    mel = _resample_axis(mel, np.linspace(0.0, len(mel) - 1.0, frames))
    shift = augmentation.pitch_bands * generator.uniform(-1.0, 1.0)
    bands = mel.shape[1]
    return _resample_axis(mel.T, np.clip(np.arange(bands) + shift, 0.0, bands - 1.0)).T


def _resample_axis(values: FloatArray, positions: NDArray[np.float64]) -> FloatArray:
    """Rows of `values` at fractional positions."""
    low = np.floor(positions).astype(np.int64)
    high = np.minimum(low + 1, len(values) - 1)
    share = (positions - low).astype(np.float32)[:, None]
    between: FloatArray = values[low] * (1.0 - share) + values[high] * share
    return between


def fill_frames(mel: FloatArray, frames: int, placed: bool, generator: np.random.Generator) -> FloatArray:
    """Exactly `frames` frames: repeated as the front end repeats short clips, or placed once in silence."""
    mel = mel[:frames]
    result = np.full((frames, mel.shape[1]), FLOOR_DB, dtype=np.float32)
    if placed:
        start = int(generator.integers(0, frames - len(mel) + 1))
        result[start : start + len(mel)] = mel
        return result
    spaced = max(1, len(mel) - 1)  # centred frames: one more than the sound has hops
    repeats = max(1, (frames - 1) // spaced)
    repeated = np.concatenate([np.tile(mel[:spaced], (repeats, 1)), mel[spaced:]])
    result[: len(repeated)] = repeated
    return result


def overlay(first: FloatArray, second: FloatArray, generator: np.random.Generator) -> tuple[FloatArray, float]:
    """Two sounds at once, the first 0 to 10 dB louder or softer, and the first one's share of the label."""
    difference = generator.uniform(-10.0, 10.0)
    level = level_between(first, second) - difference
    share = 1.0 / (1.0 + 10.0 ** (-difference / 20.0))
    return add_powers(first, second + np.float32(level)), share


def level_between(first: FloatArray, second: FloatArray) -> float:
    """How many decibels the loud parts of the first view are above those of the second."""
    return float(np.percentile(first, 90) - np.percentile(second, 90))


_DB_PER_BIT = np.float32(10.0 * np.log10(2.0))


def add_powers(first: FloatArray, second: FloatArray) -> FloatArray:
    """Float32 dB of two simultaneous sounds, each given in dB."""
    total: FloatArray = np.logaddexp2(first / _DB_PER_BIT, second / _DB_PER_BIT) * _DB_PER_BIT
    return total


def follow(
    bank: MelBank, first: int, second: int, augmentation: Augmentation, generator: np.random.Generator
) -> tuple[FloatArray, float]:
    """One sound after the other, each for a part of the time."""
    cut = int(bank.frames * generator.uniform(0.3, 0.7))
    parts = [
        _bend(_crop(bank.mel(index), frames, augmentation.crop, generator), augmentation, generator)[:frames]
        for index, frames in ((first, cut), (second, bank.frames - cut))
    ]
    mel = np.full((bank.frames, parts[0].shape[1]), FLOOR_DB, dtype=np.float32)
    mel[: len(parts[0])] = parts[0]
    mel[cut : cut + len(parts[1])] = parts[1]
    return mel, cut / bank.frames


def finish_view(mel: FloatArray, augmentation: Augmentation, generator: np.random.Generator) -> FloatArray:
    """Filter, noise, gain and masks on the whole view."""
    frames, bands = mel.shape
    knots = generator.normal(0.0, augmentation.equaliser_db, 5)
    curve = np.interp(np.linspace(0.0, 4.0, bands), np.arange(5.0), knots).astype(np.float32)
    mel = mel + curve
    if generator.random() < augmentation.reverberation:
        mel = reverberate(mel, generator)
    if generator.random() < augmentation.noise:
        mel = add_noise(mel, generator)
    if generator.random() < augmentation.band_limit:
        mel = mel.copy()
        mel[:, int(generator.uniform(0.5, 0.95) * bands) :] -= np.float32(60.0)  # a lower sampling rate, a telephone
    mel = np.maximum(mel + np.float32(generator.uniform(-augmentation.gain_db, augmentation.gain_db)), FLOOR_DB)
    for count, length, axis in (
        (augmentation.time_masks, frames // 10, 0),
        (augmentation.band_masks, bands // 8, 1),
    ):
        mel = mask_stripes(mel, count, length, axis, generator)
    return mel.astype(np.float32, copy=False)


def reverberate(mel: FloatArray, generator: np.random.Generator) -> FloatArray:
    """The view in a room: each frame's power dies away over 0.2 to 1.5 s, faster in high bands.

    Polack's model of late reverberation: noise under an exponential, so that only powers need adding.
    """
    bands, frame = mel.shape[1], 0.02
    seconds = generator.uniform(0.2, 1.5) * np.linspace(1.0, generator.uniform(0.4, 1.0), bands)  # to -60 dB
    keep = (10.0 ** (-6.0 * frame / seconds)).astype(np.float32)
    wet = np.float32(10.0 ** (generator.uniform(-15.0, 0.0) / 10.0)) * (1.0 - keep)
    power = np.float32(10.0) ** (mel / np.float32(10.0))
    tail, tails = np.zeros(bands, dtype=np.float32), np.empty_like(power)
    for number, row in enumerate(power):
        tails[number] = tail
        tail = keep * tail + row
    reverberant: FloatArray = np.float32(10.0) * np.log10(power + wet * tails)
    return reverberant


def add_noise(mel: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Steady noise of a random colour, 10 to 45 dB under the loud parts."""
    frames, bands = mel.shape
    colour = np.linspace(0.0, generator.uniform(-25.0, 5.0), bands)
    level = np.percentile(mel, 90) - generator.uniform(10.0, 45.0)
    flutter = generator.normal(0.0, 1.5, (frames, bands))
    noise = (level + colour - colour.max() + flutter).astype(np.float32)
    return add_powers(mel, noise)


def mask_stripes(mel: FloatArray, count: int, longest: int, axis: int, generator: np.random.Generator) -> FloatArray:
    """Stripes set to the view's mean (SpecAugment, arXiv 1904.08779)."""
    mel = mel.copy()
    mean = mel.mean()
    for _ in range(count):
        length = int(generator.integers(0, longest + 1))
        start = int(generator.integers(0, mel.shape[axis] - length + 1))
        mel[(slice(None),) * axis + (slice(start, start + length),)] = mean
    return mel
