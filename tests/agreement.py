"""The agreement test that every engine must pass: the torch engine's token ids, alone and in batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enclap.decoding.options import DecodingOptions
from enclap.engines import Engine
from enclap.types import Candidate, Features, Waveform, Window

SCORE_TOLERANCE = 1e-4  # float32 sums in another order, over a few dozen tokens
EMBEDDING_TOLERANCE = 1e-5
CODE_SHARE = 0.995  # a residual that lies between two entries may round either way

GREEDY = DecodingOptions(beams=1)


def released_options() -> DecodingOptions:
    """Beam search with the flags of the published model (tests/golden/enclap_tiny/generation_flags.json)."""
    path = Path(__file__).parent / "golden" / "enclap_tiny" / "generation_flags.json"
    flags = json.loads(path.read_text())
    return DecodingOptions(
        beams=flags["num_beams"],
        max_length=flags["max_length"],
        no_repeat_ngram=flags["no_repeat_ngram_size"],
        early_stopping=flags["early_stopping"],
    )


def random_windows(count: int, *, rate: int = 16_000, longest: float = 10.0, seed: int = 0) -> list[Window]:
    """Seeded windows of noise, loud and soft, white and brown; every third is 2 s long, so that some share a length."""
    generator = np.random.default_rng(seed)
    windows = []
    for index in range(count):
        length = 2 * rate if index % 3 == 0 else int(generator.integers(1, int(longest * rate)))
        samples = generator.standard_normal(length)
        if index % 2:
            samples = np.cumsum(samples) / np.sqrt(length)
        samples = samples * generator.uniform(0.001, 0.3)
        windows.append(Window(Waveform(samples.astype(np.float32), rate), 0.0, length / rate))
    return windows


def assert_features_agree(found: Sequence[Features], reference: Sequence[Features]) -> None:
    """The same codes but for rounding, and the same embeddings."""
    assert len(found) == len(reference)
    for ours, theirs in zip(found, reference, strict=True):
        assert ours.codes.shape == theirs.codes.shape and ours.codes.dtype == np.int64
        assert (ours.embedding is None) == (theirs.embedding is None)
        if ours.embedding is not None and theirs.embedding is not None:
            np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=EMBEDDING_TOLERANCE)
    codes = [np.concatenate([item.codes.ravel() for item in features]) for features in (found, reference)]
    assert len(codes[0]) == 0 or (codes[0] == codes[1]).mean() >= CODE_SHARE


def assert_candidates_agree(found: Sequence[list[Candidate]], reference: Sequence[list[Candidate]]) -> None:
    """The same token ids and texts, and nearly the same scores, candidate by candidate."""
    assert [[item.token_ids for item in clip] for clip in found] == [
        [item.token_ids for item in clip] for clip in reference
    ]
    for ours, theirs in zip(found, reference, strict=True):
        assert [item.text for item in ours] == [item.text for item in theirs]
        scores = [[item.score for item in clip] for clip in (ours, theirs)]
        np.testing.assert_allclose(scores[0], scores[1], atol=SCORE_TOLERANCE, rtol=SCORE_TOLERANCE)


def assert_engines_agree(
    engine: Engine, reference: Engine, features: Sequence[Features], options: DecodingOptions
) -> None:
    """The reference's candidates for every clip, all clips in one call and each alone."""
    expected = reference.generate(features, options)
    assert_candidates_agree(engine.generate(features, options), expected)
    alone = [engine.generate([clip], options)[0] for clip in features]
    assert_candidates_agree(alone, expected)
