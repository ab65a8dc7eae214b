"""Sentences of the grammar: short, well formed, seeded, faithful to order and relation."""

from __future__ import annotations

import re

import numpy as np
import pytest

from enclap.data.synthetic.grammar import (
    FAR,
    MAX_WORDS,
    SceneDescription,
    Sound,
    all_phrases,
    canonical,
    describe,
    finish,
    label_texts,
)
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.evaluation.hearing import has_correct_order, mentions_label

LEXICON = load_lexicon()
LABELS = tuple(LEXICON.entries)
CONTINUOUS = tuple(label for label in LABELS if LEXICON[label].continuous)


def random_scene(rng: np.random.Generator) -> SceneDescription:
    sounds: list[Sound] = []
    clock = 0.0
    for _ in range(int(rng.integers(1, 5))):
        background = bool(rng.random() < 0.3)
        labels = CONTINUOUS if background else LABELS
        label = labels[int(rng.integers(len(labels)))]
        start = max(0.0, clock + float(rng.uniform(-3, 1)))
        clock = start + float(rng.uniform(0.5, 4))
        distant = bool(rng.random() < 0.2)
        repetitions = int(rng.choice([1, 1, 2, 5]))
        sounds.append(Sound(label, 0.0 if background else start, clock, background, distant, repetitions))
    return SceneDescription(tuple(sounds))


def after_one_another(*labels: str) -> SceneDescription:
    return SceneDescription(tuple(Sound(label, 3.0 * i, 3.0 * i + 2) for i, label in enumerate(labels)))


def test_single_sound() -> None:
    assert canonical(after_one_another("dog barking")) == finish(load_lexicon()["dog barking"].sentences[0])


def test_a_sound_that_is_far_away_or_echoes_is_said_shortly() -> None:
    far = SceneDescription((Sound("dog barking", 0, 2, distant=True),))
    assert canonical(far) == "A dog barks in the distance."
    echoing = SceneDescription((Sound("explosion", 0, 2, repetitions=2),), echoing=True)
    assert canonical(echoing) == "Something explodes twice in an echoing room."
    assert canonical(SceneDescription((Sound("rain", 0, 2),), echoing=True)) == canonical(after_one_another("rain"))


def test_repeated_sound() -> None:
    twice = SceneDescription((Sound("dog barking", 0, 5, repetitions=2),))
    often = SceneDescription((Sound("dog barking", 0, 5, repetitions=4),))
    thrice = SceneDescription((Sound("dog barking", 0, 5, repetitions=3),))
    assert canonical(twice) == "A dog barks twice."
    assert canonical(thrice) == "A dog barks three times."
    assert canonical(often) == "A dog barks several times."


def test_takes_of_one_label_become_a_repetition() -> None:
    assert canonical(after_one_another("dog barking", "dog barking", "dog barking")) == "A dog barks three times."


def test_a_continuous_sound_is_not_repeated() -> None:
    assert canonical(SceneDescription((Sound("rain", 0, 5, repetitions=3),))) == "Rain falls steadily on the ground."


def test_an_explosion_is_repeated_in_english() -> None:
    often = SceneDescription((Sound("explosion", 0, 5, repetitions=3),))
    assert canonical(often) == "Something explodes three times."


def test_two_in_order_and_three_in_order() -> None:
    two = canonical(after_one_another("dog barking", "door slamming"))
    three = canonical(after_one_another("dog barking", "door slamming", "person sneezing"))
    assert two == "A dog barks, and then a door slams."
    assert three == "A dog barks, then a door slams, and then a person sneezes."


def test_sounds_given_in_any_order_are_named_by_their_start() -> None:
    scene = after_one_another("dog barking", "door slamming")
    assert canonical(SceneDescription(scene.sounds[::-1])) == canonical(scene)


def test_simultaneous_sounds() -> None:
    scene = SceneDescription((Sound("dog barking", 0, 4), Sound("baby crying", 1, 5)))
    assert canonical(scene) == "A dog barks while a baby cries."


def test_over_a_background() -> None:
    scene = SceneDescription((Sound("birds singing", 2, 4), Sound("stream flowing", 0, 10, background=True)))
    assert canonical(scene) == "Birds sing while a stream flows in the background."


def test_far_away_once() -> None:
    assert canonical(SceneDescription((Sound("dog barking", 0, 2, distant=True),))) == f"A dog barks {FAR}."
    thunder = SceneDescription((Sound("distant thunder", 0, 2, distant=True),))
    assert canonical(thunder).count("distan") == 1


def test_labels_that_share_a_phrase_are_named_once() -> None:
    assert canonical(after_one_another("train", "train passing")) == "A train passes."


def test_no_sounds_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one sound"):
        canonical(SceneDescription(()))


def test_random_scenes_make_short_clean_sentences() -> None:
    rng = np.random.default_rng(20)
    for _ in range(2000):
        text = describe(random_scene(rng), rng)
        assert len(text.split()) <= MAX_WORDS, text
        assert re.fullmatch(r"[A-Z][A-Za-z0-9',\- ]*\.", text), text
        assert "  " not in text and " ," not in text and ",," not in text, text
        assert not re.search(r"\b(\w+) \1\b", text), text


def test_captions_of_single_sounds_are_at_most_ten_words() -> None:
    assert max(len(canonical(after_one_another(label)).split()) for label in LABELS) <= 10


def test_every_single_sound_is_named_whatever_the_wording() -> None:
    rng = np.random.default_rng(3)
    for label in LABELS:
        for _ in range(3):
            scene = SceneDescription((Sound(label, 0, 3, distant=True, repetitions=2),))
            assert mentions_label(describe(scene, rng), label), label


def test_pairs_are_named_in_order() -> None:
    rng = np.random.default_rng(4)
    plain = ["dog barking", "rooster crowing", "person sneezing", "baby crying", "glass breaking", "cow mooing"]
    for first in plain:
        for second in plain:
            if first == second:
                continue
            for _ in range(10):
                text = describe(after_one_another(first, second), rng)
                assert has_correct_order(text, first, second) and not has_correct_order(text, second, first), text


def test_the_same_seed_gives_the_same_captions() -> None:
    scenes = [random_scene(np.random.default_rng(seed)) for seed in range(50)]
    first = [describe(scene, np.random.default_rng(9)) for scene in scenes]
    assert first == [describe(scene, np.random.default_rng(9)) for scene in scenes]


def test_the_preferred_wording_is_drawn_most_often() -> None:
    rng = np.random.default_rng(5)
    scene = after_one_another("cat meowing")
    share = np.mean([describe(scene, rng) == canonical(scene) for _ in range(500)])
    assert 0.6 < share < 0.8


def test_label_texts_and_all_phrases() -> None:
    assert {"a dog barks", "a dog barking", "dog barking"} <= set(label_texts("dog barking"))
    texts = all_phrases()
    assert len(texts) == len(set(texts)) > len(LABELS)
    assert "A dog barks several times." in texts
    assert all(text[0].isupper() or text[0].isdigit() for text in texts)
    assert all(text.endswith(".") for text in texts)
