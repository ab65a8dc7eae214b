"""Composed scenes: recordings put together into audio whose true description is known.

A scene is drawn from (seed, number) alone. It holds one sound, two or three in order, two at once, or sounds over a
background, with random crops, levels, filters and noise; the description says what was put there, in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from enclap.data.grammar import SceneDescription, Sound
from enclap.data.lexicon import load_lexicon
from enclap.data.manifest import Corpus
from enclap.types import FloatArray, Waveform

LONGEST = 10.0
"""Seconds of a scene: one window."""
FADE = 0.01
"""Seconds over which cuts are faded."""
FFT_UNIT = 4_096
"""Spectra have a multiple of so many samples: lengths with large prime factors take ten times as long."""


@dataclass(frozen=True)
class SceneMix:
    """How often which kind of scene is drawn; what is left of 1 are single sounds."""

    order: float = 0.24
    together: float = 0.10
    background: float = 0.14
    three: float = 0.04

    def draw(self, generator: np.random.Generator) -> str:
        """A kind: order, together, background, three or single."""
        kinds = {
            "order": self.order,
            "together": self.together,
            "background": self.background,
            "three": self.three,
        }
        point = generator.random()
        for kind, chance in kinds.items():
            if point < chance:
                return kind
            point -= chance
        return "single"


@dataclass(frozen=True, eq=False)
class Scene:
    """Audio, what is in it, and the numbers of the recordings it was made of."""

    waveform: Waveform
    description: SceneDescription
    recordings: tuple[int, ...]


class SceneComposer:
    """Draws scenes from some of a corpus's recordings.

    weights: how often each recording is drawn within its label, by number; recordings without a weight are not used.
    Labels are drawn in proportion to count ** 0.7, so that rare ones are heard without drowning common ones.
    """

    def __init__(self, corpus: Corpus, weights: Mapping[int, float], mix: SceneMix, seed: int) -> None:
        self._corpus = corpus
        self._mix = mix
        self._seed = seed
        by_label: dict[str, list[int]] = defaultdict(list)
        for number in sorted(weights):
            by_label[corpus.recordings[number].label].append(number)
        self._by_label = {label: np.asarray(numbers) for label, numbers in by_label.items()}
        self._shares = {
            label: np.cumsum([weights[int(number)] for number in numbers]) / sum(weights[int(n)] for n in numbers)
            for label, numbers in self._by_label.items()
        }
        lexicon = load_lexicon()
        everything = sorted(self._by_label)
        self._all = _Choice(everything, self._by_label)
        self._backgrounds = _Choice([name for name in everything if lexicon.entries[name].continuous], self._by_label)

    def draw(self, number: int) -> Scene:
        """Scene `number`."""
        generator = np.random.default_rng((self._seed, number))
        kind = self._mix.draw(generator)
        if kind == "single":
            return self._single(generator)
        if kind == "together":
            return self._together(generator)
        if kind == "background":
            return self._over_background(generator)
        return self._in_order(generator, 3 if kind == "three" else 2)

    def _single(self, generator: np.random.Generator) -> Scene:
        label = self._all.draw(generator)
        number, audio = self._sound(label, LONGEST * generator.uniform(0.3, 1.0), generator)
        if generator.random() < 0.25:
            audio = self._pad(audio, LONGEST, generator)
        return self._finish(audio, [(label, number, 0.0, len(audio))], (), generator)

    def _in_order(self, generator: np.random.Generator, count: int) -> Scene:
        """Sounds one after the other with short pauses."""
        labels = self._distinct(self._all, count, generator)
        parts, placed, at = [], [], 0
        for label in labels:
            number, audio = self._sound(label, LONGEST / count * generator.uniform(0.45, 0.95), generator)
            pause = int(generator.uniform(0.0, 0.05) * LONGEST / count * self._corpus.rate)
            placed.append((label, number, at, at + len(audio)))
            parts += [audio, np.zeros(pause, dtype=np.float32)]
            at += len(audio) + pause
        return self._finish(np.concatenate(parts[:-1]), placed, (), generator)

    def _together(self, generator: np.random.Generator) -> Scene:
        """Two sounds that overlap for most of their time."""
        labels = self._distinct(self._all, 2, generator)
        seconds = LONGEST * generator.uniform(0.3, 1.0)
        sounds = [(label, *self._sound(label, seconds, generator)) for label in labels]
        length = max(len(audio) for _, _, audio in sounds)
        total, placed = np.zeros(length, dtype=np.float32), []
        for label, number, audio in sounds:
            start = int(generator.integers(0, length - len(audio) + 1))
            total[start : start + len(audio)] += audio
            placed.append((label, number, start, start + len(audio)))
        return self._finish(total, placed, (), generator)

    def _over_background(self, generator: np.random.Generator) -> Scene:
        """One or two sounds over a steady one that is 6 to 16 dB softer."""
        behind = self._backgrounds.draw(generator)
        count = 1 if generator.random() < 0.75 else 2
        front = self._distinct(self._all, count, generator, without=behind)
        number, background = self._sound(behind, LONGEST, generator)
        background = self._loop(background, int(LONGEST * generator.uniform(0.5, 1.0) * self._corpus.rate))
        background = background * np.float32(10.0 ** (-generator.uniform(6.0, 16.0) / 20.0))
        total, placed = background.copy(), []
        slot = len(total) // count
        for index, label in enumerate(front):
            source, audio = self._sound(label, slot / self._corpus.rate * generator.uniform(0.5, 1.0), generator)
            audio = audio[:slot]
            start = index * slot + int(generator.integers(0, slot - len(audio) + 1))
            total[start : start + len(audio)] += audio
            placed.append((label, source, start, start + len(audio)))
        return self._finish(total, placed, ((behind, number),), generator)

    def _distinct(
        self, choice: _Choice, count: int, generator: np.random.Generator, without: str | None = None
    ) -> list[str]:
        """Different labels of different families, so that a listener could tell them apart."""
        lexicon = load_lexicon()
        taken = set() if without is None else {lexicon.entries[without].family}
        labels: list[str] = []
        while len(labels) < count:
            label = choice.draw(generator)
            if lexicon.entries[label].family not in taken:
                labels.append(label)
                taken.add(lexicon.entries[label].family)
        return labels

    def _sound(self, label: str, seconds: float, generator: np.random.Generator) -> tuple[int, FloatArray]:
        """A recording of the label: its number, and a stretch of at most `seconds` with level and filter drawn."""
        row = int(np.searchsorted(self._shares[label], generator.random()))
        number = int(self._by_label[label][row])
        audio = _stretch(self._corpus, number, int(seconds * self._corpus.rate), generator)
        audio = _equalise(audio, generator)
        level = 10.0 ** (generator.uniform(-30.0, -16.0) / 20.0)
        return number, _fade(
            audio * np.float32(level / max(_loudness(audio, self._corpus.rate), 1e-5)), self._corpus.rate
        )

    def _pad(self, audio: FloatArray, seconds: float, generator: np.random.Generator) -> FloatArray:
        """The sound with silence before and after it."""
        room = int(seconds * self._corpus.rate) - len(audio)
        before, after = (int(generator.integers(0, room // 2 + 1)) if room > 0 else 0 for _ in range(2))
        return np.pad(audio, (before, after))

    def _loop(self, audio: FloatArray, length: int) -> FloatArray:
        """The sound repeated up to `length` samples."""
        return np.tile(audio, length // len(audio) + 1)[:length]

    def _finish(
        self,
        audio: FloatArray,
        placed: Sequence[tuple[str, int, float, float]],
        behind: Sequence[tuple[str, int]],
        generator: np.random.Generator,
    ) -> Scene:
        """Noise and limits on the whole, and the description of what is in it."""
        rate = self._corpus.rate
        audio = audio[: int(LONGEST * rate)]
        audio = _add_noise(audio, generator)
        peak = float(np.abs(audio).max())
        if peak > 1.0:
            audio = audio / np.float32(peak)
        sounds = [Sound(label, start / rate, end / rate) for label, _, start, end in placed]
        sounds += [Sound(label, 0.0, len(audio) / rate, background=True) for label, _ in behind]
        numbers = tuple(number for _, number, *_ in placed) + tuple(number for _, number in behind)
        return Scene(Waveform(audio.astype(np.float32, copy=False), rate), SceneDescription(tuple(sounds)), numbers)


class _Choice:
    """Labels drawn in proportion to count ** 0.7."""

    def __init__(self, labels: Sequence[str], by_label: Mapping[str, Sized]) -> None:
        self._labels = labels
        self._cumulative = np.cumsum([len(by_label[label]) ** 0.7 for label in labels])

    def draw(self, generator: np.random.Generator) -> str:
        """One label."""
        return self._labels[int(np.searchsorted(self._cumulative, generator.random() * self._cumulative[-1]))]


def _loudness(audio: FloatArray, rate: int) -> float:
    """Root mean square of the loudest 0.2 s."""
    size = max(1, min(len(audio), rate // 5))
    usable = len(audio) // size * size
    return float(np.sqrt(np.square(audio[:usable].reshape(-1, size)).mean(axis=1).max()))


def _stretch(corpus: Corpus, number: int, length: int, generator: np.random.Generator) -> FloatArray:
    """At most `length` samples of a recording: of four random stretches one within 10 dB of the loudest of them."""
    room = corpus.length(number) - length
    if room <= 0:
        return corpus.audio(number)
    stretches = [corpus.audio(number, int(start), length) for start in generator.integers(0, room + 1, 4)]
    levels = [_loudness(stretch, corpus.rate) for stretch in stretches]
    return next(stretch for stretch, level in zip(stretches, levels, strict=True) if level >= 0.3 * max(levels))


def _fade(audio: FloatArray, rate: int) -> FloatArray:
    """The sound with its first and last hundredth of a second faded."""
    size = min(len(audio) // 2, int(FADE * rate))
    ramp = np.linspace(0.0, 1.0, size, dtype=np.float32)
    audio = audio.copy()
    audio[:size] *= ramp
    audio[len(audio) - size :] *= ramp[::-1]
    return audio


def _equalise(audio: FloatArray, generator: np.random.Generator) -> FloatArray:
    """The sound through a smooth random filter of a few decibels, and sometimes a low-pass."""
    length = -(-len(audio) // FFT_UNIT) * FFT_UNIT
    spectrum = np.fft.rfft(audio, length)
    places = np.linspace(0.0, 1.0, len(spectrum)) ** 0.5  # knots closer together at low frequencies
    decibels = np.interp(places, np.linspace(0.0, 1.0, 6), generator.normal(0.0, 3.0, 6))
    if generator.random() < 0.2:
        decibels = decibels - 40.0 * np.clip((places - generator.uniform(0.4, 0.9)) * 6.0, 0.0, 1.0)
    filtered = np.fft.irfft(spectrum * (10.0 ** (decibels / 20.0)).astype(np.float32), length)
    return filtered[: len(audio)].astype(np.float32, copy=False)


def _add_noise(audio: FloatArray, generator: np.random.Generator) -> FloatArray:
    """The scene with a steady hiss 25 to 60 dB under its peak, in seven scenes of ten."""
    if generator.random() > 0.7:
        return audio
    level = float(np.abs(audio).max()) * 10.0 ** (-generator.uniform(25.0, 60.0) / 20.0)
    noise = generator.standard_normal(len(audio), dtype=np.float32)
    if generator.random() < 0.5:
        noise = np.convolve(noise, np.full(8, 8.0**-0.5, dtype=np.float32), mode="same")
    return audio + np.float32(level) * noise
