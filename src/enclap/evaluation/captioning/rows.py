"""What is scored beside a system, so that a reader sees what its numbers are worth: baselines, and people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from enclap.evaluation.captioning.tables import CaptionSet

SYSTEM, COMPARED, SAME_CLIPS = "predictions", "compared", "predictions_same_clips"
SHUFFLED, SILENCE, CONSTANT, HUMAN = "shuffled", "silence", "constant", "human"
SILENCE_CAPTION = "Silence."
MEANINGS = {
    SYSTEM: "the predictions",
    COMPARED: "the captions that they are compared with",
    SAME_CLIPS: "the predictions, on those clips that the rows below are about",
    SHUFFLED: "the predictions, each for another clip",
    SILENCE: f'"{SILENCE_CAPTION}" for every clip, what a model says that hears nothing',
    CONSTANT: "one caption for every clip: the reference whose words are the commonest",
    HUMAN: "each reference against the clip's other references, which are one fewer than a system has",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Captions that are scored together: for each its references, and the clip, by number, that it is about."""

    name: str
    candidates: Sequence[str]
    references: Sequence[Sequence[str]]
    clips: Sequence[int]


def system_row(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Row:
    """The row of a system with one caption for each clip."""
    return Row(name, predictions, references, range(len(predictions)))


def comparison_rows(captions: CaptionSet, most: int, seed: int) -> list[Row]:
    """The baselines and people, on all clips or on `most` that are drawn when there are more.

    The predictions are a row too when clips were drawn. Rows that so few clips or references do not allow are left out.
    """
    count = len(captions.clips)
    generator = np.random.default_rng(seed)
    clips = sorted(generator.choice(count, most, replace=False).tolist()) if count > most else list(range(count))
    references = [captions.references[clip] for clip in clips]
    predictions = [captions.predictions[clip] for clip in clips]
    numbers = range(len(clips))
    rows = [Row(SAME_CLIPS, predictions, references, numbers)] if count > most else []
    if len(clips) > 1:
        order = generator.permutation(len(clips))
        others = [""] * len(clips)
        for place, clip in enumerate(order):
            others[clip] = predictions[order[place - 1]]  # a circle through all clips: none keeps its own
        rows.append(Row(SHUFFLED, others, references, numbers))
    rows.append(Row(SILENCE, [SILENCE_CAPTION] * len(clips), references, numbers))
    rows.append(Row(CONSTANT, [common_caption(captions.references)] * len(clips), references, numbers))
    people = [(text, texts, number) for number, texts in enumerate(references) if len(texts) > 1 for text in texts]
    if people:
        left = [list(texts) for _, texts, _ in people]
        for texts, (text, _, _) in zip(left, people, strict=True):
            texts.remove(text)
        rows.append(Row(HUMAN, [text for text, _, _ in people], left, [number for _, _, number in people]))
    return rows


def common_caption(references: Sequence[Sequence[str]]) -> str:
    """The reference whose words occur in the most clips on average, among those that are not short.

    Short is shorter than half of them: a word or two would win otherwise.
    """
    counts = Counter(word for texts in references for word in {word for text in texts for word in text.lower().split()})
    distinct = sorted({text for texts in references for text in texts})
    lengths = sorted(len(text.split()) for text in distinct)
    median = lengths[len(lengths) // 2]
    long = [text for text in distinct if len(text.split()) >= median]
    return max(long, key=lambda text: sum(counts[word] for word in set(text.lower().split())) / len(text.split()))
