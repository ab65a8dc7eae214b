"""Greedy and beam search, step for step as transformers 5 searches, so that both give the same sentences.

Source of the beam rules: transformers 5.24, generation/utils.py, `_beam_search`. Scores are float32 and "impossible"
is -1e9 there as here, because rounding decides which of two nearly equal beams wins. The beam rules (`BeamRules`) hold
for numpy arrays, which `beam_search` here runs on, and for tensors, which `enclap.generation` keeps on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from enclap.decoding import arrays as numpy_arrays
from enclap.decoding.arrays import IMPOSSIBLE, ArrayFunctions
from enclap.decoding.token_rules import START_LENGTH, TokenRules, log_softmax
from enclap.types import FloatArray, IntArray


class DecoderStep(Protocol):
    """A decoder with a memory of the tokens it was given, for W sequences of each of B clips."""

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

    def __init__(self, step: DecoderStep) -> None:
        self.step = step
        self._seen = 0

    def logits(self, sequences: IntArray) -> FloatArray:
        """Logits [B, W, V] after sequences [B, W, S]."""
        logits = self.step.step(sequences[..., self._seen :])
        self._seen = sequences.shape[2]
        return logits


def greedy_search(step: DecoderStep, clips: int, rules: TokenRules) -> list[list[Hypothesis]]:
    """The most likely token at every step; one hypothesis per clip, scored by its mean log-probability."""
    sequences = np.full((clips, rules.max_length), rules.pad, dtype=np.int64)
    sequences[:, 0] = rules.start
    totals = np.zeros(clips, dtype=np.float32)
    open_clips = np.ones(clips, dtype=np.bool_)
    decoder = IncrementalDecoder(step)
    length = START_LENGTH
    while open_clips.any() and length < rules.max_length:
        chosen = np.full(clips, rules.forced(length) or 0)
        if rules.forced(length) is None:
            logits = decoder.logits(sequences[:, None, :length])[:, 0]  # [B, V]
            log_probabilities = log_softmax(logits)
            rules.apply(logits, sequences[:, :length])
            chosen = logits.argmax(axis=-1)
            totals += np.where(open_clips, log_probabilities[np.arange(clips), chosen], 0)
        chosen = np.where(open_clips, chosen, rules.pad)
        sequences[:, length] = chosen
        open_clips &= chosen != rules.end
        length += 1
    stripped = [rules.stripped(row[:length].tolist()) for row in sequences]
    return [
        [Hypothesis(tokens, float(total) / (len(tokens) - START_LENGTH))]
        for tokens, total in zip(stripped, totals, strict=True)
    ]


class BeamState(NamedTuple):
    """A beam search over B clips with W beams; numpy arrays or tensors, and every one leads with the clips.

    running: int64 [B, W, max_length], the sequences that go on, best first. running_scores: float32 [B, W], their
    log-probabilities. done, done_scores: the same of the best sequences that ended, with their final scores.
    is_done: bool [B, W], which rows of `done` hold one. improvable: bool [B, 1], whether `done` may still change.
    """

    running: Any
    running_scores: Any
    done: Any
    done_scores: Any
    is_done: Any
    improvable: Any

    @classmethod
    def start(cls, clips: int, rules: TokenRules, beams: int) -> BeamState:
        """The state before the first token, in numpy."""
        running = np.full((clips, beams, rules.max_length), rules.pad, dtype=np.int64)
        running[..., 0] = rules.start
        running_scores = np.full((clips, beams), IMPOSSIBLE, dtype=np.float32)
        running_scores[:, 0] = 0.0  # all beams begin equal: only the first may spread
        done_scores = np.full((clips, beams), IMPOSSIBLE, dtype=np.float32)
        is_done, improvable = np.zeros((clips, beams), dtype=np.bool_), np.ones((clips, 1), dtype=np.bool_)
        return cls(running, running_scores, running.copy(), done_scores, is_done, improvable)


@dataclass(frozen=True, slots=True)
class Continuations:
    """The 2 W best continuations of each clip's sequences, best first.

    scores: float32 [B, 2 W], log-probabilities. origins: int64 [B, 2 W], the beams that they continue.
    tokens: int64 [B, 2 W].
    """

    scores: Any
    origins: Any
    tokens: Any


@dataclass(frozen=True, slots=True)
class SequenceLength:
    """How far a search is: numbers, or tensors of one element, so that a recorded step depends on no number.

    tokens: in every sequence. divisor: what scores of sequences with one more are divided by. is_last: whether that one
    is the last that fits.
    """

    tokens: Any
    divisor: Any
    is_last: Any


class BeamRules:
    """How the sequences of a beam search grow and end. arrays: `enclap.decoding.arrays`, or a module like it.

    No value is looked at, so that the steps of a device need not wait for each other.
    """

    def __init__(self, arrays: ArrayFunctions, rules: TokenRules, settings: BeamSettings) -> None:
        self.arrays = arrays
        self.rules = rules
        self.settings = settings

    def length(self, tokens: int) -> SequenceLength:
        """Where a search is whose sequences have so many tokens."""
        divisor = np.float32((tokens + 1 - START_LENGTH) ** self.settings.length_penalty)
        return SequenceLength(tokens, divisor, tokens + 1 >= self.rules.max_length)

    def best(self, state: BeamState, scores: Any) -> Continuations:
        """The best continuations by the log-probabilities [B, W, V] of what may follow."""
        clips, _, vocabulary = scores.shape
        total = scores + state.running_scores[..., None]
        # Twice the beams, because at most one continuation of each beam can end: enough stay to go on with.
        values, indices = self.arrays.top(total.reshape(clips, -1), 2 * self.settings.beams)
        return Continuations(values, indices // vocabulary, indices % vocabulary)

    def forced(self, state: BeamState, token: int) -> Continuations:
        """The continuations where the next token is decided beforehand, and costs no log-probability."""
        scores = self.arrays.join(state.running_scores, state.running_scores - np.inf)
        origins = self.arrays.ranks(scores) % self.settings.beams
        return Continuations(scores, origins, origins * 0 + token)

    def advance(self, state: BeamState, grown: Continuations, length: SequenceLength) -> tuple[BeamState, Any]:
        """The state one token later, and the beams [B, W] that its running sequences go on from."""
        arrays, beams = self.arrays, self.settings.beams
        sequences = arrays.put(arrays.take(state.running, grown.origins), length.tokens, grown.tokens)
        ends = (grown.tokens == self.rules.end) | length.is_last
        # Ended ones among the first W compete with those that ended before, unless nothing can change for their clip.
        competing = arrays.lower(grown.scores[:, :beams] / length.divisor, ~(self.is_open(state) & ends[:, :beams]))
        done_scores, kept = arrays.top(arrays.join(state.done_scores, competing), beams)
        done = arrays.take(arrays.join(state.done, sequences[:, :beams]), kept)
        is_done = arrays.take(arrays.join(state.is_done, ends[:, :beams]), kept)
        running_scores, chosen = arrays.top(arrays.lower(grown.scores, ends), beams)
        # Note the clips whose best running sequence cannot beat their worst finished one at the present length.
        best, worst = running_scores[:, :1] / length.divisor, arrays.keep(done_scores[:, -1:], is_done)
        improvable = state.improvable & (best > worst).any(axis=1, keepdims=True)
        running = arrays.take(sequences, chosen)
        state = BeamState(running, running_scores, done, done_scores, is_done, improvable)
        return state, arrays.take(grown.origins, chosen)

    def is_open(self, state: BeamState) -> Any:
        """Bool [B, 1]: the clips whose finished sequences may still change."""
        if not self.settings.early_stopping:
            return state.improvable
        return state.improvable & ~state.is_done.all(axis=1, keepdims=True)

    def results(self, done: IntArray, scores: FloatArray) -> list[list[Hypothesis]]:
        """Of each clip's finished sequences [B, W, S] with scores [B, W] those that are kept, best first."""
        keep = self.settings.keep
        return [
            [Hypothesis(self.rules.stripped(row), score) for row, score in zip(rows[:keep], clip[:keep], strict=True)]
            for rows, clip in zip(done.tolist(), scores.tolist(), strict=True)
        ]


def beam_search(step: DecoderStep, clips: int, rules: TokenRules, settings: BeamSettings) -> list[list[Hypothesis]]:
    """The best finished sequences of each clip, best first, scored by log-probability / length ** length_penalty.

    A clip's result does not depend on the others: once it can no longer change it ignores further steps.
    """
    search, decoder = BeamRules(numpy_arrays, rules, settings), IncrementalDecoder(step)
    state = BeamState.start(clips, rules, settings.beams)
    for length in range(START_LENGTH, rules.max_length):
        forced = rules.forced(length)
        if forced is None:
            logits = decoder.logits(state.running[..., :length])
            scores = log_softmax(logits)
            rules.apply(scores.reshape(-1, scores.shape[-1]), state.running[..., :length].reshape(-1, length))
            grown = search.best(state, scores)
        else:
            grown = search.forced(state, forced)
        state, origins = search.advance(state, grown, search.length(length))
        step.reorder(origins)
        if not search.is_open(state).any():
            break
    return search.results(state.done, state.done_scores)
