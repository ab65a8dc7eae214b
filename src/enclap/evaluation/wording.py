"""How captions are worded, whatever they are about: length, vocabulary, repeated phrases, missing ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from enclap.decoding.ranking import repeats_phrase
from enclap.evaluation.base import Score, check_lengths

PHRASE_WORDS = 3
"""Words in a row that a caption should not say twice."""
WORD = re.compile(r"\w[\w'-]*")
END = re.compile(r"[.!?][\"')\]]*$")


class Wording:
    """Scores of the captions alone; references are not read.

    "words": their mean number. "repeated phrase": the share of captions, 0 to 1, that say three words in a row twice.
    "unfinished": the share that does not end in a full stop, an exclamation mark or a question mark. "vocabulary":
    different words in all captions together, capitals ignored.
    """

    name = "wording"

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """The four scores."""
        check_lengths(predictions, references)
        words, count = [words_of(text) for text in predictions], len(predictions)
        means = {
            "words": [float(len(spoken)) for spoken in words],
            "repeated phrase": [float(repeats_phrase(text, PHRASE_WORDS)) for text in predictions],
            "unfinished": [float(is_unfinished(text)) for text in predictions],
        }
        scores = [Score(name, fmean(values) if values else float("nan"), count) for name, values in means.items()]
        return [*scores, Score("vocabulary", float(len(set().union(*words))), count)]


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order."""
    return WORD.findall(text.lower())


def is_unfinished(text: str) -> bool:
    """Whether a caption has no end: it was cut off, or the model stopped in the middle."""
    return END.search(text.strip()) is None
