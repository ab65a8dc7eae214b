"""Which codes are hidden: spans, share, seeds, and clips of any length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclap.model.masking import IGNORED, clip_generator, hidden_frames, mask_codes
from reference_tiny import golden


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(0, 60), seed=st.integers(0, 10_000))
def test_hidden_codes_lie_in_spans(frames: int, seed: int) -> None:
    hidden = hidden_frames(frames, 3, np.random.default_rng(seed), probability=0.3, span=5)
    assert hidden.shape == (frames, 3)
    for codebook in range(3):
        covered = np.zeros(frames, dtype=bool)
        for start in range(frames - min(5, frames) + 1):  # the definition: a frame is in some wholly hidden span
            if hidden[start : start + min(5, frames), codebook].all():
                covered[start : start + 5] = True
        np.testing.assert_array_equal(hidden[:, codebook], covered[:frames])


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(0, 60), codebooks=st.integers(0, 4), seed=st.integers(0, 10_000))
def test_hidden_codes_are_those_of_the_slow_twin(frames: int, codebooks: int, seed: int) -> None:
    """The twin marks span after span; both leave the generator where it was, so that nothing drawn later changes."""
    quick, slow = np.random.default_rng(seed), np.random.default_rng(seed)
    wanted, length = np.zeros((frames, codebooks), dtype=bool), min(5, frames)
    for codebook in range(codebooks if frames else 0):
        spans = min(frames - length + 1, int(frames * 0.3 / length + slow.random()))
        for start in slow.choice(frames - length + 1, size=spans, replace=False):
            wanted[start : start + length, codebook] = True
    np.testing.assert_array_equal(hidden_frames(frames, codebooks, quick, probability=0.3, span=5), wanted)
    assert quick.random() == slow.random()


def test_share_of_hidden_codes() -> None:
    long = hidden_frames(100_000, 4, np.random.default_rng(0))
    assert long.mean() == pytest.approx(1 - np.exp(-0.15), abs=0.005)  # spans overlap
    generator = np.random.default_rng(0)
    single = np.stack([hidden_frames(1, 16, generator) for _ in range(1000)])
    assert single.mean() == pytest.approx(0.15, abs=0.01)


def test_codebooks_draw_their_own_spans() -> None:
    hidden = hidden_frames(90, 16, np.random.default_rng(0))
    assert len({hidden[:, codebook].tobytes() for codebook in range(16)}) > 10


def test_draws_depend_on_seed_epoch_and_clip_alone() -> None:
    def draw(seed: int, epoch: int, clip: str) -> bytes:
        return hidden_frames(200, 4, clip_generator(seed, epoch, clip)).tobytes()

    assert draw(1, 2, "dog") == draw(1, 2, "dog")
    assert len({draw(1, 2, "dog"), draw(0, 2, "dog"), draw(1, 3, "dog"), draw(1, 2, "cat")}) == 4


def test_hidden_arrays_are_the_official_ones() -> None:
    arrays = golden("collate")
    for row, clip in enumerate("ab"):
        codes = arrays[f"codes_{clip}"].astype(np.int64)
        frames = len(codes)
        labels = arrays["train_pair_mcm_labels"][row, 2 : 2 + frames]
        ours, our_labels = mask_codes(codes, labels != IGNORED, 1024)
        np.testing.assert_array_equal(ours, arrays["train_pair_input_ids"][row, 2 : 2 + frames])
        np.testing.assert_array_equal(our_labels, labels)
