"""Greedy and beam search in numpy, step for step as transformers 5 searches, so that both give the same sentences.

Source of the beam rules: transformers 5.24, generation/utils.py, `_beam_search`. Scores are float32 and "impossible"
is -1e9 there as here, because rounding decides which of two nearly equal beams wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enclap.decoding.token_rules import START_LENGTH, TokenRules, log_softmax
from enclap.types import FloatArray, IntArray

IMPOSSIBLE = np.float32(-1.0e9)
TOP_BLOCK = 512
"""Values that `top` compares by their largest first."""


class DecoderStep(Protocol):
    """A decoder with a memory of the tokens it was given, for W sequences of each of B clips.

    vocabulary: V, the number of tokens.
    """

    vocabulary: int

    def step(self, tokens: IntArray) -> FloatArray:
        """Logits float32 [B, W, V] for what follows `tokens` [B, W, N], N new ones, which are remembered."""
        ...

    def reorder(self, beams: IntArray) -> None:
        """Let sequence w of clip b go on from sequence beams[b, w] of the same clip."""
        ...


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished sequence: tokens with start and end, and its score."""

    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """beams: sequences kept per clip. keep: sequences returned per clip. The rest as `DecodingOptions` has it."""

    beams: int
    keep: int
    length_penalty: float = 1.0
    early_stopping: bool = True


class IncrementalDecoder:
    """Gives a decoder the tokens that it has not seen, when their logits are wanted and not before.

    A step whose token is decided beforehand needs no logits: the decoder then reads two tokens in its next step at
    hardly more than the cost of one.
    """

    def __init__(self, step: DecoderStep, rules: TokenRules) -> None:
        self.step = step
        self.rules = rules
        self._seen = 0

    def logits(self, sequences: IntArray) -> FloatArray:
        """Logits [B, W, V] after sequences [B, W, S]; zeros where the next token is forced anyway."""
        if self.rules.is_forced(sequences.shape[2]):
            return np.zeros((*sequences.shape[:2], self.step.vocabulary), dtype=np.float32)
        logits = self.step.step(sequences[..., self._seen :])
        self._seen = sequences.shape[2]
        return logits


def greedy_search(step: DecoderStep, clips: int, rules: TokenRules) -> list[list[Hypothesis]]:
    """The most likely token at every step; one hypothesis per clip, scored by its mean log-probability."""
    sequences = np.full((clips, rules.max_length), rules.pad, dtype=np.int64)
    sequences[:, 0] = rules.start
    totals = np.zeros(clips, dtype=np.float32)
    open_clips = np.ones(clips, dtype=np.bool_)
    decoder = IncrementalDecoder(step, rules)
    length = START_LENGTH
    while open_clips.any() and length < rules.max_length:
        logits = decoder.logits(sequences[:, None, :length])[:, 0]  # [B, V]
        log_probabilities = log_softmax(logits)
        rules.apply(logits, sequences[:, :length])
        chosen = np.where(open_clips, logits.argmax(axis=-1), rules.pad)
        if not rules.is_forced(length):
            totals += np.where(open_clips, log_probabilities[np.arange(clips), chosen], 0)
        sequences[:, length] = chosen
        open_clips &= chosen != rules.end
        length += 1
    stripped = [rules.stripped(row[:length].tolist()) for row in sequences]
    return [
        [Hypothesis(tokens, float(total) / (len(tokens) - START_LENGTH))]
        for tokens, total in zip(stripped, totals, strict=True)
    ]


