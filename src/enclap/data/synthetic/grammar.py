"""One English sentence for a scene of one to a few labelled sounds.

The inventory is small on purpose: a caption model of a few million parameters learns it, and the first phrase
and the first frame of each kind are drawn most of the time, so that beam search has one clear favourite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from enclap.data.synthetic.lexicon import Entry, load_lexicon

MAX_WORDS = 20  # longest caption, in words
MAX_SOUNDS = 3  # sounds in one sentence
FIRST_SHARE = 0.7  # how often the preferred phrase or frame is drawn
OVERLAP_SHARE = 0.5  # sounds are simultaneous when they share at least this part of the shorter one

SEQUENCES = (
    "{0}, and then {1}",
    "{0}, then {1}",
    "{0} before {1}",
    "first {0}, and then {1}",
    "{0}, followed by {p1}",
    "{0}, and a moment later {1}",
)
SEQUENCES_OF_GROUPS = SEQUENCES[:2]
SEQUENCES_OF_THREE = ("{0}, then {1}, and then {2}", "first {0}, then {1}, and finally {2}")
TOGETHER = (
    "{0} while {1}",
    "{0} as {1}",
    "{0} and {1} at the same time",
    "{0} with {p1}",
    "{0} along with {p1}",
)
TOGETHER_CROWDED = TOGETHER[:2]
TOGETHER_OF_THREE = ("{0} while {1} and {2}", "{0} as {1} and {2}")
BACKGROUNDS = (
    "{0} while {1} in the background",
    "{0} with {p1} in the background",
    "{0} as {1} in the background",
    "{0} over the sound of {n1}",
)
BACKGROUNDS_OF_SEVERAL = (BACKGROUNDS[1], BACKGROUNDS[3])
FAR = "in the distance"
ECHO = "in an echoing room"
TIMES = {2: "twice", 3: "three times"}
OFTEN = "several times"
PROGRESSIVE = re.compile(r"\b(?:is|are) \w+ing\b")
FAR_WORDS = ("distance", "distant", "far")


@dataclass(frozen=True, slots=True)
class Sound:
    """One sound of a scene.

    label: a label of the lexicon. start, end: seconds. background: steady, under the others. distant: far away.
    repetitions: how often it occurs; only said of sounds of which "several times" makes sense. vague: named by its
    family alone ("metal clangs"), because nobody could know more.
    """

    label: str
    start: float
    end: float
    background: bool = False
    distant: bool = False
    repetitions: int = 1
    vague: bool = False


@dataclass(frozen=True, slots=True)
class SceneDescription:
    """The sounds of a scene in any order; times decide what is said first and what is simultaneous.

    echoing: in a room that resounds for long; said of a sound that is alone and does not go on.
    """

    sounds: tuple[Sound, ...]
    echoing: bool = False


@dataclass(frozen=True, slots=True)
class _Style:
    """How freely and how fully a scene is described; `choose` draws an index below its argument."""

    choose: Callable[[int], int]
    shortest: bool = False
    distances: bool = True
    repetitions: bool = True


def describe(scene: SceneDescription, rng: np.random.Generator) -> str:
    """A sentence for the scene, at most 20 words, capital first letter, full stop; wording drawn from `rng`.

    Raises ValueError for a scene without sounds and KeyError for a label that the lexicon lacks.
    """

    def choose(count: int) -> int:
        if count == 1 or rng.random() < FIRST_SHARE:
            return 0
        return int(rng.integers(1, count))

    return _sentence(scene, choose)


def canonical(scene: SceneDescription) -> str:
    """The preferred sentence for the scene: `describe` with the first choice everywhere."""
    return _sentence(scene, lambda count: 0)


def label_texts(label: str) -> list[str]:
    """Short texts for one label, for contrast with audio: clauses, participles, noun phrases, the label."""
    entry = load_lexicon()[label]
    return list(dict.fromkeys((*entry.clauses, *entry.sentences, *entry.participles, *entry.nouns, entry.label)))


def all_phrases() -> list[str]:
    """Every phrase and frame as a sentence, to train a tokenizer or a text tower on; no duplicates."""
    lexicon = load_lexicon()
    texts: list[str] = []
    for entry in lexicon.entries.values():
        texts += [finish(clause) for clause in (*entry.clauses, *entry.sentences)]
        tails = [*TIMES.values(), OFTEN, FAR, ECHO] if entry.repeatable else [FAR]
        texts += [finish(f"{entry.clauses[0]} {tail}") for tail in tails]
        texts += [finish(phrase) for phrase in (*entry.participles, *entry.nouns)]
        texts += [finish(_fill(frame, [lexicon["dog barking"], entry])) for frame in (*SEQUENCES, *TOGETHER)]
        if entry.continuous:
            texts += [finish(_fill(frame, [lexicon["dog barking"], entry])) for frame in BACKGROUNDS]
    texts += [finish(text) for family in lexicon.families.values() for text in (family.clause, family.participle)]
    return list(dict.fromkeys(texts))


def finish(text: str) -> str:
    """The text as a sentence: first letter in upper case, one full stop at the end."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _fill(frame: str, entries: Sequence[Entry]) -> str:
    """The frame with the preferred phrases of the entries."""
    clauses = [entry.clauses[0] for entry in entries]
    return frame.format(*clauses, p1=entries[1].participles[0], n1=entries[1].nouns[0])


