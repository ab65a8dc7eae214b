"""Sentences that say the same words twice: found by their words, whatever tokens spell them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from enclap.types import Candidate

WORD = re.compile(r"[a-z0-9'-]+")


def repeats_phrase(text: str, words: int) -> bool:
    """Whether a sentence holds the same run of `words` words twice; capitals and punctuation do not count.

    A rule on tokens misses "A dog barks, and then a dog barks.": "A" and " a" are different tokens.
    """
    said = WORD.findall(text.lower())
    runs = [tuple(said[start : start + words]) for start in range(len(said) - words + 1)]
    return len(set(runs)) < len(runs)


def repetitions_last(candidates: Sequence[Candidate], words: int) -> list[Candidate]:
    """The candidates in their order, but those that repeat a phrase behind all others; 0 words: as they are."""
    if not words:
        return list(candidates)
    return sorted(candidates, key=lambda candidate: repeats_phrase(candidate.text, words))
