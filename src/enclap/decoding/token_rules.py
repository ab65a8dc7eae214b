"""What a next token may be: forced first and last tokens, a least length, no repeated n-grams; in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from enclap.decoding.options import DecodingOptions
from enclap.errors import UsageError
from enclap.types import FloatArray, IntArray

START_LENGTH = 1
"""Tokens that a sequence holds before anything is decided: the decoder's start token."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """A model's special tokens and the rules of its generation_config.json.

    forced_first, forced_last: the token right after the start, and the one at max_length; None leaves them free.
    Lengths count every token, the start included, as transformers counts them. no_repeat_ngram 0 allows repeats.
    """

    start: int
    pad: int
    end: int
    forced_first: int | None
    forced_last: int | None
    min_length: int
    max_length: int
    no_repeat_ngram: int

    def resolved(self, options: DecodingOptions, positions: int) -> TokenRules:
        """These rules with what `options` set; UsageError when the options contradict each other.

        positions: rows of the decoder's position table, which bounds max_length.
        """
        longest = min(self.max_length if options.max_length is None else options.max_length, positions)
        shortest = self.min_length if options.min_length is None else options.min_length
        if shortest > longest:
            raise UsageError(f"min_length {shortest} is above max_length {longest}: lower one or raise the other")
        if not options.sample and options.candidates > options.width:
            raise UsageError(
                f"{options.candidates} candidates from {options.width} beams: ask for more beams, or sample"
            )
        ngram = self.no_repeat_ngram if options.no_repeat_ngram is None else options.no_repeat_ngram
        return replace(self, min_length=shortest, max_length=longest, no_repeat_ngram=ngram)

    def apply(self, scores: FloatArray, sequences: IntArray) -> None:
        """Set what may not follow to -inf, in place; for steps whose token is not forced.

        scores: float32 [R, V], log-probabilities or logits of the next token. sequences: int64 [R, S] so far.
        """
        ban_repeats(scores, sequences, self.no_repeat_ngram)
        if sequences.shape[1] < self.min_length:
            scores[:, self.end] = -np.inf

    def forced(self, length: int) -> int | None:
        """The token after `length` tokens where it is decided beforehand, so that it costs no log-probability."""
        if length == self.max_length - 1 and self.forced_last is not None:
            return self.forced_last
        return self.forced_first if length == START_LENGTH else None

    def stripped(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The tokens up to and with the first end token after the start, without padding."""
        for index in range(START_LENGTH, len(tokens)):
            if tokens[index] == self.end:
                return tuple(tokens[: index + 1])
        return tuple(tokens)


def ban_repeats(scores: FloatArray, sequences: IntArray, size: int) -> None:
    """Set to -inf, in place, every token that would complete an n-gram that its sequence holds already.

    scores: [R, V]. sequences: [R, S]. size: n; 0 bans nothing.
    """
    length = sequences.shape[1]
    if size == 0 or length < size:
        return
    ngrams = sliding_window_view(sequences, size, axis=1)  # [R, S - n + 1, n]
    tail = sequences[:, None, length - size + 1 :]  # [R, 1, n - 1]
    rows, indices = np.nonzero((ngrams[..., :-1] == tail).all(axis=-1))
    scores[rows, ngrams[rows, indices, -1]] = -np.inf


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities float32 along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normaliser: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normaliser
