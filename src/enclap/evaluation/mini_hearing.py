"""How well a model hears mini's recordings: alone and in pairs, and what each of its inputs adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from enclap.captioner import Captioner
from enclap.data.recordings import MANIFEST, Recording, read_collection, read_manifest
from enclap.data.splits import select
from enclap.decoding.options import DecodingOptions
from enclap.decoding.ranking import repeats_phrase
from enclap.engines.base import Engine
from enclap.evaluation.baselines import compare_with_baselines, score_named
from enclap.evaluation.hearing import FAMILY_NAMED, ORDER_CORRECT, SOUND_NAMED, WORDS_READ, Hearing, mentions_label
from enclap.evaluation.sound_pairs import (
    BANDS,
    COMMON_LABELS,
    COVER_FAMILIES,
    LEVELS,
    LabelledClip,
    common_pairs,
    cover_clip,
    draw_covers,
    esc_pairs,
    esc_threes,
    join_row,
    limit_band,
)
from enclap.evaluation.wording import PHRASE_WORDS, is_unfinished, words_of
from enclap.types import Features, Window, embedding_of

ESC = "ESC-10: the caption names the sound"
NAMED = "all labels of the first collection: named, mean over labels"
FAMILY = "all labels of the first collection: named or family named, mean over labels"
LATER_NAMED = "all labels of the later collection: named, mean over labels"
LATER_FAMILY = "all labels of the later collection: named or family named, mean over labels"
ESC_PAIRS = "two ESC-10 sounds in order: both named"
COMMON_PAIRS = f"two sounds of the {COMMON_LABELS} commonest labels: both named"
ORDER = "{}, of those: order right"
THREE = "three ESC-10 sounds in a window: named on average, of 3"
COVERED = "ESC-10 under {}, {:.0f} dB beside it: the sound named"
BANDED = "ESC-10, {}: the caption names the sound"
FAULTY = "captions with a repeated phrase or without an end"
LENGTH = "words of a caption, mean"
VOCABULARY = "different words in the captions of all ESC-10 clips and the split"
ONCE = "different labels named at least once on their recordings"


@dataclass(frozen=True, slots=True)
class Figure:
    """A share, 0 to 1, over so many items, beside its baselines where these mean something; see `Comparison`.

    number: whether the value is a number of its own, no share.
    """

    value: float
    items: int
    shuffled: float | None = None
    constant: float | None = None
    number: bool = False


@dataclass(frozen=True, slots=True)
class LabelledCaption:
    """A caption and the labels of the sounds that it is about, in order of time."""

    labels: tuple[str, ...]
    text: str

    @property
    def names_all(self) -> bool:
        """Whether it names all labels."""
        return score_named(Hearing().score([self.text], [self.labels]), SOUND_NAMED).value == 1.0


@dataclass(frozen=True, slots=True)
class HearingReport:
    """All figures by what they say, in the order of a table, and the captions that they were read off."""

    figures: Mapping[str, Figure]
    captions: Sequence[LabelledCaption]


def measure_hearing(captioner: Captioner, folder: Path, split: str) -> HearingReport:
    """How often the captions of a split's recordings in `folder` name what can be heard."""
    collection, first = read_collection(folder), read_manifest(folder / MANIFEST)
    chosen, paths = select(collection, split), {recording.path for recording in first}
    captions = caption_recordings(captioner, folder, chosen)
    early = [caption for caption, clip in zip(captions, chosen, strict=True) if clip.path in paths]
    later = [caption for caption, clip in zip(captions, chosen, strict=True) if clip.path not in paths]
    classes = [caption for caption, clip in zip(captions, chosen, strict=True) if clip.fold is not None]
    figures = {
        ESC: _compared(classes, Hearing(), SOUND_NAMED),
        NAMED: _compared(early, Hearing(over_labels=True), SOUND_NAMED),
        FAMILY: _compared(early, Hearing(over_labels=True), FAMILY_NAMED),
    }
    if later:
        figures[LATER_NAMED] = _compared(later, Hearing(over_labels=True), SOUND_NAMED)
        figures[LATER_FAMILY] = _compared(later, Hearing(over_labels=True), FAMILY_NAMED)
    figures[ONCE] = Figure(float(len({item.labels for item in captions if item.names_all})), len(captions), number=True)
    old = [recording for recording in chosen if recording.path in paths]
    for name, pairs in ((ESC_PAIRS, esc_pairs(old)), (COMMON_PAIRS, common_pairs(first, old))):
        found = caption_clips(captioner, [join_row(folder, pair) for pair in pairs])
        figures |= {name: _compared(found, Hearing(), SOUND_NAMED), ORDER.format(name): _order(found)}
        captions = [*captions, *found]
    threes = caption_clips(captioner, [join_row(folder, row) for row in esc_threes(old)])
    captions = [*captions, *threes]
    counts = [sum(mentions_label(item.text, label) for label in item.labels) for item in threes]
    figures[THREE] = Figure(float(np.mean(counts)), len(counts), number=True)
    figures |= measure_covered(captioner, folder, chosen) | measure_banded(captioner, folder, chosen)
    faulty = [is_faulty(caption.text) for caption in captions]
    figures[FAULTY] = Figure(float(np.mean(faulty)), len(faulty))
    rest = [recording for recording in first if recording.fold is not None and recording not in chosen]
    spoken = [item.text for item in (*captions[: len(chosen)], *caption_recordings(captioner, folder, rest))]
    return HearingReport(figures | measure_words(spoken), captions)