def _sentence(scene: SceneDescription, choose: Callable[[int], int]) -> str:
    """The scene in words; while it is too long, plainer styles, then fewer sounds."""
    if not scene.sounds:
        raise ValueError("a scene without sounds cannot be described; give it at least one sound")
    sounds = sounds_to_name(scene.sounds)
    free = _Style(choose)
    plain = _Style(lambda count: 0, shortest=True)
    plainer = replace(plain, distances=False)
    styles = (free, plain, plainer, replace(plainer, repetitions=False))
    for count in range(len(sounds), 0, -1):
        for style in styles:
            text = _compose(sounds[:count], style) if len(scene.sounds) > 1 else _alone(scene, style)
            if len(text.split()) <= MAX_WORDS:
                return finish(text)
    raise AssertionError(f"no sentence of {MAX_WORDS} words for {sounds[0].label!r}")


def sounds_to_name(sounds: Sequence[Sound]) -> list[Sound]:
    """At most three sounds, foreground first; sounds that share a phrase become one that is repeated."""
    chosen: list[Sound] = []
    for sound in sorted(sounds, key=lambda sound: (sound.background, sound.start, sound.end)):
        clauses = set(_clauses(sound))
        index = next((i for i, other in enumerate(chosen) if not clauses.isdisjoint(_clauses(other))), None)
        if index is None:
            chosen.append(sound)
        elif chosen[index].background == sound.background:
            earlier = chosen[index]
            chosen[index] = replace(
                earlier,
                end=max(earlier.end, sound.end),
                distant=earlier.distant and sound.distant,
                repetitions=earlier.repetitions + sound.repetitions,
            )
    return chosen[:MAX_SOUNDS]


def _clauses(sound: Sound) -> tuple[str, ...]:
    lexicon = load_lexicon()
    entry = lexicon[sound.label]
    return (lexicon.families[entry.family].clause,) if sound.vague else entry.clauses


def _participles(sound: Sound) -> tuple[str, ...]:
    lexicon = load_lexicon()
    entry = lexicon[sound.label]
    return (lexicon.families[entry.family].participle,) if sound.vague else entry.participles


def _alone(scene: SceneDescription, style: _Style) -> str:
    """A full sentence for the one sound of a scene; a short clause where something is to be added to it."""
    [sound] = scene.sounds
    entry = load_lexicon()[sound.label]
    if scene.echoing and not entry.continuous and not sound.distant:
        return f"{_clause(sound, style)} {ECHO}"
    if style.shortest or sound.vague or sound.distant or (entry.repeatable and sound.repetitions > 1):
        return _clause(sound, style)
    return _pick(entry.sentences, style)


