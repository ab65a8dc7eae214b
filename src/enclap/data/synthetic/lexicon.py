"""Every label of the recordings in English: clauses, noun phrases, family, and the words that name it.

The rows live in `lexicon.csv` and `families.csv` beside this file. Lists inside a cell are parted by "; ". A
cell of `synonyms` holds alternatives; an alternative is a row of words that must all be there, "a/b" offers a
choice for one of them, and "-word" demands that a word is absent ("crow -rooster").
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

from enclap.data.synthetic.lemmas import lemmas_of


@dataclass(frozen=True, slots=True)
class Entry:
    """How one label is said and recognised.

    clauses: finite clauses, present tense, lower case, no full stop; the first is the preferred one.
    sentences: fuller ones, for a sound that is alone: with the source, the manner, the place that follows from it.
    participles: nouns with an -ing form ("a dog barking").
    nouns: noun phrases that fit "the sound of ...".
    continuous: may be the background of a scene. repeatable: "several times" makes sense. plural: whether the
    subject of clauses[0] is plural. words: lemmas of its content words.
    synonyms: sets of lemmas, any of which names the label; a word "-x" in a set demands that x is absent.
    """

    label: str
    family: str
    clauses: tuple[str, ...]
    sentences: tuple[str, ...]
    participles: tuple[str, ...]
    nouns: tuple[str, ...]
    continuous: bool
    repeatable: bool
    plural: bool
    words: tuple[str, ...]
    synonyms: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Labels that sound alike: name, back-off clause, the same with an -ing form, lemmas each of which names it."""

    name: str
    clause: str
    participle: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """All entries by label, all families by name."""

    entries: Mapping[str, Entry]
    families: Mapping[str, Family]

    def __getitem__(self, label: str) -> Entry:
        """The entry of a label. Raises KeyError with the label and what to do when the lexicon lacks it."""
        if label not in self.entries:
            raise KeyError(f"the lexicon has no label {label!r}; add a row to lexicon.csv")
        return self.entries[label]

    @cached_property
    def tag_vocabulary(self) -> tuple[str, ...]:
        """All content-word lemmas that labels share for word tagging, sorted."""
        return tuple(sorted({word for entry in self.entries.values() for word in entry.words}))

    @cached_property
    def known_lemmas(self) -> frozenset[str]:
        """Every lemma that the lexicon itself uses; the suffix rules prefer these."""
        synonyms = (word.removeprefix("-") for e in self.entries.values() for s in e.synonyms for word in s)
        families = (word for family in self.families.values() for word in family.words)
        return frozenset(itertools.chain(self.tag_vocabulary, synonyms, families))

    def lemmas(self, text: str, limit: int | None = None) -> list[str]:
        """Lemmas of the first `limit` words of a text, in order."""
        return lemmas_of(text, self.known_lemmas, limit)


@cache
def load_lexicon() -> Lexicon:
    """The committed lexicon; read once per process."""
    families = {
        row["family"]: Family(row["family"], row["clause"], row["participle"], tuple(_items(row["words"])))
        for row in _rows("families.csv")
    }
    entries = {row["label"]: parse_entry(row) for row in _rows("lexicon.csv")}
    return Lexicon(entries, families)


def parse_synonyms(cell: str) -> tuple[frozenset[str], ...]:
    """The sets of lemmas that a cell of `synonyms` stands for: "man/male speak; talker" gives three sets."""
    sets: Iterable[frozenset[str]] = (
        frozenset(choice)
        for alternative in _items(cell)
        for choice in itertools.product(*(slot.split("/") for slot in alternative.split()))
    )
    return tuple(dict.fromkeys(sets))


def parse_entry(row: Mapping[str, str]) -> Entry:
    """The entry that a row of lexicon.csv describes."""
    return Entry(
        label=row["label"],
        family=row["family"],
        clauses=tuple(_items(row["clauses"])),
        sentences=tuple(_items(row["sentences"])),
        participles=tuple(_items(row["participles"])),
        nouns=tuple(_items(row["nouns"])),
        continuous=row["continuous"] == "yes",
        repeatable=row["repeatable"] == "yes",
        plural=row["plural"] == "yes",
        words=tuple(_items(row["words"])),
        synonyms=parse_synonyms(row["synonyms"]),
    )


def _items(cell: str) -> list[str]:
    return [item.strip() for item in cell.split(";") if item.strip()]


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = resources.files("enclap.data.synthetic").joinpath(name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())