def caption_recordings(captioner: Captioner, folder: Path, chosen: Sequence[Recording]) -> list[LabelledCaption]:
    """The caption of each recording's first window, with its main label."""
    results = captioner.caption([folder / recording.path for recording in chosen])
    return [
        LabelledCaption((recording.label,), result.captions[0].text)
        for recording, result in zip(chosen, results, strict=True)
    ]


def caption_clips(captioner: Captioner, clips: Sequence[LabelledClip]) -> list[LabelledCaption]:
    """The captions of made clips, with their labels."""
    results = captioner.caption([(clip.waveform.samples, clip.waveform.rate) for clip in clips])
    return [LabelledCaption(clip.labels, result.text) for clip, result in zip(clips, results, strict=True)]


def measure_covered(captioner: Captioner, folder: Path, chosen: Sequence[Recording]) -> dict[str, Figure]:
    """How often ESC-10's sounds are named under speech and under music of the same split, where it has any."""
    sounds = [clip for clip in chosen if clip.fold is not None]
    figures = {}
    for family in COVER_FAMILIES:
        covers = draw_covers(chosen, family, len(sounds))
        for decibels in LEVELS if covers else ():
            clips = [cover_clip(folder, *pair, decibels) for pair in zip(sounds, covers, strict=True)]
            found = caption_clips(captioner, clips)
            figures[COVERED.format(family, decibels)] = _compared(found, Hearing(), SOUND_NAMED)
    return figures


def measure_banded(captioner: Captioner, folder: Path, chosen: Sequence[Recording]) -> dict[str, Figure]:
    """How often ESC-10's sounds are named when parts of their spectrum are missing."""
    figures = {}
    for name, limits in BANDS.items():
        clips = [limit_band(folder, clip, *limits) for clip in chosen if clip.fold is not None]
        figures[BANDED.format(name)] = _compared(caption_clips(captioner, clips), Hearing(), SOUND_NAMED)
    return figures


def measure_words(captions: Sequence[str]) -> dict[str, Figure]:
    """How long captions are, and how many different words they use."""
    words = [words_of(text) for text in captions]
    return {
        LENGTH: Figure(float(np.mean([len(item) for item in words])), len(words), number=True),
        VOCABULARY: Figure(float(len({word for item in words for word in item})), len(words), number=True),
    }


def _compared(captions: Sequence[LabelledCaption], metric: Hearing, score: str) -> Figure:
    texts, labels = [caption.text for caption in captions], [caption.labels for caption in captions]
    found = compare_with_baselines(metric, texts, labels, score)
    return Figure(found.score.value, found.score.items, found.shuffled, found.constant)


def _order(captions: Sequence[LabelledCaption]) -> Figure:
    texts, labels = [caption.text for caption in captions], [caption.labels for caption in captions]
    score = score_named(Hearing().score(texts, labels), ORDER_CORRECT)
    return Figure(score.value if score.items else 0.0, score.items)


def is_faulty(caption: str) -> bool:
    """Whether a caption of mini says a phrase twice, is longer than the grammar's sentences, or has no end."""
    too_long = len(words_of(caption)) > WORDS_READ
    return repeats_phrase(caption, PHRASE_WORDS) or too_long or is_unfinished(caption)


def without_codes(features: Features, entries: int) -> Features:
    """The features with every code hidden, as masked codec modeling hides them."""
    return replace(features, codes=np.full_like(features.codes, entries))


def without_embedding(features: Features, entries: int) -> Features:
    """The features with an embedding of zeros, as training shows it now and then."""
    return replace(features, embedding=np.zeros_like(embedding_of(features)))


INPUTS: dict[str, Callable[[Features, int], Features]] = {
    "codes and embedding": lambda features, entries: features,
    "embedding alone": without_codes,
    "codes alone": without_embedding,
}
"""What the captioner is given: a name, and how the features are changed for it."""


def measure_inputs(engine: Engine, entries: int, folder: Path, split: str) -> dict[str, tuple[Figure, Figure]]:
    """For each of `INPUTS`: how often both sounds of a split's ESC-10 pairs are named, and of those the order correct.

    entries: codebook entries of the model, which is also the code that hides a code.
    """
    pairs = esc_pairs(select(read_manifest(folder / MANIFEST), split))
    clips = [join_row(folder, pair) for pair in pairs]
    features = engine.extract([Window(clip.waveform, 0.0, clip.waveform.seconds) for clip in clips])
    figures = {}
    for name, change in INPUTS.items():
        found = engine.generate([change(item, entries) for item in features], DecodingOptions())
        texts = [candidates[0].text for candidates in found]
        captions = [LabelledCaption(clip.labels, text) for clip, text in zip(clips, texts, strict=True)]
        both = Figure(float(np.mean([caption.names_all for caption in captions])), len(captions))
        figures[name] = (both, _order(captions))
    return figures
