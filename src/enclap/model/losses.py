"""The two losses, each with its own denominator, so that accumulated batches add up to exactly one large batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from enclap.model.masking import IGNORED


def codebook_weights(codebooks: int) -> list[float]:
    """Weight of each codebook in the masked-codec loss: 1/2, 1/4, 1/8, …

    Source: EnCLAP (arXiv 2401.17690); the official code halves per codebook, modeling/enclap_bart.py:503.
    """
    return [0.5 ** (index + 1) for index in range(codebooks)]


def count_items(labels: Tensor | None, mcm_labels: Tensor | None, codebooks: int) -> Tensor:
    """Float32 [1 + K]: caption tokens, then hidden codes per codebook; the denominators of one batch's losses.

    Summed over the batches of an accumulated step, and over processes, it is what `num_items` of each of them takes.
    labels: [B, S] or None. mcm_labels: [B, T, K] or None.
    """
    items = torch.zeros(1 + codebooks)
    if labels is not None:
        items[0] = (labels != IGNORED).sum()
    if mcm_labels is not None:
        items[1:] = (mcm_labels != IGNORED).sum(dim=(0, 1))
    return items


def caption_loss(logits: Tensor, labels: Tensor, smoothing: float, items: Tensor) -> Tensor:
    """Scalar: label-smoothed cross-entropy summed over the batch's caption tokens, divided by `items`.

    logits: [B, S, V]. labels: [B, S], IGNORED = padding. Smoothing applies in evaluation too, as in the official code.
    """
    total = functional.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return total / items.clamp(min=1)


def hidden_code_losses(frames: Tensor, heads: Iterable[nn.Module], labels: Tensor, items: Tensor) -> Tensor:
    """Float [K]: cross-entropy per codebook summed over the batch's hidden codes, divided by `items` [K].

    frames: encoder output of the code slots [B, T, D]. labels: [B, T, K], IGNORED where nothing is hidden. A codebook
    of which no code is hidden has loss 0.
    """
    by_codebook = labels.flatten(0, 1).T  # [K, B * T]
    codebooks, places = (by_codebook != IGNORED).nonzero(as_tuple=True)  # looked for once: a GPU is waited for here
    counts = torch.bincount(codebooks, minlength=len(by_codebook)).tolist()
    rows, totals = frames.flatten(0, 1), []
    for head, targets, hidden in zip(heads, by_codebook, torch.split(places, counts), strict=True):
        logits = head(rows.index_select(0, hidden))  # [hidden codes, entries]
        totals.append(functional.cross_entropy(logits.float(), targets[hidden], reduction="sum"))
    return torch.stack(totals) / items.clamp(min=1)
