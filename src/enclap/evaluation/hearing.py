"""Whether a caption names a sound: its whole concept, its family, and the order of two sounds.

A caption names a label when all words of one of the label's synonym sets are among its words ("man" and
"speak" for "man speaking"). Words are compared as lemmas; only the first 20 words of a caption count, so that
a list of every sound names few of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from enclap.data.synthetic.lexicon import load_lexicon

WORDS_READ = 20  # words of a caption that are considered

# "while", "as", "with" and "over" are no connectors of time: what they join stays in one part.
SEQUENCE = re.compile(r"\b(?:and then|and finally|then|finally|before|followed by)\b|[.;,]")
SEQUENCE_OR_AND = re.compile(SEQUENCE.pattern + r"|\band\b")
TOGETHER = re.compile(r"\b(?:at the same time|at once|together|simultaneously)\b")
ALTERNATING = re.compile(r",? one after (?:the other|another)\b")
AFTER_FIRST = re.compile(r"after ([^,]+), (.+)")
BEFORE_FIRST = re.compile(r"before ([^,]+), (.+)")
AFTER = re.compile(r"(.+?) (?:after|preceded by) (.+)")


def names(caption: str, label: str) -> bool:
    """Whether the caption names the whole concept of a label. Raises KeyError for an unknown label."""
    lexicon = load_lexicon()
    return _matches(lexicon.lemmas(caption, WORDS_READ), lexicon[label].synonyms)


def mentions_family(caption: str, label: str) -> bool:
    """Whether the caption names the family of a label: by one of its words, or by the label itself."""
    lexicon = load_lexicon()
    lemmas = lexicon.lemmas(caption, WORDS_READ)
    family = lexicon.families[lexicon[label].family]
    return not set(family.words).isdisjoint(lemmas) or _matches(lemmas, lexicon[label].synonyms)


def has_correct_order(caption: str, first: str, second: str) -> bool:
    """Whether the caption names both labels and tells `first` as the earlier one.

    Read from the connectors: "A, then B", "A before B", "A and B", "A followed by B", "after A, B"; in
    "B after A" and "before B, A" the order is turned; "while", "as", "with" and the like tell no order.
    """
    told = parts_in_time(caption)
    return any(
        names(" ".join(told[:position]), first) and names(" ".join(told[position:]), second)
        for position in range(1, len(told))
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


def _matches(lemmas: Iterable[str], synonyms: Sequence[frozenset[str]]) -> bool:
    """Whether some set has all its plain words among the lemmas and none of its words marked "-"."""
    present = set(lemmas)
    return any(
        all((word[1:] not in present) if word.startswith("-") else (word in present) for word in words)
        for words in synonyms
    )