class _BeamSearch:
    """The state of a beam search over B clips with W beams; every array leads with the clips."""

    def __init__(self, clips: int, rules: TokenRules, settings: BeamSettings) -> None:
        beams = settings.beams
        self.rules = rules
        self.settings = settings
        self.length = START_LENGTH
        self.running = np.full((clips, beams, rules.max_length), rules.pad, dtype=np.int64)
        self.running[..., 0] = rules.start
        self.running_scores = np.full((clips, beams), IMPOSSIBLE, dtype=np.float32)
        self.running_scores[:, 0] = 0.0  # all beams begin equal: only the first may spread
        self.done = self.running.copy()
        self.done_scores = np.full((clips, beams), IMPOSSIBLE, dtype=np.float32)
        self.is_done = np.zeros((clips, beams), dtype=np.bool_)
        self.improvable = np.ones((clips, 1), dtype=np.bool_)

    def advance(self, logits: FloatArray) -> tuple[IntArray, bool]:
        """Take the step that `logits` [B, W, V] allow: the beams [B, W] to go on from, and whether to go on."""
        clips, beams, vocabulary = logits.shape
        scores = log_softmax(logits.reshape(clips * beams, vocabulary))
        self.rules.apply(scores, self.running[..., : self.length].reshape(clips * beams, -1))
        total = scores.reshape(clips, beams, vocabulary) + self.running_scores[..., None]
        # Twice the beams, because at most one continuation of each beam can end: enough stay to go on with.
        values, indices = top(total.reshape(clips, -1), 2 * beams)
        origins = indices // vocabulary  # [B, 2 W]
        sequences = np.take_along_axis(self.running, origins[..., None], axis=1)
        sequences[..., self.length] = indices % vocabulary
        ends = (sequences[..., self.length] == self.rules.end) | (self.length + 1 >= self.rules.max_length)
        self._finish(sequences, values, ends)
        going_on, chosen = top(values + ends * IMPOSSIBLE, beams)
        self.running = np.take_along_axis(sequences, chosen[..., None], axis=1)
        self.running_scores = going_on
        self.length += 1
        # Note the clips whose best running sequence cannot beat their worst finished one at the present length.
        best = self.running_scores[:, :1] / np.float32((self.length - START_LENGTH) ** self.settings.length_penalty)
        worst = np.where(self.is_done, self.done_scores.min(axis=1, keepdims=True), IMPOSSIBLE)
        self.improvable &= (best > worst).any(axis=1, keepdims=True)
        stopped = self.settings.early_stopping and bool(self.is_done.all())
        goes_on = bool(self.improvable.any()) and not stopped and not bool(ends.all())
        return np.take_along_axis(origins, chosen, axis=1), goes_on

    def _finish(self, sequences: IntArray, values: FloatArray, ends: NDArray[np.bool_]) -> None:
        """Let ended ones among a clip's first W continuations compete with the sequences that ended before."""
        beams = self.settings.beams
        scores = values / np.float32((self.length + 1 - START_LENGTH) ** self.settings.length_penalty)
        just_done = ends & (np.arange(2 * beams) < beams)
        full = self.is_done.all(axis=1, keepdims=True) & self.settings.early_stopping
        for closed in (full, ~self.improvable, ~just_done):
            scores = scores + closed * IMPOSSIBLE
        self.done_scores, chosen = top(np.concatenate([self.done_scores, scores], axis=1), beams)
        merged = np.concatenate([self.done, sequences], axis=1)
        self.done = np.take_along_axis(merged, chosen[..., None], axis=1)
        self.is_done = np.take_along_axis(np.concatenate([self.is_done, just_done], axis=1), chosen, axis=1)

    def results(self) -> list[list[Hypothesis]]:
        """The best finished sequences of each clip, best first."""
        keep = self.settings.keep
        return [
            [
                Hypothesis(self.rules.stripped(tokens.tolist()), float(score))
                for tokens, score in zip(self.done[clip, :keep], self.done_scores[clip, :keep], strict=True)
            ]
            for clip in range(len(self.done))
        ]


def beam_search(step: DecoderStep, clips: int, rules: TokenRules, settings: BeamSettings) -> list[list[Hypothesis]]:
    """The best finished sequences of each clip, best first, scored by log-probability / length ** length_penalty.

    A clip's result does not depend on the others: once it can no longer change it ignores further steps.
    """
    search, decoder = _BeamSearch(clips, rules, settings), IncrementalDecoder(step, rules)
    goes_on = rules.max_length > START_LENGTH
    while goes_on:
        logits = decoder.logits(search.running[..., : search.length])
        beams, goes_on = search.advance(logits)
        step.reorder(beams)
    return search.results()


def top(values: FloatArray, count: int) -> tuple[FloatArray, IntArray]:
    """The `count` largest values of each row of [B, N], falling, and their indices; of equals the first comes first."""
    indices = np.stack([top_indices(row, count) for row in values])
    return np.take_along_axis(values, indices, axis=1), indices


def top_indices(row: FloatArray, count: int) -> IntArray:
    """Indices int64 [count] of the largest values of [N], falling, of equals the first first.

    Only blocks are searched whose largest value is among the `count` largest of all blocks: no other can hold one. That
    reads a vocabulary once, where sorting or partitioning it would cost as much as a decoding step.
    """
    size = TOP_BLOCK if len(row) >= 2 * count * TOP_BLOCK else len(row)
    starts = np.arange(0, len(row), size)
    largest = np.maximum.reduceat(row, starts)
    least = np.partition(largest, -count)[-count] if count <= len(largest) else -np.inf
    inside = np.concatenate([np.arange(start, min(start + size, len(row))) for start in starts[largest >= least]])
    inside = inside[row[inside] >= least]
    order = np.argsort(-row[inside], kind="stable")[:count]
    chosen: IntArray = inside[order]
    return chosen
