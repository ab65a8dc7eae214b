"""Naming needs the distinguishing words; order is read from the connectors."""

from __future__ import annotations

import pytest

from enclap.evaluation.hearing import has_correct_order, mentions_family, mentions_label, parts_in_time

ESC_10 = {
    "dog barking": ("A dog is barking loudly.", "Puppies whimper.", "Something barks."),
    "rain": ("Rain falls on a roof.", "It is raining hard."),
    "sea waves": ("Waves crash on the beach.", "The ocean roars.", "Surf rolls in."),
    "baby crying": ("An infant wails.", "A baby cried.", "A toddler is crying."),
    "clock ticking": ("A clock ticks.", "Something is ticking."),
    "person sneezing": ("A man sneezes twice.", "Someone is sneezing."),
    "helicopter": ("A chopper hovers.", "Helicopters fly by.", "A rotor spins."),
    "chainsaw": ("A chain saw cuts wood.", "Chainsaws are running."),
    "rooster crowing": ("A rooster crows.", "A cock is crowing."),
    "fire crackling": ("A campfire crackles.", "Flames burn.", "A fire is burning."),
}
NOT_NAMED = [
    ("A sea lion barks.", "dog barking"),
    ("A train passes.", "rain"),
    ("Water runs.", "rain"),
    ("A sea lion barks.", "sea waves"),
    ("A baby raccoon chatters.", "baby crying"),
    ("An alarm clock rings.", "clock ticking"),
    ("A person laughs.", "person sneezing"),
    ("An airplane flies by.", "helicopter"),
    ("Someone saws wood.", "chainsaw"),
    ("A crow caws.", "rooster crowing"),
    ("A pistol fires.", "fire crackling"),
    ("A firecracker explodes.", "fire crackling"),
    ("Wind chimes ring.", "wind"),
    ("A woman speaks.", "man speaking"),
    ("A man laughs.", "man speaking"),
    ("A person speaks.", "man speaking"),
    ("A rooster crows.", "crow cawing"),
    ("", "rain"),
]


@pytest.mark.parametrize(("label", "captions"), ESC_10.items())
def test_esc_10_classes_are_named_by_fair_words_and_by_no_other_class(label: str, captions: tuple[str, ...]) -> None:
    for caption in captions:
        assert mentions_label(caption, label), caption
        assert [other for other in ESC_10 if mentions_label(caption, other)] == [label], caption


@pytest.mark.parametrize(("caption", "label"), NOT_NAMED)
def test_words_that_do_not_distinguish_name_nothing(caption: str, label: str) -> None:
    assert not mentions_label(caption, label)


def test_compound_concepts_need_all_their_words() -> None:
    assert mentions_label("A male voice talks.", "man speaking")
    assert mentions_label("Two men are talking.", "man speaking")


def test_light_words_and_order_do_not_matter() -> None:
    assert mentions_label("barks the of a dog", "dog barking")


def test_only_the_first_twenty_words_count() -> None:
    filler = " ".join(["sound"] * 19)
    assert mentions_label(f"{filler} rain", "rain")
    assert not mentions_label(f"{filler} sound rain", "rain")


def test_family_is_named_by_a_family_word() -> None:
    assert mentions_family("Metal clangs.", "hitting a pan")
    assert mentions_family("Someone walks.", "footsteps on gravel")
    assert not mentions_family("A dog barks.", "footsteps on gravel")


def test_an_unknown_label_raises() -> None:
    with pytest.raises(KeyError, match="no such sound"):
        mentions_label("A dog barks.", "no such sound")


@pytest.mark.parametrize(
    "caption",
    [
        "A dog barks, and then a rooster crows.",
        "A dog barks, then a rooster crows.",
        "First a dog barks, and then a rooster crows.",
        "A dog barks before a rooster crows.",
        "A dog barks, followed by a rooster crowing.",
        "A dog barks and a rooster crows.",
        "A dog barks. A rooster crows.",
        "After a dog barks, a rooster crows.",
        "A rooster crows after a dog barks.",
        "A rooster crows, preceded by a dog barking.",
        "Before a rooster crows, a dog barks.",
        "A dog barks and a rooster crows, one after the other.",
        "A dog barks, and then a rooster crows while rain falls in the background.",
    ],
)
def test_order_is_read_from_the_connectors(caption: str) -> None:
    assert has_correct_order(caption, "dog barking", "rooster crowing")
    assert not has_correct_order(caption, "rooster crowing", "dog barking")


@pytest.mark.parametrize(
    "caption",
    [
        "A dog barks while a rooster crows.",
        "A dog barks as a rooster crows.",
        "A dog barks and a rooster crows at the same time.",
        "A dog barks with a rooster crowing in the background.",
        "A dog barks.",
        "Rain falls, and then a rooster crows.",
        "",
    ],
)
def test_simultaneous_or_missing_sounds_have_no_order(caption: str) -> None:
    assert not has_correct_order(caption, "dog barking", "rooster crowing")
    assert not has_correct_order(caption, "rooster crowing", "dog barking")


def test_parts_in_time() -> None:
    assert parts_in_time("A door opens and closes, and then rain falls as a dog barks.") == [
        "a door opens",
        "closes",
        "rain falls as a dog barks",
    ]
