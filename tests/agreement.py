"""The agreement that every engine must show with the torch engine: `assert_engine_agrees` and what it is made of.

test_engines.py runs it on every engine in `enclap.engines.ENGINES`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from enclap.decoding.options import DecodingOptions
from enclap.engines import Engine
from enclap.types import Candidate, Features, Waveform, Window

SCORE_TOLERANCE = 1e-4  # float32 sums in another order, over a few dozen tokens
EMBEDDING_TOLERANCE = 1e-5
CODE_SHARE = 0.995  # a residual that lies between two entries may round either way

TEXT_TOLERANCE = 1e-5

GREEDY = DecodingOptions(beams=1)
TEXTS = ["A dog barks.", "Rain", "A bell rings. " * 40]


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


def assert_sentences_agree(
    engine: Engine, reference: Engine, features: Sequence[Features], options: DecodingOptions
) -> None:
    """The reference's candidates for every clip, all clips in one call and each alone."""
    expected = reference.generate(features, options)
    assert_candidates_agree(engine.generate(features, options), expected)
    alone = [engine.generate([clip], options)[0] for clip in features]
    assert_candidates_agree(alone, expected)


def assert_texts_agree(engine: Engine, reference: Engine) -> None:
    """The same text embeddings, whatever texts are beside a text."""
    assert engine.can_embed_text == reference.can_embed_text
    if not engine.can_embed_text:
        return
    found = engine.embed_text(TEXTS)
    np.testing.assert_allclose(found, reference.embed_text(TEXTS), atol=TEXT_TOLERANCE)
    np.testing.assert_allclose(found[1:2], engine.embed_text(TEXTS[1:2]), atol=TEXT_TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.ones(len(TEXTS)), atol=TEXT_TOLERANCE)


def assert_nothing_gives_nothing(engine: Engine) -> None:
    """No windows, clips or texts give no features, candidates or embeddings."""
    assert engine.extract([]) == [] and engine.generate([], GREEDY) == []
    if engine.can_embed_text:
        some, none = engine.embed_text(["Rain"]), engine.embed_text([])
        assert none.shape == (0, some.shape[1]) and none.dtype == np.float32


def assert_two_threads_change_nothing(engine: Engine, windows: Sequence[Window], options: DecodingOptions) -> None:
    """`extract` and `generate` at the same time give what they give one after the other."""
    features = engine.extract(windows)
    candidates = engine.generate(features, options)
    with ThreadPoolExecutor(2) as pool:
        extracting = [pool.submit(engine.extract, windows)]
        searching = [pool.submit(engine.generate, features, options)]
        for _ in range(2):  # the next call of either begins when its last one has ended, whatever the other does
            extracting[-1].result(), extracting.append(pool.submit(engine.extract, windows))
            searching[-1].result(), searching.append(pool.submit(engine.generate, features, options))
    for found in extracting:
        assert_features_agree(found.result(), features)
    for sentences in searching:
        assert_candidates_agree(sentences.result(), candidates)


def assert_engine_agrees(engine: Engine, reference: Engine) -> None:
    """All of it, on a handful of windows: what a new engine has to show."""
    windows = random_windows(5, seed=1, longest=3.0)
    features = engine.extract(windows)
    assert_features_agree(features, reference.extract(windows))
    assert_features_agree([engine.extract([window])[0] for window in windows], features)
    for options in (GREEDY, released_options(), DecodingOptions(candidates=4)):
        assert_sentences_agree(engine, reference, features, options)
    assert_texts_agree(engine, reference)
    assert_nothing_gives_nothing(engine)
    assert_two_threads_change_nothing(engine, windows, GREEDY)