def _compose(sounds: Sequence[Sound], style: _Style) -> str:
    front = [sound for sound in sounds if not sound.background] or list(sounds)
    background = [sound for sound in sounds if sound not in front]
    text = _sequence(simultaneous_groups(front), style, crowded=bool(background))
    if not background:
        return text
    frames = BACKGROUNDS if len(front) == 1 else BACKGROUNDS_OF_SEVERAL
    clauses, participles, nouns = (
        " and ".join(phrase(sound, style) for sound in background) for phrase in (_clause, _participle, _noun)
    )
    frame = frames[style.choose(len(frames))]
    if not set(FAR_WORDS).isdisjoint(clauses.split()):  # thunder "in the distance" is not put "in the background" too
        frame = frame.removesuffix(" in the background")
    return frame.format(text, clauses, p1=participles, n1=nouns)


def _sequence(groups: Sequence[Sequence[Sound]], style: _Style, crowded: bool) -> str:
    """The groups one after the other; `crowded` when a background follows in the same sentence."""
    if len(groups) == 1:
        return _together(groups[0], style, crowded)
    texts = [_together(group, style, crowded=True) for group in groups]
    if len(groups) > 2:
        return SEQUENCES_OF_THREE[style.choose(len(SEQUENCES_OF_THREE))].format(*texts)
    alone = all(len(group) == 1 for group in groups)
    frames = SEQUENCES if alone else SEQUENCES_OF_GROUPS
    return frames[style.choose(len(frames))].format(*texts, p1=_participle(groups[1][0], style))


def _together(group: Sequence[Sound], style: _Style, crowded: bool) -> str:
    """The sounds of a group at once; a crowded sentence keeps to "while" and "as", whose reach is clear."""
    clauses = [_clause(sound, style) for sound in group]
    if len(group) == 1:
        return clauses[0]
    if len(group) > 2:
        return TOGETHER_OF_THREE[style.choose(len(TOGETHER_OF_THREE))].format(*clauses)
    frames = TOGETHER_CROWDED if crowded else TOGETHER
    return frames[style.choose(len(frames))].format(*clauses, p1=_participle(group[1], style))


def simultaneous_groups(sounds: Sequence[Sound]) -> list[list[Sound]]:
    """Sounds in order of start; neighbours that overlap by half of the shorter one share a group."""
    groups: list[list[Sound]] = []
    for sound in sounds:
        if groups and any(overlaps(sound, other) for other in groups[-1]):
            groups[-1].append(sound)
        else:
            groups.append([sound])
    return groups


def overlaps(one: Sound, other: Sound) -> bool:
    """Whether two sounds share at least half of the shorter one's time."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    shorter = min(one.end - one.start, other.end - other.start)
    return shared > 0 and shared >= OVERLAP_SHARE * shorter


def _clause(sound: Sound, style: _Style) -> str:
    """A finite clause for the sound, with how often and how far away it occurs."""
    return _with_tails(sound, _clauses(sound), style)


def _participle(sound: Sound, style: _Style) -> str:
    """Noun and -ing form for the sound, with how often and how far away it occurs."""
    return _with_tails(sound, _participles(sound), style)


def _noun(sound: Sound, style: _Style) -> str:
    return _pick(_participles(sound) if sound.vague else load_lexicon()[sound.label].nouns, style)


def _with_tails(sound: Sound, phrases: Sequence[str], style: _Style) -> str:
    entry = load_lexicon()[sound.label]
    repeated = style.repetitions and entry.repeatable and sound.repetitions > 1
    if repeated:  # "there is a crash twice" is no English, "something crashes twice" is
        phrases = [phrase for phrase in phrases if takes_adverb(phrase)] or phrases
    parts = [_pick(phrases, style)]
    if repeated and takes_adverb(parts[0]):
        parts.append(TIMES.get(sound.repetitions, OFTEN))
    far = sound.distant and style.distances and not sound.background
    if far and not any(word in parts[0].split() for word in FAR_WORDS):
        parts.append(FAR)
    return " ".join(parts)


def takes_adverb(phrase: str) -> bool:
    """Whether "twice" may follow: not after "there is a crash", and "a dog is barking twice" is no English."""
    return not phrase.startswith("there is ") and not PROGRESSIVE.search(phrase)


def _pick(phrases: Sequence[str], style: _Style) -> str:
    if style.shortest:
        return min(phrases, key=lambda phrase: len(phrase.split()))
    return phrases[style.choose(len(phrases))]
