"""The losses: accumulated batches equal one large batch, and short clips train with masking on."""

from __future__ import annotations

import numpy as np
import torch

from enclap.model.losses import codebook_weights, count_items
from enclap.model.masking import mask_codes
from reference_tiny import reference_batch, reference_model


def test_codebook_weights_halve() -> None:
    assert codebook_weights(3) == [0.5, 0.25, 0.125]


def test_accumulated_batches_equal_one_batch() -> None:
    model = reference_model()
    whole = reference_batch()
    model(**whole).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    expected_loss = model(**whole).loss.item()
    model.zero_grad()
    items = sum(count_items(whole["labels"][[row]], whole["mcm_labels"][[row]], 4) for row in range(3))
    total = 0.0
    for row in range(3):
        loss = model(**{name: value[[row]] for name, value in whole.items()}, num_items=items).loss
        loss.backward()
        total += loss.item()
    assert abs(total - expected_loss) < 1e-5
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - expected[name]).norm()
        assert difference <= 1e-4 * expected[name].norm() + 1e-6, name


def test_counted_items() -> None:
    arrays = reference_batch()
    items = count_items(arrays["labels"], arrays["mcm_labels"], 4)
    assert items[0] == 9 + 6 + 4
    assert items[1:].tolist() == (arrays["mcm_labels"] != -100).sum(dim=(0, 1)).tolist()


def test_one_frame_trains_hidden_or_not() -> None:
    model = reference_model()
    for is_hidden in (False, True):
        codes, labels = mask_codes(np.full((1, 4), 3), np.full((1, 4), is_hidden), 64)
        output = model(
            codes=torch.from_numpy(codes)[None],
            clap_embedding=torch.ones(1, 16),
            labels=torch.tensor([[0, 5, 2]]),
            mcm_labels=torch.from_numpy(labels)[None],
        )
        output.loss.backward()
        assert torch.isfinite(output.loss)
        assert (output.mcm_loss > 0) == is_hidden
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
