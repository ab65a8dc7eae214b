"""Training of mini's CLAP: its audio towers learn to tag, each by itself; `text` then brings sentences to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from enclap.data.recordings import Recording
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.model.conv_clap import ConvClapConfig, ConvClapModel, ConvTower
from enclap.training.mini.augment import Augmentation, MelBank, draw_view
from enclap.training.recipe import Optimisation, Settings

LIGHT_WORDS = {"a", "an", "and", "at", "being", "by", "for", "from", "in", "into", "is", "of", "on", "out", "over"}
LIGHT_WORDS |= {"the", "through", "to", "up", "with"}
"""Words of labels that say nothing about the sound."""
BANK_START = 0.05
"""Size of the label vectors' entries at first: only their direction counts, and short ones turn faster."""
RARE = -5.0
"""Start of the words' biases: a word is true of less than one recording in a hundred."""

TOWERS = 2
"""Audio towers of mini's CLAP: one for each core of the smallest machine that is to train it."""


class ClapRecipe(Settings):
    """mini's CLAP: its sizes and the training of its audio towers.

    channels, tower_width, text: as ConvClapConfig names them. frames: of the views in `optimisation`; they are
    cheaper than whole windows. second_phase: goes on from the first phase's average, on whole windows, with a rate that
    rises and falls again (arXiv 1608.03983). The weights multiply the losses that `TowerTraining` names.
    """

    channels: tuple[int, ...] = (32, 64, 128, 128, 192, 256)
    tower_width: int = 96
    text: dict[str, Any]
    frames: int = 256
    word_weight: float = 40.0
    order_weight: float = 20.0
    family_weight: float = 0.5
    temperature: float = 0.07
    augmentation: Augmentation = Augmentation()
    second_phase_augmentation: Augmentation = Augmentation()
    optimisation: Optimisation
    second_phase: Optimisation


@dataclass(frozen=True)
class Targets:
    """What the recordings of a corpus are to be called: labels, families and words, each as a row per recording.

    label_names, family_names, word_names: what the columns stand for. label_rows: float32 [N, labels], a 1 for the main
    label. family_rows: float32 [N, families], a 1 for its family. word_rows: float32 [N, words], a 1 for each word of
    any label.
    """

    label_names: tuple[str, ...]
    family_names: tuple[str, ...]
    word_names: tuple[str, ...]
    label_rows: NDArray[np.float32]
    family_rows: NDArray[np.float32]
    word_rows: NDArray[np.float32]


def label_words(label: str) -> list[str]:
    """The words of a label that mean something."""
    return [word for word in re.findall(r"[a-z0-9]+", label.lower()) if word not in LIGHT_WORDS]


def make_targets(recordings: Sequence[Recording], seen: Iterable[int], rarest: int = 3) -> Targets:
    """Labels and words of the recordings; a word counts when at least `rarest` of the `seen` recordings have it."""
    seen = list(seen)
    label_names = sorted({recordings[index].label for index in seen})
    counts = Counter(word for index in seen for word in _words(recordings[index]))
    word_names = sorted(word for word, count in counts.items() if count >= rarest)
    lexicon = load_lexicon()
    families = sorted(lexicon.families)
    return Targets(
        tuple(label_names),
        tuple(families),
        tuple(word_names),
        _rows([{recording.label} for recording in recordings], label_names),
        _rows([{lexicon[recording.label].family} for recording in recordings], families),
        _rows([_words(recording) for recording in recordings], word_names),
    )


def _rows(found: Sequence[set[str]], names: Sequence[str]) -> NDArray[np.float32]:
    """Float32 [len(found), len(names)]: 1 where a name is among what was found."""
    return np.asarray([[name in row for name in names] for row in found], dtype=np.float32)


def _words(recording: Recording) -> set[str]:
    return {word for label in recording.labels for word in label_words(label)}


def recording_weights(recordings: Sequence[Recording], seen: Sequence[int], power: float = 0.3) -> NDArray[np.float64]:
    """Cumulative weights [N] by which the `seen` recordings are drawn: labels in proportion to count ** (1 - power).

    The last is 1; a uniform number in [0, 1) draws the first recording whose cumulative weight is not below it.
    """
    counts = Counter(recordings[index].label for index in seen)
    weights = np.zeros(len(recordings))
    for index in seen:
        weights[index] = counts[recordings[index].label] ** -power
    return np.cumsum(weights / weights.sum())


def make_view_sampler(
    bank: MelBank, targets: Targets, cumulative_weights: NDArray[np.float64], augmentation: Augmentation, seed: int
) -> Callable[[int], dict[str, NDArray[np.float32]]]:
    """A function from item number to TowerTraining's inputs for one view, seeded by (seed, number)."""
    return partial(draw_view_item, bank, targets, cumulative_weights, augmentation, seed)


