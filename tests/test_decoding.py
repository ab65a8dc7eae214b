"""The numpy search against slow twins: filters by definition, beam search clip by clip, sampling by frequency."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclap.decoding.arrays import top
from enclap.decoding.beam import BeamSettings, Hypothesis, beam_search, greedy_search
from enclap.decoding.options import DecodingOptions
from enclap.decoding.sampling import SamplingSettings, draw, sample
from enclap.decoding.token_rules import TokenRules, ban_repeats, log_softmax
from enclap.errors import UsageError
from enclap.types import FloatArray, IntArray

VOCABULARY = 9
RULES = TokenRules(start=2, pad=1, end=2, forced_first=0, forced_last=2, min_length=0, max_length=8, no_repeat_ngram=0)


class TableStepper:
    """A decoder whose logits are a seeded table of the clip, the position and the last two tokens."""

    def __init__(self, seeds: list[int], rows: int) -> None:
        self._tables = [
            np.random.default_rng(seed).normal(size=(10, VOCABULARY, VOCABULARY, VOCABULARY)).astype(np.float32) * 2
            for seed in seeds
        ]
        self._last = np.zeros((len(seeds), rows), dtype=np.int64)
        self._before = self._last.copy()
        self._position = 0

    def step(self, tokens: IntArray) -> FloatArray:
        for new in np.moveaxis(tokens, 2, 0):
            self._before, self._last = self._last, new.copy()
            tables = zip(self._tables, self._before, self._last, strict=True)
            logits = np.stack([table[self._position][before, last] for table, before, last in tables])
            self._position += 1
        return logits

    def reorder(self, beams: IntArray) -> None:
        self._last = np.take_along_axis(self._last, beams, axis=1)
        self._before = np.take_along_axis(self._before, beams, axis=1)


def slow_step(table: np.ndarray, tokens: list[int]) -> FloatArray:
    before = tokens[-2] if len(tokens) > 1 else 0
    return table[len(tokens) - 1][before, tokens[-1]].copy()


def slow_scores(table: np.ndarray, tokens: list[int], rules: TokenRules) -> list[float]:
    """Log-probabilities of what may follow one sequence, rule by rule."""
    scores = log_softmax(slow_step(table, tokens)).tolist()
    for token in range(VOCABULARY):
        size = rules.no_repeat_ngram
        ngrams = {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
        if size and tuple([*tokens, token][-size:]) in ngrams:
            scores[token] = -math.inf
    if len(tokens) < rules.min_length:
        scores[rules.end] = -math.inf
    forced = {1: rules.forced_first, rules.max_length - 1: rules.forced_last}.get(len(tokens))
    if forced is not None:
        scores = [0.0 if token == forced else -math.inf for token in range(VOCABULARY)]
    return scores


def slow_beam_search(seed: int, rules: TokenRules, settings_: BeamSettings) -> list[Hypothesis]:
    """One clip, lists of sequences: the beam rules as a reader would write them down."""
    table = np.random.default_rng(seed).normal(size=(10, VOCABULARY, VOCABULARY, VOCABULARY)).astype(np.float32) * 2
    running: list[tuple[float, list[int]]] = [(0.0, [rules.start])]
    done: list[tuple[float, list[int]]] = []
    while True:
        grown = [
            (total + score, [*tokens, token])
            for total, tokens in running
            for token, score in enumerate(slow_scores(table, tokens, rules))
        ]
        grown = sorted(grown, key=lambda item: -item[0])[: 2 * settings_.beams]
        length = len(grown[0][1])
        for total, tokens in grown[: settings_.beams]:
            if (tokens[-1] == rules.end or length == rules.max_length) and total > -math.inf:
                done.append((total / (length - 1) ** settings_.length_penalty, tokens))
        done = sorted(done, key=lambda item: -item[0])[: settings_.beams]
        running = [item for item in grown if item[1][-1] != rules.end and item[0] > -math.inf][: settings_.beams]
        full = len(done) == settings_.beams
        if length == rules.max_length or (full and settings_.early_stopping):
            break
        if full and running[0][0] / (length - 1) ** settings_.length_penalty <= done[-1][0]:
            break
    return [Hypothesis(tuple(tokens), score) for score, tokens in done[: settings_.keep]]


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("changes", [{}, {"forced_first": None}, {"no_repeat_ngram": 2}, {"min_length": 6}])
def test_beam_search_equals_its_slow_twin(
    early_stopping: bool, length_penalty: float, changes: dict[str, int | None]
) -> None:
    rules = TokenRules(**({name: getattr(RULES, name) for name in RULES.__slots__} | changes))
    seeds = list(range(12))
    for beams in (2, 4):
        choice = BeamSettings(beams, 2, length_penalty, early_stopping)
        found = beam_search(TableStepper(seeds, beams), len(seeds), rules, choice)
        for seed, hypotheses in zip(seeds, found, strict=True):
            expected = slow_beam_search(seed, rules, choice)
            assert [item.tokens for item in hypotheses] == [item.tokens for item in expected]
            np.testing.assert_allclose(
                [item.score for item in hypotheses], [item.score for item in expected], rtol=1e-5, atol=1e-5
            )


def test_greedy_is_the_likeliest_token_at_every_step() -> None:
    seeds = list(range(10))
    found = greedy_search(TableStepper(seeds, 1), len(seeds), RULES)
    for seed, [hypothesis] in zip(seeds, found, strict=True):
        table = np.random.default_rng(seed).normal(size=(10, VOCABULARY, VOCABULARY, VOCABULARY)).astype(np.float32) * 2
        tokens, total = [RULES.start], 0.0
        while len(tokens) == 1 or (tokens[-1] != RULES.end and len(tokens) < RULES.max_length):
            scores = slow_scores(table, tokens, RULES)
            total += max(scores)
            tokens.append(int(np.argmax(scores)))
        assert hypothesis.tokens == tuple(tokens)
        assert hypothesis.score == pytest.approx(total / (len(tokens) - 1), abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), size=st.integers(0, 4))
def test_banned_tokens_are_those_that_repeat_an_ngram(data: st.DataObject, size: int) -> None:
    row = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=12))
    scores = np.zeros((1, 4), dtype=np.float32)
    ban_repeats(scores, np.array([row]), size)
    seen = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
    for token in range(4):
        repeats = size > 0 and tuple([*row, token][-size:]) in seen
        assert (scores[0, token] == -np.inf) == repeats


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.integers(0, 5), min_size=4, max_size=30), count=st.integers(1, 4))
def test_top_is_a_stable_sort(values: list[int], count: int) -> None:
    array = np.array([values], dtype=np.float32)
    best, places = top(array, count)
    assert best[0].tolist() == sorted(values, reverse=True)[:count]
    assert array[0, places[0]].tolist() == best[0].tolist()
    assert len(set(places[0].tolist())) == count


def test_top_takes_the_first_of_equals() -> None:
    values = np.zeros((1, 500), dtype=np.float32)
    values[0, [100, 400]] = 1.0
    assert top(values, 5)[1][0].tolist() == [100, 400, 0, 1, 2]


@pytest.mark.parametrize("size", [8191, 8192, 8193, 50265])
def test_top_of_a_vocabulary_is_a_stable_sort(size: int) -> None:
    generator = np.random.default_rng(size)
    values = generator.integers(-40, 40, (5, size)).astype(np.float32)  # many equals
    values[1] = np.where(generator.random(size) < 0.999, -np.inf, values[1])
    values[2, 5:] = -np.inf
    values[3] = -1e9
    best, places = top(values, 8)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :8]
    assert (places == expected).all() and (best == np.take_along_axis(values, expected, axis=1)).all()


def test_draws_follow_the_nucleus() -> None:
    logits = np.log(np.array([[0.1, 0.5, 0.3, 0.1]], dtype=np.float32))
    points = np.linspace(0, 1, 1001)[:-1]
    drawn = draw(np.repeat(logits, len(points), axis=0), 0.75, points)
    share = np.bincount(drawn, minlength=4) / len(points)
    np.testing.assert_allclose(share, [0, 0.625, 0.375, 0], atol=0.002)


def test_samples_are_seeded_and_independent_of_the_batch() -> None:
    choice = SamplingSettings(candidates=3, temperature=1.0, top_p=0.9, seed=5)
    together = sample(TableStepper([1, 2, 3], 3), 3, RULES, choice)
    alone = [sample(TableStepper([seed], 3), 1, RULES, choice)[0] for seed in (1, 2, 3)]
    assert together == alone
    other = sample(TableStepper([1], 3), 1, RULES, SamplingSettings(3, 1.0, 0.9, seed=6))[0]
    assert other != alone[0]
    scores = [item.score for item in together[0]]
    assert scores == sorted(scores, reverse=True)


def test_contradicting_options_are_refused() -> None:
    with pytest.raises(UsageError, match="min_length 20 is above max_length 10"):
        RULES.resolved(DecodingOptions(min_length=20, max_length=10), 64)
    with pytest.raises(UsageError, match="5 candidates from 4 beams"):
        RULES.resolved(DecodingOptions(candidates=5), 64)


def test_lengths_stay_within_the_positions() -> None:
    assert RULES.resolved(DecodingOptions(max_length=500), 64).max_length == 64
    assert RULES.resolved(DecodingOptions(), 64).max_length == RULES.max_length
