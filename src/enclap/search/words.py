"""The words of a query: which are allowed, which of them say something of a sound; and those in names of files."""

from __future__ import annotations

import re

from enclap.data.synthetic.lexicon import load_lexicon
from enclap.errors import UsageError

MOST_WORDS, MOST_LETTERS = 50, 1_000
"""Of a query: what the text tower reads, and more than anybody needs to name a sound."""
WORDLESS = frozenset(
    ("a", "an", "and", "at", "be", "by", "for", "from", "in", "into", "of", "on", "or", "the", "to", "with")
)
NAME_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A word inside a file name: DogBark_02 holds Dog and Bark."""


def check_words(words: str) -> None:
    """Raises UsageError unless the words name something, and are not too many."""
    count = len(words.split())
    if not any(character.isalnum() for character in words):
        raise UsageError('the query holds no words; say what is to be heard, as in "a dog barks"')
    if count > MOST_WORDS or len(words) > MOST_LETTERS:
        raise UsageError(f"the query has {count} words; say what is to be heard in at most {MOST_WORDS}")


def name_words(path: str) -> str:
    """The words in the names of a file and of the folders that it is in."""
    stem, _, suffix = path.rpartition(".")
    return " ".join(NAME_WORD.findall(stem if stem and "/" not in suffix else path))


def content_lemmas(text: str) -> set[str]:
    """The lemmas of a text's words, without those that say nothing of a sound."""
    return set(load_lexicon().lemmas(text)) - WORDLESS
