"""The lexicon is complete, its phrases are well formed, and every phrase names its own label."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enclap.data.recordings import read_collection
from enclap.data.synthetic.lemmas import lemma, lemmas_of, words_of
from enclap.data.synthetic.lexicon import Entry, load_lexicon, parse_synonyms
from enclap.evaluation.hearing import mentions_family, mentions_label
from enclap.training.mini.opinions import class_labels

LEXICON = load_lexicon()
ENTRIES = tuple(LEXICON.entries.values())
ESC_10 = (
    "dog barking",
    "rain",
    "sea waves",
    "baby crying",
    "clock ticking",
    "person sneezing",
    "helicopter",
    "chainsaw",
    "rooster crowing",
    "fire crackling",
)
MOST_WORDS = {"clause": 9, "sentence": 10, "participle": 10, "noun": 10}
FEWEST_SENTENCES = 6
CAPITALISED = {"Santa", "Claus", "Indian", "French", "German", "English", "Spanish", "Russian", "Celtic", "Japanese"}
CAPITALISED |= {"African", "American", "Asian", "Caribbean", "Christmas", "Geiger", "Latin", "TV", "3D"}
PLURAL_LOOKS = {"brass", "bus", "debris"}
NO_VOWEL_SOUND = ("one", "uni", "use", "eu")


def phrases(entry: Entry) -> list[tuple[str, str]]:
    return [
        *(("clause", phrase) for phrase in entry.clauses),
        *(("sentence", phrase) for phrase in entry.sentences),
        *(("participle", phrase) for phrase in entry.participles),
        *(("noun", phrase) for phrase in entry.nouns),
    ]


ALL_PHRASES = [(entry, kind, phrase) for entry in ENTRIES for kind, phrase in phrases(entry)]


def test_every_label_has_two_clauses_participles_nouns_words_and_synonyms() -> None:
    for entry in ENTRIES:
        assert 2 <= len(entry.clauses) <= 3, entry.label
        assert len(set(entry.clauses)) == len(entry.clauses), entry.label
        assert len(set(entry.sentences)) == len(entry.sentences) >= FEWEST_SENTENCES, entry.label
        assert entry.participles and entry.nouns and entry.words and entry.synonyms, entry.label


@pytest.mark.shared
def test_lexicon_holds_exactly_the_labels_of_the_recordings_and_of_the_teachers_classes(shared: Path) -> None:
    recorded = {label for recording in read_collection(shared / "data" / "sounds") for label in recording.labels}
    assert set(LEXICON.entries) == recorded | set(filter(None, class_labels()))


def test_phrases_are_spelt_cleanly() -> None:
    for _, _, phrase in ALL_PHRASES:
        assert re.fullmatch(r"[A-Za-z0-9' -]+", phrase), phrase
        assert "  " not in phrase and phrase == phrase.strip()
        for word in phrase.split():
            assert word == word.lower() or word in CAPITALISED, phrase


def test_phrases_are_short() -> None:
    for _, kind, phrase in ALL_PHRASES:
        assert len(phrase.split()) <= MOST_WORDS[kind], phrase


def test_every_label_has_a_clause_of_at_most_seven_words() -> None:
    for entry in ENTRIES:
        assert min(len(clause.split()) for clause in entry.clauses) <= 7, entry.label


def test_articles_agree_with_the_sound_of_the_next_word() -> None:
    for _, _, phrase in ALL_PHRASES:
        for article, word in re.findall(r"\b(an?) (\w+)", phrase):
            vowel = word[0].lower() in "aeiou" and not word.startswith(NO_VOWEL_SOUND)
            assert (article == "an") == vowel, phrase


def test_singular_countables_carry_an_article() -> None:
    countable = "dog cat bell door car train drum person man woman baby clock horn rifle pistol bird chain"
    for entry in ENTRIES:
        for clause in entry.clauses:
            first, second = clause.split()[:2]  # compounds ("train brakes", "drum and bass") need none
            assert first not in countable.split() or second in {"and", "brakes", "mail", "music", "tires"}, clause


def test_clauses_have_a_finite_verb_that_agrees_in_number() -> None:
    for entry in ENTRIES:
        first = entry.clauses[0].split()
        if entry.plural:
            assert not {"is", "has"} & set(first), entry.clauses[0]
        else:
            assert any(word.endswith("s") for word in first[1:]), entry.clauses[0]


def test_plural_subjects_take_no_third_person_verb() -> None:
    """A subject like "dogs" or "violins and cellos" is followed by a bare verb or "are"."""
    for entry in ENTRIES:
        for clause in entry.clauses:
            subject, _, rest = clause.partition(" ")
            if (
                subject.endswith("s")
                and not subject.endswith(("ss", "us"))
                and subject not in {"brass", "bus", "debris"}
            ):
                assert not re.match(r"(is|has|does)\b", rest), clause


def test_participles_hold_an_ing_form_and_nouns_no_finite_be() -> None:
    for entry, kind, phrase in ALL_PHRASES:
        if kind == "participle":
            assert any(word.endswith("ing") for word in phrase.split()), (entry.label, phrase)
        if kind == "noun":
            assert not {"is", "are"} & set(phrase.split()), (entry.label, phrase)


def test_every_phrase_names_its_own_label_and_family() -> None:
    for entry, _, phrase in ALL_PHRASES:
        assert mentions_label(phrase, entry.label), (entry.label, phrase)
        assert mentions_family(phrase, entry.label), (entry.label, phrase)


def test_families_cover_all_labels_and_none_is_empty() -> None:
    assert {entry.family for entry in ENTRIES} == set(LEXICON.families)


def test_a_family_clause_names_the_family_of_each_of_its_labels() -> None:
    for entry in ENTRIES:
        assert mentions_family(LEXICON.families[entry.family].clause, entry.label), (entry.label, entry.family)


def test_tag_words_come_from_one_sorted_vocabulary() -> None:
    vocabulary = LEXICON.tag_vocabulary
    assert list(vocabulary) == sorted(set(vocabulary))
    for entry in ENTRIES:
        assert set(entry.words) <= set(vocabulary)
    assert {"dog", "bark"} <= set(LEXICON["dog barking"].words)


def test_esc_10_classes_can_be_backgrounds_or_repeated() -> None:
    for label in ESC_10:
        assert LEXICON[label].continuous or LEXICON[label].repeatable, label


def test_an_unknown_label_says_what_to_do() -> None:
    with pytest.raises(KeyError, match=r"add a row to lexicon\.csv"):
        LEXICON["unheard of"]


def test_parse_synonyms_expands_choices() -> None:
    assert parse_synonyms("man/male speak; talker -radio") == (
        frozenset({"man", "speak"}),
        frozenset({"male", "speak"}),
        frozenset({"talker", "-radio"}),
    )


@pytest.mark.parametrize(
    ("form", "stem"),
    [
        ("barks", "bark"),
        ("barking", "bark"),
        ("barked", "bark"),
        ("puppies", "puppy"),
        ("crashes", "crash"),
        ("waves", "wave"),
        ("cries", "cry"),
        ("hisses", "hiss"),
        ("buzzing", "buzz"),
        ("clapping", "clap"),
        ("purring", "purr"),
        ("ringing", "ring"),
        ("closing", "close"),
        ("sneezing", "sneeze"),
        ("sneezes", "sneeze"),
        ("ticking", "tick"),
        ("women", "woman"),
        ("leaves", "leaf"),
        ("glass", "glass"),
        ("spring", "spring"),
        ("scissors", "scissors"),
        ("geese", "goose"),
        ("rolling", "roll"),
        ("struck", "strike"),
    ],
)
def test_lemmas(form: str, stem: str) -> None:
    assert lemma(form, LEXICON.known_lemmas) == stem


def test_a_lemma_is_its_own_lemma() -> None:
    for word in LEXICON.known_lemmas:
        if "_" not in word:
            assert lemma(word, LEXICON.known_lemmas) == word, word


def test_compounds_hide_parts_that_mean_something_else() -> None:
    known = LEXICON.known_lemmas
    assert "clock" not in lemmas_of("an alarm clock rings", known)
    assert "lion" not in lemmas_of("two sea lions bark", known)
    assert "wind" not in lemmas_of("a wind-up toy runs", known)
    assert "chainsaw" in lemmas_of("a chain saw runs", known)


def test_words_of_drops_possessives_and_parts_hyphens() -> None:
    assert words_of("A ship's bell, the hi-hat!") == ["a", "ship", "bell", "the", "hi", "hat"]
