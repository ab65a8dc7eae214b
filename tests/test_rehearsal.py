"""The captioner's rehearsal: what its clips say, and that maps put together are those of sounds put together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from enclap.data.synthetic.grammar import Sound
from enclap.model.conv_clap import ConvTower
from enclap.training.mini.rehearsal import ClipComposer, Rehearsal, Views, draw_recording
from enclap.training.mini.text_side import TextSounds
from enclap.training.recipe import Optimisation

LABELS = ("dog barking", "rain", "church bells ringing", "cat meowing", "speech", "sea waves")
FRAMES = 8
OPTIMISATION = Optimisation(steps=1, batch_size=1, learning_rate=1e-3)


def make_composer(
    shares: tuple[float, float, float, float], seed: int = 0, texts: TextSounds | None = None
) -> ClipComposer:
    """Six single views, one for each label, and a mixture of the second label under the first."""
    torch.manual_seed(0)
    tower = ConvTower(16, (4, 8), 6).eval()
    maps = np.random.default_rng(0).random((7, 8, FRAMES)).astype(np.float16)
    single = [(Sound(label, 0.0, 10.0),) for label in LABELS]
    mixture = (Sound(LABELS[0], 0.0, 10.0), Sound(LABELS[1], 0.0, 10.0, background=True))
    views = Views(maps, [*single, mixture], [*((number,) for number in range(6)), (0, 1)])
    recipe = Rehearsal(views=6, mixtures=1, clips=1, shares=shares, optimisation=OPTIMISATION)
    return ClipComposer(views, tower, recipe, 3, seed, texts)


@pytest.mark.parametrize(("kind", "count"), [(0, 1), (1, 2), (2, 3), (3, 2)])
def test_a_clip_of_a_kind_names_as_many_sounds_and_has_no_codes(kind: int, count: int) -> None:
    shares = tuple(float(number == kind) for number in range(4))
    for clip in make_composer(shares).compose(range(8), captions=3):  # type: ignore[arg-type]
        assert len(clip.labels) == count == len(set(clip.labels))
        assert 1 <= len(clip.captions) <= 3 and all(text.endswith(".") for text in clip.captions)
        assert clip.features.codes.shape == (0, 3)
        assert np.linalg.norm(clip.features.embedding) == pytest.approx(1.0, abs=1e-5)  # type: ignore[arg-type]


def test_a_clip_depends_on_seed_and_number_alone() -> None:
    shares = (0.25, 0.25, 0.25, 0.25)
    together = list(make_composer(shares).compose(range(6), captions=2))
    [alone] = make_composer(shares).compose(range(4, 5), captions=2)
    assert alone.captions == together[4].captions
    np.testing.assert_allclose(alone.features.embedding, together[4].features.embedding, atol=1e-6)
    others = list(make_composer(shares, seed=1).compose(range(6), captions=2))
    assert [clip.labels for clip in others] != [clip.labels for clip in together]


def test_the_halves_of_two_sounds_in_order_are_those_of_each_sound_alone() -> None:
    """What follows or precedes a sound does not change the vector of its half."""
    [pair] = make_composer((0.0, 1.0, 0.0, 0.0)).compose(range(1), captions=1)
    vectors = np.split(pair.features.embedding * 3**0.5, 3)  # type: ignore[operator]
    singles = {
        clip.labels: np.split(clip.features.embedding * 3**0.5, 3)  # type: ignore[operator]
        for clip in make_composer((1.0, 0.0, 0.0, 0.0)).compose(range(40), captions=1)
    }
    for half, label in zip(vectors[1:], pair.labels, strict=True):
        np.testing.assert_allclose(half, singles[(label,)][1], atol=1e-4)


def test_recordings_are_drawn_by_weight_and_never_without_one() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_recording(np.array([0.0, 1.0, 0.0, 3.0, 0.0]), generator) for _ in range(2000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert counts[3] / counts[1] == pytest.approx(3.0, rel=0.2)
