"""Composed scenes: recordings put together into audio whose true description is known.

A scene is drawn from (seed, number) alone. It holds one sound, two or three in order, two at once, a sound under speech
or music, or sounds over a background, near or far, once or repeatedly, in a room or not, with random crops, levels,
filters and noise; the description says what is audible, in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import dataclass, replace

import numpy as np

from enclap.data.recordings import Corpus
from enclap.data.synthetic.acoustics import add_noise, equalise, fade, loudness, move_away, reverberate
from enclap.data.synthetic.grammar import SceneDescription, Sound
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.errors import DataError
from enclap.types import FloatArray, Waveform

LONGEST = 10.0
"""Seconds of a scene: one window."""
MOST_SOUNDS = 3
"""Sounds in a scene, all of different families."""
ROOMS, DISTANT, REPEATED = 0.25, 0.07, 0.35
"""How often a scene is in a room, a sound is far away, a short sound is repeated."""
AUDIBLE_ECHO, AUDIBLE_WET = 0.8, 0.25
"""Seconds that a room resounds, and its part of the sound, from which on a listener notices the room."""
GOING_ON = 0.3
"""How often a filled scene is continued by silence to the end of a window."""
INAUDIBLE = 0.22
"""A sound whose loudest part is softer than this part of what covers it (-13 dB) is not described."""
COVERS = ("speech", "music")
"""Families of the sounds that cover others in real recordings; each covers half of the covered scenes."""
COVERED_DECIBELS = (-3.0, 13.0)
"""How far below what covers it a covered sound is, least and most."""
RARITY = 0.6
"""Labels are drawn in proportion to their number of recordings to this power."""


@dataclass(frozen=True)
class SceneMix:
    """How often which kind of scene is drawn; what is left of 1 are single sounds.

    filled: scenes like the windows of a long recording: sounds in order have equal parts of the scene, instead of
    following each other closely, and half of the scenes, of whatever kind, last a whole window, so that the length does
    not give the kind away. longest: seconds of a scene.
    """

    order: float = 0.20
    together: float = 0.12
    background: float = 0.10
    covered: float = 0.10
    three: float = 0.06
    filled: bool = False
    longest: float = LONGEST

    def draw(self, generator: np.random.Generator) -> str:
        """A kind: order, together, background, covered, three or single."""
        kinds = {
            "order": self.order,
            "together": self.together,
            "background": self.background,
            "covered": self.covered,
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
    Labels are drawn in proportion to count ** RARITY, so that rare ones occur without crowding out common ones. The
    labels that `known` lacks are described by their families alone (None: all labels are known). companions: labels of
    what else sounds in the whole of a recording, by number. DataError when the recordings have too few kinds of sounds
    for such scenes.
    """

    def __init__(
        self,
        corpus: Corpus,
        weights: Mapping[int, float],
        mix: SceneMix,
        seed: int,
        known: Collection[str] | None = None,
        companions: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self._known = known
        self._companions = companions or {}
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
        by_family = {family: [name for name in everything if lexicon[name].family == family] for family in COVERS}
        self._covers = [_Choice(names, self._by_label) for names in by_family.values() if names]
        families = {lexicon[name].family for name in everything}
        if len(families) < MOST_SOUNDS:  # or a scene would look for another family for ever
            raise DataError(f"sounds of {len(families)} families; scenes need recordings of {MOST_SOUNDS} or more")
        if mix.background > 0 and not self._backgrounds:
            raise DataError("no continuous sound (rain, an engine) among the recordings; scenes need one as background")
        if mix.covered > 0 and not self._covers:
            raise DataError(f"no {' or '.join(COVERS)} among the recordings; scenes need some to cover other sounds")

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
        if kind == "covered":
            return self._covered(generator)
        return self._in_order(generator, 3 if kind == "three" else 2)

    def _single(self, generator: np.random.Generator) -> Scene:
        label = self._all.draw(generator)
        take = self._sound(label, self._mix.longest * self._part(generator, 0.3), generator)
        if self._mix.filled and load_lexicon()[label].continuous and generator.random() < 0.5:
            take = replace(take, audio=np.resize(take.audio, int(self._mix.longest * self._corpus.rate)))
        before = after = 0
        if generator.random() < 0.25:
            room = max(0, int(self._mix.longest * self._corpus.rate) - len(take.audio))
            before, after = (int(generator.integers(0, room // 2 + 1)) for _ in range(2))
        placed = _Placed(take, before)
        scene = self._finish([placed], before + len(take.audio) + after, None, generator)
        if take.distant:
            return scene
        others = tuple(
            replace(placed.sound(self._corpus.rate), label=name, repetitions=1, background=True)
            for name in self._companions.get(take.number, ())
        )
        described = replace(scene.description, sounds=(*scene.description.sounds, *others))
        return replace(scene, description=described)

    def _in_order(self, generator: np.random.Generator, count: int) -> Scene:
        """Sounds one after the other with pauses, most of them short."""
        labels = self._distinct(self._all, count, generator)
        if self._mix.filled:
            return self._in_equal_parts(labels, generator)
        placed, at = [], 0
        for label in labels:
            take = self._sound(label, self._mix.longest / count * generator.uniform(0.45, 0.9), generator)
            placed.append(_Placed(take, at))
            pause = generator.uniform(0.0, 0.05) if generator.random() < 0.7 else generator.uniform(0.0, 0.1)
            at += len(take.audio) + int(pause * self._mix.longest / count * self._corpus.rate)
        return self._finish(placed, placed[-1].start + len(placed[-1].take.audio), None, generator)

    def _in_equal_parts(self, labels: Sequence[str], generator: np.random.Generator) -> Scene:
        """Sounds one after the other, each in its part of the scene."""
        seconds = self._mix.longest * self._part(generator, 0.55) / len(labels)
        part = int(seconds * self._corpus.rate)
        takes = [self._sound(label, seconds * generator.uniform(0.85, 1.0), generator) for label in labels]
        placed = [
            _Placed(take, number * part + int(generator.integers(0, max(1, part - len(take.audio)) // 3 + 1)))
            for number, take in enumerate(takes)
        ]
        return self._finish(placed, len(labels) * part, None, generator)

    def _part(self, generator: np.random.Generator, least: float) -> float:
        """Which part of a window a scene lasts, at least `least`; in filled scenes, half of the time all of it."""
        if self._mix.filled and generator.random() < 0.5:
            return 1.0
        return float(generator.uniform(least, 1.0))

    def _together(self, generator: np.random.Generator) -> Scene:
        """Two sounds that overlap for most of their time."""
        labels = self._distinct(self._all, 2, generator)
        seconds = self._mix.longest * self._part(generator, 0.3)
        takes = [self._sound(label, seconds, generator) for label in labels]
        length = max(len(take.audio) for take in takes)
        placed = [_Placed(take, int(generator.integers(0, length - len(take.audio) + 1))) for take in takes]
        return self._finish(placed, length, None, generator)

    def _covered(self, generator: np.random.Generator) -> Scene:
        """A sound under speech or music that is as loud or up to 13 dB louder, and goes on for the whole scene."""
        cover = self._covers[int(generator.integers(len(self._covers)))].draw(generator)
        [label] = self._distinct(self._all, 1, generator, without=cover)
        length = int(self._mix.longest * self._part(generator, 0.4) * self._corpus.rate)
        over = replace(self._sound(cover, self._mix.longest, generator), distant=False, repetitions=1)
        over = replace(over, audio=np.resize(over.audio, length))
        under = self._sound(label, length / self._corpus.rate, generator)
        softer = 10.0 ** (-generator.uniform(*COVERED_DECIBELS) / 20.0)
        level = softer * loudness(over.audio, self._corpus.rate) / max(loudness(under.audio, self._corpus.rate), 1e-5)
        under = replace(under, audio=under.audio * np.float32(level), distant=False)
        start = int(generator.integers(0, max(1, length - len(under.audio) + 1)))
        return self._finish([_Placed(over, 0), _Placed(under, start)], length, None, generator)

    def _over_background(self, generator: np.random.Generator) -> Scene:
        """One or two sounds over a steady one that is 6 to 16 dB softer."""
        steady = self._backgrounds.draw(generator)
        count = 1 if generator.random() < 0.75 else 2
        front = self._distinct(self._all, count, generator, without=steady)
        length = int(self._mix.longest * self._part(generator, 0.5) * self._corpus.rate)
        background = self._sound(steady, self._mix.longest, generator)
        softer = np.float32(10.0 ** (-generator.uniform(6.0, 16.0) / 20.0))
        background = replace(background, audio=np.resize(background.audio, length) * softer)
        placed, slot = [], length // count
        for index, label in enumerate(front):
            take = self._sound(label, slot / self._corpus.rate * generator.uniform(0.5, 1.0), generator)
            take = replace(take, audio=take.audio[:slot])
            placed.append(_Placed(take, index * slot + int(generator.integers(0, slot - len(take.audio) + 1))))
        return self._finish(placed, length, background, generator)

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

    def _sound(self, label: str, seconds: float, generator: np.random.Generator) -> _Take:
        """A recording of the label, at most `seconds` of it, near or far, once or repeatedly, at a drawn level."""
        rate = self._corpus.rate
        row = int(np.searchsorted(self._shares[label], generator.random()))
        number = int(self._by_label[label][row])
        audio = fade(equalise(random_segment(self._corpus, number, int(seconds * rate), generator), generator), rate)
        repetitions = 1
        if load_lexicon()[label].repeatable and generator.random() < REPEATED:
            audio, repetitions = repeat(audio, int(seconds * rate), int(generator.uniform(0.2, 0.8) * rate), generator)
        distant = generator.random() < DISTANT
        if distant:
            audio = move_away(audio, rate, generator)
        decibels = generator.uniform(-30.0, -16.0) - (generator.uniform(6.0, 12.0) if distant else 0.0)
        level = np.float32(10.0 ** (decibels / 20.0) / max(loudness(audio, rate), 1e-5))
        return _Take(label, number, audio * level, distant, repetitions)

    def _finish(
        self, placed: Sequence[_Placed], length: int, background: _Take | None, generator: np.random.Generator
    ) -> Scene:
        """The sum of the sounds with room, noise and limits, and the description of what is audible in it."""
        rate = self._corpus.rate
        longest = int(self._mix.longest * rate)
        length = min(length, longest)
        total = np.zeros(length, np.float32) if background is None else background.audio[:length].copy()
        for item in placed:
            total[item.start : item.start + len(item.take.audio)] += item.take.audio[: length - item.start]
        sounds = []
        for item in placed:
            part = total[item.start : item.start + len(item.take.audio)]
            own = item.take.audio[: len(part)]
            if loudness(own, rate) >= INAUDIBLE * loudness(part - own, rate):  # it stands out from what covers it
                sounds.append(item.sound(rate))
        numbers = [item.take.number for item in placed]
        if background is not None:
            sounds.append(Sound(background.label, 0.0, length / rate, background=True, distant=background.distant))
            numbers.append(background.number)
        echoing = False
        if generator.random() < ROOMS:
            seconds, wet = generator.uniform(0.2, 1.2), 10.0 ** (-generator.uniform(0.3, 1.5))
            total = reverberate(total, rate, seconds, wet)
            echoing = seconds >= AUDIBLE_ECHO and wet >= AUDIBLE_WET
        if self._mix.filled and generator.random() < GOING_ON:
            total = np.pad(total, (0, longest - length))
        audio = add_noise(total, generator)
        peak = float(np.abs(audio).max())
        if peak > 1.0:
            audio = audio / np.float32(peak)
        known = self._known
        if known is not None:
            sounds = [sound if sound.label in known else replace(sound, vague=True) for sound in sounds]
        description = SceneDescription(tuple(sounds), echoing)
        return Scene(Waveform(audio.astype(np.float32, copy=False), rate), description, tuple(numbers))


@dataclass(frozen=True, eq=False)
class _Take:
    """A recording as one scene uses it. number: of the recording. audio: float32 [N] at the corpus's rate."""

    label: str
    number: int
    audio: FloatArray
    distant: bool
    repetitions: int


@dataclass(frozen=True, eq=False)
class _Placed:
    """A take and the sample of the scene where it starts."""

    take: _Take
    start: int

    def sound(self, rate: int) -> Sound:
        """How the description names it."""
        take = self.take
        end = (self.start + len(take.audio)) / rate
        return Sound(take.label, self.start / rate, end, distant=take.distant, repetitions=take.repetitions)


def repeat(audio: FloatArray, longest: int, pause: int, generator: np.random.Generator) -> tuple[FloatArray, int]:
    """The sound up to four times with pauses, as often as `longest` samples hold, and how often."""
    fits = min(4, (longest + pause) // (len(audio) + pause))
    if fits < 2:
        return audio, 1
    count = int(generator.integers(2, fits + 1))
    gap = np.zeros(pause, dtype=np.float32)
    parts = [part for _ in range(count) for part in (audio, gap)]
    return np.concatenate(parts[:-1]), count


class _Choice:
    """Labels drawn in proportion to count ** RARITY."""

    def __init__(self, labels: Sequence[str], by_label: Mapping[str, Sized]) -> None:
        self._labels = labels
        self._cumulative = np.cumsum([len(by_label[label]) ** RARITY for label in labels])

    def __len__(self) -> int:
        return len(self._labels)

    def draw(self, generator: np.random.Generator) -> str:
        """One label."""
        return self._labels[int(np.searchsorted(self._cumulative, generator.random() * self._cumulative[-1]))]


def random_segment(corpus: Corpus, number: int, length: int, generator: np.random.Generator) -> FloatArray:
    """At most `length` samples of a recording: of four random segments one within 10 dB of the loudest of them."""
    room = corpus.length(number) - length
    if room <= 0:
        return corpus.audio(number)
    segments = [corpus.audio(number, int(start), length) for start in generator.integers(0, room + 1, 4)]
    levels = [loudness(segment, corpus.rate) for segment in segments]
    return next(segment for segment, level in zip(segments, levels, strict=True) if level >= 0.3 * max(levels))
