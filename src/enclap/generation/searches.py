"""Beam search, greedy search and sampling whose whole state lies in tensors that are made once, on any device.

Each advances by one token for the first clips of its state, without waiting for the device, and gives the results of
its twin in `enclap.decoding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from enclap.decoding.beam import BeamRules, BeamSettings, BeamState, Continuations, Hypothesis, SequenceLength
from enclap.decoding.sampling import SamplingSettings
from enclap.decoding.token_rules import START_LENGTH, TokenRules
from enclap.generation import arrays
from enclap.generation.token_rules import DeviceTokenRules


class DeviceSearch(Protocol):
    """A search over C clips with W sequences each.

    length: int64 [1], tokens in every sequence. fixed: whether a step is the same operations on the same memory
    whatever it computes.
    """

    length: Tensor
    fixed: bool

    @property
    def state(self) -> Sequence[Tensor]:
        """Tensors that lead with the clips; together with `length` they are all that a step changes."""
        ...

    def start(self) -> None:
        """Back to sequences of the start token alone."""
        ...

    def newest(self, clips: int) -> tuple[Tensor, Tensor]:
        """The last tokens, int64 [B, W], of the first B clips, and their position, int64 [1]."""
        ...

    def advance(self, logits: Tensor) -> Tensor | None:
        """Take a step by logits [B W, V] of the first B clips.

        Returns the sequences [B, W] of the same clip from which each goes on; None when each goes on from itself.
        """
        ...

    def force(self, token: int) -> None:
        """Give all sequences the same token, which costs nothing; they stay in their order."""
        ...

    def is_open(self) -> Tensor:
        """Bool [C]: the clips whose results may still change."""
        ...

    def results(self, clips: Tensor) -> list[list[Hypothesis]]:
        """Of clips, int64 [N], the sequences that are kept, best first."""
        ...


class DeviceBeams:
    """Beam search, with the rules that `enclap.decoding.beam.beam_search` follows."""

    fixed = True

    def __init__(self, clips: int, rules: TokenRules, settings: BeamSettings, device: torch.device) -> None:
        self._beams = BeamRules(arrays, rules, settings)
        self._rules = DeviceTokenRules(rules, device)
        start = BeamState.start(clips, rules, settings.beams)
        self._start = BeamState(*(torch.from_numpy(array).to(device) for array in start))
        self.state: BeamState = BeamState(*(tensor.clone() for tensor in self._start))
        self.length = torch.full((1,), START_LENGTH, device=device)
        self._divisors = torch.ones(rules.max_length, device=device)  # both by the tokens so far
        self._is_last = torch.zeros(rules.max_length, dtype=torch.bool, device=device)
        for tokens in range(START_LENGTH, rules.max_length):
            length = self._beams.length(tokens)
            self._divisors[tokens], self._is_last[tokens] = float(length.divisor), length.is_last

    def start(self) -> None:
        """Back to sequences of the start token alone."""
        for tensor, value in zip(self.state, self._start, strict=True):
            tensor.copy_(value)
        self.length.fill_(START_LENGTH)

    def newest(self, clips: int) -> tuple[Tensor, Tensor]:
        """The last tokens, int64 [B, W], of the first B clips, and their position, int64 [1]."""
        position = self.length - 1
        return self.state.running[:clips].index_select(2, position)[..., 0], position

    def advance(self, logits: Tensor) -> Tensor:
        """Take a step by logits [B W, V] of the first B clips; the beams [B, W] from which they go on."""
        beams, vocabulary = self._beams.settings.beams, logits.shape[1]
        state = BeamState(*(tensor[: len(logits) // beams] for tensor in self.state))
        scores = logits.log_softmax(-1)
        self._rules.apply(scores, state.running.flatten(0, 1), self.length)
        return self._grow(state, self._beams.best(state, scores.view(-1, beams, vocabulary)))

    def force(self, token: int) -> None:
        """Give all sequences the same token, which costs nothing; they stay in their order."""
        self._grow(self.state, self._beams.forced(self.state, token))

    def is_open(self) -> Tensor:
        """Bool [C]: the clips whose results may still change."""
        is_open: Tensor = self._beams.is_open(self.state)
        return is_open[:, 0]

    def results(self, clips: Tensor) -> list[list[Hypothesis]]:
        """Of clips, int64 [N], the sequences that are kept, best first."""
        return self._beams.results(self.state.done[clips], self.state.done_scores[clips])

    def _grow(self, state: BeamState, grown: Continuations) -> Tensor:
        divisor, is_last = (table.index_select(0, self.length) for table in (self._divisors, self._is_last))
        later, origins = self._beams.advance(state, grown, SequenceLength(self.length, divisor, is_last))
        for tensor, value in zip(state, later, strict=True):
            tensor.copy_(value)
        self.length += 1
        return cast(Tensor, origins)


class DeviceSampling:
    """Sampling as `enclap.decoding.sampling.sample` draws; without settings the likeliest token at every step."""

    def __init__(self, clips: int, rules: TokenRules, settings: SamplingSettings | None, device: torch.device) -> None:
        self.fixed = settings is None  # a sort of the vocabulary picks its operations by what it is given
        self._settings = settings
        self._rules = rules
        self._device_rules = DeviceTokenRules(rules, device)
        count = 1 if settings is None else settings.candidates
        sequences = torch.full((clips, count, rules.max_length), rules.pad, device=device)
        totals = torch.zeros((clips, count), device=device)
        self.state = (sequences, totals, torch.ones((clips, count), dtype=torch.bool, device=device))
        self.length = torch.full((1,), START_LENGTH, device=device)
        if settings is not None:  # the same numbers for every clip, so that none depends on those beside it
            points = np.random.default_rng(settings.seed).random((rules.max_length, count))
            self._points = torch.from_numpy(points).to(device)  # float64 [S, W]

    def start(self) -> None:
        """Back to sequences of the start token alone."""
        sequences, totals, is_open = self.state
        sequences.fill_(self._rules.pad)
        sequences[..., 0] = self._rules.start
        totals.zero_(), is_open.fill_(True)
        self.length.fill_(START_LENGTH)

    def newest(self, clips: int) -> tuple[Tensor, Tensor]:
        """The last tokens, int64 [B, W], of the first B clips, and their position, int64 [1]."""
        position = self.length - 1
        return self.state[0][:clips].index_select(2, position)[..., 0], position

    def advance(self, logits: Tensor) -> None:
        """Take a step by logits [B W, V] of the first B clips."""
        sequences, totals, is_open = (tensor[: len(logits) // self.state[1].shape[1]] for tensor in self.state)
        log_probabilities = logits.log_softmax(-1)
        self._device_rules.apply(logits, sequences.flatten(0, 1), self.length)
        if self._settings is None:
            chosen = logits.argmax(-1)
        else:
            points = self._points.index_select(0, self.length - START_LENGTH).expand(len(sequences), -1)
            chosen = draw(logits / self._settings.temperature, self._settings.top_p, points.reshape(-1))
        gained = log_probabilities.gather(1, chosen[:, None]).view_as(totals)
        totals += gained.masked_fill(~is_open, 0.0)
        self._append(chosen.view_as(totals), sequences, is_open)

    def force(self, token: int) -> None:
        """Give all open sequences the same token, which costs nothing."""
        sequences, _, is_open = self.state
        self._append(torch.full_like(sequences[..., 0], token), sequences, is_open)

    def is_open(self) -> Tensor:
        """Bool [C]: the clips whose results may still change."""
        return self.state[2].any(1)

    def results(self, clips: Tensor) -> list[list[Hypothesis]]:
        """Of clips, int64 [N], all sequences, most likely first."""
        found = []
        for rows, totals in zip(self.state[0][clips].tolist(), self.state[1][clips].tolist(), strict=True):
            stripped = [self._rules.stripped(row) for row in rows]
            hypotheses = [
                Hypothesis(tokens, total / (len(tokens) - START_LENGTH))
                for tokens, total in zip(stripped, totals, strict=True)
            ]
            found.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
        return found

    def _append(self, chosen: Tensor, sequences: Tensor, is_open: Tensor) -> None:
        chosen = chosen.masked_fill(~is_open, self._rules.pad)
        sequences.index_copy_(2, self.length, chosen[..., None])
        is_open &= chosen != self._rules.end
        self.length += 1


def draw(logits: Tensor, top_p: float, points: Tensor) -> Tensor:
    """One token per row of logits [R, V] at a point [R] of its nucleus, as `enclap.decoding.sampling.draw` takes it."""
    falling, order = logits.log_softmax(-1).sort(dim=-1, descending=True, stable=True)
    probabilities = falling.double().exp()
    before = probabilities.cumsum(-1) - probabilities  # probability of everything likelier
    probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    cumulative = probabilities.cumsum(-1)
    indices = (cumulative <= points[:, None] * cumulative[:, -1:]).sum(-1)
    last = ((probabilities > 0.0).sum(-1) - 1).clamp(min=0)  # none where logits are no numbers
    return order.gather(1, torch.minimum(indices, last)[:, None])[:, 0]