def draw_view_item(
    bank: MelBank,
    targets: Targets,
    cumulative_weights: NDArray[np.float64],
    augmentation: Augmentation,
    seed: int,
    number: int,
) -> dict[str, NDArray[np.float32]]:
    """TowerTraining's inputs for one view.

    mel: [F, M]. labels, families: shares that sum to 1. words: 1 for each word. halves: words of the first half in
    time, then of the second.
    """
    view = draw_view(bank, cumulative_weights, augmentation, np.random.default_rng((seed, number)))
    rows = list(view.recordings)
    shares = np.asarray(view.shares, dtype=np.float32)
    words = targets.word_rows[rows]
    halves = words if view.cut is not None else np.stack([words.max(axis=0)] * 2)
    return {
        "mel": view.mel,
        "labels": shares @ targets.label_rows[rows],
        "families": shares @ targets.family_rows[rows],
        "words": words.max(axis=0),
        "halves": halves.reshape(-1),
    }


def stack(items: Sequence[dict[str, NDArray[np.float32]]]) -> dict[str, Tensor]:
    """A batch: each field of the items stacked."""
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


def soft_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.05) -> Tensor:
    """Mean cross-entropy to target distributions [B, labels]; rows of zeros (labels not trained) count nothing."""
    logs = functional.log_softmax(logits, dim=-1)
    weight = targets.sum(dim=-1)
    losses = -(1.0 - smoothing) * (targets * logs).sum(dim=-1) - smoothing * weight * logs.mean(dim=-1)
    return losses.sum() / weight.sum().clamp(min=1e-6)


class TowerTraining(nn.Module):
    """One audio tower with the heads that train it.

    label_loss: cross-entropy over the labels, read from the features and, with a bank of label vectors, from the
    embedding. word_loss: the labels' words, each by itself, from both. family_loss: the labels' families. order_loss:
    the words of what sounds in the first and in the second half.
    """

    def __init__(self, tower: ConvTower, targets: Targets, recipe: ClapRecipe) -> None:
        super().__init__()
        self.tower = tower
        self._recipe = recipe
        features, width = tower.projection.in_features, tower.projection.out_features
        labels, families, words = (
            len(names) for names in (targets.label_names, targets.family_names, targets.word_names)
        )
        self.label_head = nn.Linear(features, labels)
        self.word_head = nn.Linear(features, words)
        self.label_bank = nn.Parameter(BANK_START * torch.randn(labels, width))
        self.family_bank = nn.Parameter(BANK_START * torch.randn(families, width))
        self.embedding_word_head = nn.Linear(width, words)
        self.order_head = nn.Linear(width, 2 * words)
        for head in (self.word_head, self.embedding_word_head, self.order_head):
            nn.init.constant_(head.bias, RARE)

    def forward(
        self, mel: Tensor, labels: Tensor, families: Tensor, words: Tensor, halves: Tensor
    ) -> dict[str, Tensor]:
        """The loss with its parts. mel: [B, F, M]. Targets: [B, labels], [B, families], [B, words], [B, 2 * words]."""
        features = self.tower.pool(self.tower.hidden(mel))
        dropped = self.tower.dropout(features)
        embedding = self.tower.embed(features)
        seen = embedding * embedding.shape[1] ** 0.5  # unit vectors have small entries; heads see entries of about one
        parts = {
            "label_loss": 0.5 * soft_cross_entropy(self.label_head(dropped), labels)
            + 0.5 * soft_cross_entropy(self._nearness(embedding, self.label_bank), labels),
            "word_loss": 0.5 * binary(self.word_head(dropped), words)
            + 0.5 * binary(self.embedding_word_head(seen), words),
            "family_loss": soft_cross_entropy(self._nearness(embedding, self.family_bank), families),
            "order_loss": binary(self.order_head(seen), halves),
        }
        recipe = self._recipe
        loss = parts["label_loss"] + recipe.word_weight * parts["word_loss"]
        loss = loss + recipe.family_weight * parts["family_loss"] + recipe.order_weight * parts["order_loss"]
        return {"loss": loss, **parts}

    def _nearness(self, embedding: Tensor, bank: Tensor) -> Tensor:
        return embedding @ functional.normalize(bank, dim=-1).T / self._recipe.temperature


binary = functional.binary_cross_entropy_with_logits


def build_clap(recipe: ClapRecipe, vocabulary: int, bands: int) -> ConvClapModel:
    """mini's CLAP with random weights, of the recipe's sizes."""
    return ConvClapModel(
        ConvClapConfig(
            mel_bands=bands,
            channels=recipe.channels,
            members=TOWERS,
            tower_width=recipe.tower_width,
            text_config={**recipe.text, "vocab_size": vocabulary},
        )
    )
