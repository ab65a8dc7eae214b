"""Sampling in numpy: seeded draws from the likely tokens, each clip with random numbers of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enclap.decoding.beam import DecoderStep, Hypothesis, IncrementalDecoder
from enclap.decoding.token_rules import START_LENGTH, TokenRules, log_softmax
from enclap.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """candidates: sequences drawn per clip. The rest as `DecodingOptions` has it."""

    candidates: int
    temperature: float
    top_p: float
    seed: int


def sample(step: DecoderStep, clips: int, rules: TokenRules, settings: SamplingSettings) -> list[list[Hypothesis]]:
    """Drawn sequences of each clip, most likely first, scored by their mean log-probability at temperature 1.

    Every clip starts from the same seed, so that its sentences do not depend on the clips beside it.
    """
    generators = [np.random.default_rng(settings.seed) for _ in range(clips)]
    rows = (clips, settings.candidates)
    sequences = np.full((*rows, rules.max_length), rules.pad, dtype=np.int64)
    sequences[..., 0] = rules.start
    totals = np.zeros(rows, dtype=np.float32)
    is_open = np.ones(rows, dtype=np.bool_)
    decoder = IncrementalDecoder(step)
    length = START_LENGTH
    while is_open.any() and length < rules.max_length:
        points = np.stack([generator.random(settings.candidates) for generator in generators])  # [B, W]
        chosen = np.full(rows, rules.forced(length) or 0)
        if rules.forced(length) is None:
            logits = decoder.logits(sequences[..., :length])  # [B, W, V]
            log_probabilities = log_softmax(logits)
            flat = logits.reshape(-1, logits.shape[-1])
            rules.apply(flat, sequences[..., :length].reshape(len(flat), length))
            chosen = draw(flat / np.float32(settings.temperature), settings.top_p, points.reshape(-1)).reshape(rows)
            gained = np.take_along_axis(log_probabilities, chosen[..., None], axis=-1)[..., 0]
            totals += np.where(is_open, gained, 0)
        chosen = np.where(is_open, chosen, rules.pad)
        sequences[..., length] = chosen
        is_open &= chosen != rules.end
        length += 1
    found = []
    for rows_of_clip, scores in zip(sequences[:, :, :length].tolist(), totals.tolist(), strict=True):
        stripped = [rules.stripped(row) for row in rows_of_clip]
        hypotheses = [
            Hypothesis(ids, score / (len(ids) - START_LENGTH)) for ids, score in zip(stripped, scores, strict=True)
        ]
        found.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
    return found


def draw(logits: FloatArray, top_p: float, points: NDArray[np.float64]) -> IntArray:
    """One token per row of logits [R, V] from its nucleus: the fewest likeliest tokens that hold `top_p`.

    points: [R] in 0..1; the token is the one at that point of the nucleus's cumulative probability.
    Source: nucleus sampling, arXiv 1904.09751.
    """
    order = np.argsort(-logits, axis=-1, kind="stable")
    falling = np.take_along_axis(log_softmax(logits), order, axis=-1)
    probabilities = np.exp(falling, dtype=np.float64)
    before = probabilities.cumsum(axis=-1) - probabilities  # probability of everything likelier
    probabilities[before >= top_p] = 0.0
    cumulative = probabilities.cumsum(axis=-1)
    target = points[:, None] * cumulative[:, -1:]
    indices = (cumulative <= target).sum(axis=-1)  # [R]
    last = (probabilities > 0.0).sum(axis=-1) - 1
    return np.take_along_axis(order, np.minimum(indices, last)[:, None], axis=-1)[:, 0]
