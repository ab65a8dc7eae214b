"""Reading the encoder without its keys and values: equal to BART's own attention in values, gradients and dropout."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import BartConfig
from transformers.models.bart.modeling_bart import BartAttention

from enclap.model import cross_attention
from enclap.model.cross_attention import few_queries, is_served
from enclap.model.dropout import quick_dropout
from reference_tiny import reference_batch, reference_model

NOISE = 1e-6  # of gradients that are zero on paper, as a key's bias has them


def attention_of(rate: float) -> BartAttention:
    """Four heads of eight, with weights and biases that are not small."""
    torch.manual_seed(0)
    module = BartAttention(32, 4, dropout=rate, is_decoder=True, config=BartConfig(), layer_idx=0)
    module.config._attn_implementation = "sdpa"
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return module.train()


def read(module: BartAttention, tokens: int, mask: Tensor | None, mode: AbstractContextManager[Any]) -> list[Tensor]:
    """What three captions read of clips of 21 slots, and all gradients."""
    generator = torch.Generator().manual_seed(1)
    asking, slots = (torch.randn(3, size, 32, generator=generator).requires_grad_() for size in (tokens, 21))
    module.zero_grad()
    torch.manual_seed(2)
    with mode:
        attended, _ = module(asking, key_value_states=slots, attention_mask=mask)
        (attended**2).mean().backward()
    return [attended.detach(), asking.grad, slots.grad, *(weight.grad for weight in module.parameters())]


def seen_slots() -> Tensor:
    """Bool [3, 1, 1, 21]: the second clip has 13 slots, the third one."""
    return (torch.arange(21) < torch.tensor([[21], [13], [1]]))[:, None, None]


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_values_and_gradients_are_those_of_bart(rate: float) -> None:
    seen = seen_slots()
    for mask in (None, seen, torch.where(seen, 0.0, -torch.inf)):
        with quick_dropout():  # by which both drop the same
            module = attention_of(rate)
            expected, found = (read(module, 7, mask, mode) for mode in (nullcontext(), few_queries()))
        for quick, plain in zip(found, expected, strict=True):
            assert (quick - plain).norm() <= 1e-5 * plain.norm() + NOISE


def test_losses_and_gradients_of_a_model_are_those_of_plain_code() -> None:
    batch = {**reference_batch(), "labels": reference_batch()["labels"][:, :7].clone()}
    model, found = reference_model().train(), []
    for mode in (nullcontext(), few_queries()):
        model.zero_grad()
        torch.manual_seed(3)
        spied = patch.object(cross_attention, "attend", wraps=cross_attention.attend)
        with quick_dropout(), mode, spied as served:  # dropout by which both drop the same
            loss = model(**batch).loss
            loss.backward()
        found.append((loss.item(), [weight.grad.clone() for weight in model.parameters()]))
    assert served.call_count == model.config.decoder_layers
    (expected_loss, expected), (loss, gradients) = found
    assert abs(loss - expected_loss) < 1e-5
    for quick, plain in zip(gradients, expected, strict=True):
        assert (quick - plain).norm() <= 1e-4 * plain.norm() + NOISE


def test_it_serves_only_where_it_is_less_work_and_knows_all_weights() -> None:
    module, tokens = attention_of(0.0), torch.zeros(1, 7, 32)
    assert is_served(module, tokens, None)
    assert not is_served(module, torch.zeros(1, 8, 32), None)  # as many tokens as a head is wide
    assert not is_served(module, tokens, object())  # a cache, which holds keys
    assert not is_served(module, tokens.bfloat16(), None)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_served(module, tokens, None)
    get_peft_model(module, LoraConfig(target_modules=["k_proj"]))
    assert not is_served(module, tokens, None)  # its adapter would be left out
