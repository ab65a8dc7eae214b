"""Whether a caption names a sound: its whole concept, its family, and the order of two sounds.

A caption names a label when all words of one of the label's synonym sets are among its words ("man" and
"speak" for "man speaking"). Words are compared as lemmas; only the first 20 words of a caption count, so that
a list of every sound names few of them.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import fmean

from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.base import Score, check_lengths

WORDS_READ = 20  # words of a caption that are considered

# "while", "as", "with" and "over" are no connectors of time: what they join stays in one part.
SEQUENCE = re.compile(r"\b(?:and then|and finally|then|finally|before|followed by)\b|[.;,]")
SEQUENCE_OR_AND = re.compile(SEQUENCE.pattern + r"|\band\b")
TOGETHER = re.compile(r"\b(?:at the same time|at once|together|simultaneously)\b")
ALTERNATING = re.compile(r",? one after (?:the other|another)\b")
AFTER_FIRST = re.compile(r"after ([^,]+), (.+)")
BEFORE_FIRST = re.compile(r"before ([^,]+), (.+)")
AFTER = re.compile(r"(.+?) (?:after|preceded by) (.+)")

SOUND_NAMED, FAMILY_NAMED, ORDER_CORRECT = "sound named", "sound or family named", "order correct"


class Hearing:
    """Whether captions name what can be heard. References: the labels of a clip's sounds, in order of time.

    Shares from 0 to 1. "sound named": of the clips, those whose caption names all labels. "sound or family named":
    those whose caption names each label or its family. "order correct": of the clips with several labels whose caption
    names all of them, those in which it names them in their order. over_labels: take the first two as means over the
    labels instead, so that labels with many recordings weigh no more than others.
    """

    name = "hearing"

    def __init__(self, over_labels: bool = False) -> None:
        self._over_labels = over_labels

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """The three scores; KeyError for a label that the lexicon lacks."""
        check_lengths(predictions, references)
        clips = [(text, tuple(labels)) for text, labels in zip(predictions, references, strict=True)]
        named = [all(mentions_label(text, label) for label in labels) for text, labels in clips]
        family = [all(mentions_family(text, label) for label in labels) for text, labels in clips]
        several = [clip for clip, is_named in zip(clips, named, strict=True) if is_named and len(clip[1]) > 1]
        order = [all(has_correct_order(text, *pair) for pair in itertools.pairwise(labels)) for text, labels in several]
        groups = [labels if self._over_labels else () for _, labels in clips]
        return [
            Score(SOUND_NAMED, _mean(named, groups), len(clips)),
            Score(FAMILY_NAMED, _mean(family, groups), len(clips)),
            Score(ORDER_CORRECT, _mean(order, [()] * len(order)), len(order)),
        ]


def _mean(values: Sequence[bool], groups: Sequence[tuple[str, ...]]) -> float:
    """The mean of the groups' means; NaN without values."""
    grouped = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        grouped[group].append(value)
    return fmean(fmean(members) for members in grouped.values()) if grouped else float("nan")


def mentions_label(caption: str, label: str) -> bool:
    """Whether the caption names the whole concept of a label. Raises KeyError for an unknown label."""
    return _matches(_lemmas(caption), load_lexicon()[label].synonyms)


def mentions_family(caption: str, label: str) -> bool:
    """Whether the caption names the family of a label: by one of its words, or by the label itself."""
    lexicon, lemmas = load_lexicon(), _lemmas(caption)
    family = lexicon.families[lexicon[label].family]
    return not lemmas.isdisjoint(family.words) or _matches(lemmas, lexicon[label].synonyms)


def has_correct_order(caption: str, first: str, second: str) -> bool:
    """Whether the caption names both labels, and `first` as the earlier one.

    Read from the connectors: "A, then B", "A before B", "A and B", "A followed by B", "after A, B"; in
    "B after A" and "before B, A" the order is turned; "while", "as", "with" and the like give no order.
    """
    parts = parts_in_time(caption)
    return any(
        mentions_label(" ".join(parts[:index]), first) and mentions_label(" ".join(parts[index:]), second)
        for index in range(1, len(parts))
    )


def parts_in_time(caption: str) -> list[str]:
    """The parts of a caption that follow each other, the earliest first; simultaneous sounds share a part."""
    text = " ".join(caption.lower().split()[:WORDS_READ]).rstrip(".")
    text = ALTERNATING.sub("", text)
    for pattern, turned in ((AFTER_FIRST, False), (BEFORE_FIRST, True), (AFTER, True)):
        if match := pattern.fullmatch(text):
            earlier, later = (match[2], match[1]) if turned else (match[1], match[2])
            return [*parts_in_time(earlier), *parts_in_time(later)]
    connector = SEQUENCE if TOGETHER.search(text) else SEQUENCE_OR_AND
    return [part.strip() for part in connector.split(text) if part.strip()]


@lru_cache(maxsize=4096)
def _lemmas(caption: str) -> frozenset[str]:
    """The lemmas of a caption's first words; the same captions are asked about for label after label."""
    return frozenset(load_lexicon().lemmas(caption, WORDS_READ))


def _matches(lemmas: frozenset[str], synonyms: Iterable[frozenset[str]]) -> bool:
    """Whether some set has all its plain words among the lemmas and none of its words marked "-"."""
    return any(
        all((word[1:] not in lemmas) if word.startswith("-") else (word in lemmas) for word in words)
        for words in synonyms
    )
