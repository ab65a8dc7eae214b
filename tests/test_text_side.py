"""Text in the place of sound: the gap that is bridged, which labels are told, and that draws repeat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from enclap.data.recordings import Recording
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.errors import DataError
from enclap.model.conv_clap import SPANS
from enclap.training.mini.rehearsal import Rehearsal, Views, make_text_sounds
from enclap.training.mini.text_side import ModalityGap, TextSide, TextSounds, labels_without
from enclap.types import FloatArray
from test_rehearsal import LABELS, OPTIMISATION, make_composer
from tiny_mini import tiny_run

WIDTH = 6 * SPANS
NOTHING = ModalityGap(np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32))


def embed_text(texts: Sequence[str]) -> FloatArray:
    """A unit vector of its own for each text, whatever stands beside it."""
    rows = [np.random.default_rng(sum(map(ord, text))).standard_normal(WIDTH) for text in texts]
    return np.float32([row / np.linalg.norm(row) for row in rows])


def text_sounds(share: float, seed: int = 0, gap: ModalityGap = NOTHING) -> TextSounds:
    return TextSounds(LABELS, embed_text, gap, share, seed)


def test_the_measured_gap_leads_from_text_to_audio() -> None:
    generator = np.random.default_rng(0)
    text = generator.standard_normal((4_000, WIDTH)).astype(np.float32)
    shift, deviation = np.linspace(-1, 1, WIDTH), np.linspace(0.1, 2, WIDTH)
    audio = text + shift + deviation * generator.standard_normal(text.shape)
    gap = ModalityGap.measure(audio.astype(np.float32), text)
    np.testing.assert_allclose(gap.shift, shift, atol=0.1)
    np.testing.assert_allclose(gap.deviation, deviation, atol=0.1)
    np.testing.assert_allclose(gap.quieter(0.5).deviation, deviation / 2, atol=0.05)


def test_what_bridges_the_gap_has_unit_spans_and_its_noise_is_drawn() -> None:
    gap = ModalityGap(np.full(WIDTH, 0.1, np.float32), np.full(WIDTH, 0.3, np.float32))
    [text] = embed_text(["Rain falls."])
    first, again, other = (gap.bridge(text, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, rtol=1e-5)
    shifted = (text + 0.1).reshape(SPANS, -1)
    quiet = gap.quieter(0.0).bridge(text, np.random.default_rng(0))
    np.testing.assert_allclose(quiet, shifted / np.linalg.norm(shifted, axis=1, keepdims=True), rtol=1e-5)


def test_labels_with_enough_training_recordings_are_left_to_them() -> None:
    recording = Recording("a.wav", ("rain", "wind"), "", "", "", "", "CC0", "train", None, 1.0, "", "a")
    none = labels_without([], 1)
    assert none == tuple(sorted(load_lexicon().entries))
    assert set(none) - set(labels_without([recording], 1)) == {"rain", "wind"}
    assert labels_without([recording], 2) == none and labels_without([recording] * 2, 2) == labels_without(
        [recording], 1
    )


def test_the_same_seed_draws_the_same_texts_in_the_share_that_was_asked_for() -> None:
    drawn = [text_sounds(0.3).draw(number) for number in range(600)]
    told = [item for item in drawn if item is not None]
    assert len(told) / len(drawn) == pytest.approx(0.3, abs=0.06)
    for number, item in enumerate(drawn):
        again, other = text_sounds(0.3).draw(number), text_sounds(0.3, seed=1).draw(number)
        assert (again is None) == (item is None)
        if item is not None and again is not None:
            np.testing.assert_array_equal(item[0], again[0])
            assert item[1] == again[1] and (other is None or other[1] != item[1] or not np.allclose(other[0], item[0]))
    for embedding, sounds in told:
        assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5) and embedding.dtype == np.float32
        assert 1 <= len(sounds) <= 2 and {sound.label for sound in sounds} <= set(LABELS)
        assert all(first.end <= second.start for first, second in pairwise(sounds))
    assert {len(sounds) for _, sounds in told} == {1, 2}


def test_clips_that_stay_sounds_are_those_of_a_rehearsal_without_text() -> None:
    plain = make_composer((0.25, 0.25, 0.25, 0.25))
    mixed = make_composer((0.25, 0.25, 0.25, 0.25), texts=text_sounds(0.5))
    texts, changed = text_sounds(0.5), 0
    for number, (before, after) in enumerate(
        zip(plain.compose(range(40), 2), mixed.compose(range(40), 2), strict=True)
    ):
        told = texts.draw(number)
        if told is None:
            assert before.captions == after.captions and before.labels == after.labels
            np.testing.assert_array_equal(before.features.embedding, after.features.embedding)
        else:
            changed += 1
            assert after.labels == tuple(sound.label for sound in told[1]) and after.captions
            np.testing.assert_array_equal(after.features.embedding, told[0])
    assert 10 < changed < 30


def test_nothing_is_measured_on_recordings_that_do_not_train(tmp_path: Path) -> None:
    """The labels and the gap follow from training recordings; others may be anything."""
    run = tiny_run(tmp_path, steps=1)
    tower = make_composer((1.0, 0.0, 0.0, 0.0))._tower
    recipe = Rehearsal(views=6, mixtures=1, clips=1, text_side=TextSide(share=0.5), optimisation=OPTIMISATION)
    maps = np.random.default_rng(0).random((6, 8, 8)).astype(np.float16)
    sounds = make_composer((1.0, 0.0, 0.0, 0.0))._views.sounds[:6]
    inside = Views(maps, sounds, [(run.unseen[0],)] * 6)
    texts = make_text_sounds(run, recipe, inside, tower, embed_text)
    used = {run.corpus.recordings[number].label for number in (*run.seen, *run.unseen)}
    assert texts is not None and set(texts._labels).isdisjoint(used) and run.used
    outside = [number for number in range(len(run.corpus)) if number not in {*run.seen, *run.unseen}]
    for numbers in (outside[:1], run.seen[:1]):
        with pytest.raises(DataError, match="take more views"):
            make_text_sounds(run, recipe, Views(maps, sounds, [tuple(numbers)] * 6), tower, embed_text)
    assert make_text_sounds(run, recipe.model_copy(update={"text_side": None}), inside, tower, embed_text) is None
