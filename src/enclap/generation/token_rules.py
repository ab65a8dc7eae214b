"""What a next token may be, for sequences on a device whose length is on the device too; see `decoding.token_rules`."""

from __future__ import annotations

import torch
from torch import Tensor

from enclap.decoding.token_rules import START_LENGTH, TokenRules


class DeviceTokenRules:
    """`TokenRules.apply` with operations of fixed shapes, none of which waits for the device."""

    def __init__(self, rules: TokenRules, device: torch.device) -> None:
        self._rules = rules
        lengths, size = torch.arange(rules.max_length, device=device), max(rules.no_repeat_ngram, 1)
        self._no_end = torch.zeros(rules.max_length, device=device)  # [S]
        self._no_end[lengths < rules.min_length] = -torch.inf  # added to the score of the end token
        before = torch.arange(1 - size, 0, device=device)
        self._tail = (lengths[:, None] + before).clamp(min=0)  # [S, n - 1], by length where the last tokens stand
        self._is_past = lengths[size - 1 :] < lengths[:, None]  # [S, S - n + 1], by length which n-grams there are

    def apply(self, scores: Tensor, sequences: Tensor, length: Tensor) -> None:
        """Set what may not follow to -inf, in place.

        scores: float32 [R, V]. sequences: int64 [R, S], of which the first `length` tokens count, an int64 tensor [1].
        """
        size = self._rules.no_repeat_ngram
        if 0 < size <= self._rules.max_length:
            ngrams = sequences.unfold(1, size, 1)  # [R, S - n + 1, n]
            tail = sequences.index_select(1, self._tail.index_select(0, length)[0])  # [R, n - 1]
            repeats = (ngrams[..., :-1] == tail[:, None]).all(dim=-1) & self._is_past.index_select(0, length)
            banned = torch.zeros_like(repeats, dtype=scores.dtype).masked_fill_(repeats, -torch.inf)
            scores.scatter_add_(1, ngrams[..., -1], banned)
        if self._rules.min_length > START_LENGTH:
            scores[:, self._rules.end] += self._no_end.index_select(0, length)
