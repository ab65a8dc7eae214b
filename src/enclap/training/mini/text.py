"""Contrast of CLAP's audio and text towers: the text tower learns the embeddings of the trained audio towers.

The audio towers stay as they are (locked-image tuning, arXiv 2111.07991), so embeddings are computed once. The loss
is symmetric and takes every text of the same label for a positive; ClapModel's own loss counts one direction twice
and takes clips of the same label for negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from enclap.data.synthetic.grammar import finish, label_texts
from enclap.model.conv_clap import ConvClapModel
from enclap.training.recipe import Optimisation, Settings
from enclap.types import FloatArray

FIRST_TEMPERATURE = 0.07
"""Where the learned temperature of the contrast starts (CLIP, arXiv 2103.00020)."""


class TextRecipe(Settings):
    """views: audio views to compute embeddings of; each item of the training takes one of them and one text."""

    views: int = 4_000
    optimisation: Optimisation


def make_pair_sampler(
    embeddings: FloatArray, labels: Sequence[str], tokenizer: Tokenizer, seed: int
) -> Callable[[int], dict[str, NDArray[Any]]]:
    """A function from item number to {audio [E], ids [S], group}: a view and a random text of its label."""
    names = sorted(set(labels))
    groups = {name: number for number, name in enumerate(names)}
    texts = {name: [tokenizer.encode(finish(text)).ids for text in label_texts(name)] for name in names}

    return partial(draw_pair, embeddings, labels, texts, groups, seed)


def draw_pair(
    embeddings: FloatArray,
    labels: Sequence[str],
    texts: Mapping[str, Sequence[Sequence[int]]],
    groups: Mapping[str, int],
    seed: int,
    number: int,
) -> dict[str, NDArray[Any]]:
    """A random view's embedding [E], the token ids [S] of a random text of its label, and the label's number."""
    generator = np.random.default_rng((seed, number))
    row = int(generator.integers(0, len(labels)))
    choices = texts[labels[row]]
    ids = choices[int(generator.integers(0, len(choices)))]
    return {"audio": embeddings[row], "ids": np.asarray(ids), "group": np.asarray(groups[labels[row]])}


def stack_pairs(items: Sequence[dict[str, NDArray[Any]]], pad_id: int, longest: int) -> dict[str, Tensor]:
    """A batch with ids padded to [B, S], S at most `longest`, and their mask."""
    length = min(longest, max(len(item["ids"]) for item in items))
    ids = np.full((len(items), length), pad_id, dtype=np.int64)
    for row, item in enumerate(items):
        cut = item["ids"][:length]
        ids[row, : len(cut)] = cut
    return {
        "audio": torch.from_numpy(np.stack([item["audio"] for item in items])),
        "ids": torch.from_numpy(ids),
        "mask": torch.from_numpy((ids != pad_id).astype(np.int64)),
        "group": torch.from_numpy(np.stack([item["group"] for item in items])),
    }


class TextContrast(nn.Module):
    """CLAP's text tower against fixed audio embeddings."""

    def __init__(self, clap: ConvClapModel) -> None:
        super().__init__()
        self.clap = clap
        self.log_scale = nn.Parameter(torch.tensor(1.0 / FIRST_TEMPERATURE).log())

    def forward(self, audio: Tensor, ids: Tensor, mask: Tensor, group: Tensor) -> dict[str, Tensor]:
        """The loss, of audio [B, E] (unit), token ids and mask [B, S], label numbers [B]."""
        text = self.clap.get_text_features(ids, attention_mask=mask).pooler_output
        logits = self.log_scale.exp().clamp(max=100.0) * audio @ text.T  # [B, B]
        return {"loss": symmetric_contrast(logits, group)}


def symmetric_contrast(logits: Tensor, group: Tensor) -> Tensor:
    """Mean of audio-to-text and text-to-audio cross-entropy, the probability shared by all pairs of one group.

    Source: supervised contrast (arXiv 2004.11362) in both directions. logits: [B, B]. group: [B].
    """
    positive = (group[:, None] == group[None, :]).to(logits.dtype)
    targets = positive / positive.sum(dim=1, keepdim=True)
    audio_to_text = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()
    text_to_audio = -(targets * functional.log_softmax(logits.T, dim=1)).sum(dim=1).mean()
    return (audio_to_text + text_to_audio) / 2.0
