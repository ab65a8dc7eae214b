"""Quick dropout beside plain code that drops the same: equal losses and gradients, padded or computed again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from enclap.model import EnclapForConditionalGeneration, dropout
from enclap.model.dropout import draw_kept, quick_dropout
from reference_tiny import reference_batch, reference_model

NOISE = 1e-6  # of gradients that are zero on paper, as a key's bias has them


@contextmanager
def plain_dropout() -> Iterator[None]:
    """The slow twin: what is kept is drawn alike, and all else is written out as one would on paper."""

    def dropped(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        kept, share = draw_kept(input.shape, p)
        return input * kept / share

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        if is_causal:
            attn_mask = torch.ones(scores.shape[2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return dropped(scores.softmax(dim=-1), dropout_p) @ value

    with patch.multiple(functional, dropout=dropped, scaled_dot_product_attention=attention):
        yield


def dropping_model(rate: float, checkpointing: bool = False) -> EnclapForConditionalGeneration:
    """The reference model, which now drops in all places."""
    model = reference_model()
    config = model.config
    for module in model.modules():
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
    config.dropout = config.attention_dropout = config.activation_dropout = rate
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def step(model: EnclapForConditionalGeneration, mode: AbstractContextManager[Any]) -> tuple[float, dict[str, Tensor]]:
    """The loss and all gradients of one step."""
    torch.manual_seed(3)
    model.zero_grad()
    with mode:
        loss = model(**reference_batch()).loss
        loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("together", [1, 500, 2_000_000])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_those_of_plain_code(
    monkeypatch: pytest.MonkeyPatch, together: int, checkpointing: bool
) -> None:
    monkeypatch.setattr(dropout, "WEIGHTS_OF_A_PIECE", together)
    loss, gradients = step(dropping_model(0.2, checkpointing), quick_dropout())
    expected_loss, expected = step(dropping_model(0.2), plain_dropout())
    assert abs(loss - expected_loss) < 1e-5
    for name, gradient in expected.items():
        difference = (gradients[name] - gradient).norm()
        assert difference <= 1e-4 * gradient.norm() + NOISE, name
    other, _ = step(dropping_model(0.0), quick_dropout())
    assert abs(other - expected_loss) > 1e-3  # something was dropped


def test_attention_is_that_of_plain_code_with_either_kind_of_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, length, 8, generator=generator) for length in (5, 9, 9)]
    seen = torch.rand(2, 1, 5, 9, generator=generator) < 0.7
    seen[..., 0] = True
    for mask in (None, seen, torch.where(seen, 0.0, -torch.inf)):
        found = []
        for mode in (quick_dropout(), plain_dropout()):
            torch.manual_seed(1)
            parts = [part.clone().requires_grad_() for part in inputs]
            with mode:
                attended = functional.scaled_dot_product_attention(*parts, attn_mask=mask, dropout_p=0.3)
                (attended**2).sum().backward()
            found.append([attended.detach(), *(part.grad for part in parts)])
        for quick, plain in zip(*found, strict=True):
            torch.testing.assert_close(quick, plain, atol=1e-5, rtol=1e-5)


def test_what_is_dropped_is_a_matter_of_chance_and_of_the_seed() -> None:
    torch.manual_seed(0)
    kept, share = draw_kept((100, 1_001), 0.1)
    torch.manual_seed(0)
    again, _ = draw_kept((100, 1_001), 0.1)
    other, _ = draw_kept((100, 1_001), 0.1)
    assert torch.equal(kept, again) and not torch.equal(kept, other)
    assert abs(share - 0.9) < 1e-5 and kept.dtype == torch.uint8 and set(kept.unique().tolist()) == {0, 1}
    deviation = math.sqrt(0.1 * 0.9 / kept.numel())
    assert abs(kept.float().mean().item() - share) < 5 * deviation
    pairs = (kept[:, :-1] * kept[:, 1:]).float().mean().item()  # neighbours know nothing of each other
    assert abs(pairs - share**2) < 5 * deviation


def test_nothing_is_dropped_outside_of_training_or_without_a_rate() -> None:
    values = torch.randn(4, 5)
    with quick_dropout():
        assert torch.equal(functional.dropout(values, 0.5, training=False), values)
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert torch.equal(functional.dropout(values, 1.0), torch.zeros(4, 5))
        model = dropping_model(0.2).eval()
        first, second = (model(**reference_batch()).loss for _ in range(2))
    assert torch.equal(first, second)
