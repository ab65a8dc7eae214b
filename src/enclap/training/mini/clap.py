"""Training of mini's CLAP: what its audio tower sees is projected to tell labels apart; `text` then adds sentences.

At first the tower's convolutions stay as distillation left them, so their maps of all views are computed once; then all
of the tower is fine-tuned for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from enclap.data.recordings import Recording
from enclap.model.conv_clap import ConvClapConfig, ConvClapModel, ConvTower
from enclap.training.mini.augment import Augmentation, MelBank, View, draw_view
from enclap.training.mini.distillation import DistillationRecipe
from enclap.training.mini.targets import Targets
from enclap.training.recipe import Optimisation, Settings

BANK_START = 0.05
"""Size of the label vectors' entries at first: only their direction counts, and short ones turn faster."""
RARE = -5.0
"""Start of the words' biases: a word is true of less than one recording in a hundred."""

MAPS_TOGETHER = 8
"""Views whose maps are computed at once."""


class ClapRecipe(Settings):
    """mini's CLAP: the training of its audio tower's projection.

    text: as ConvClapConfig's text_config names them. views: random views of whole windows, of which maps are kept.
    optimisation: of the projection on these. frames: of the views in `fine_tuning`, which trains the convolutions too;
    they are cheaper than whole windows. The weights multiply the losses that `TowerTraining` names.
    """

    text: dict[str, Any]
    views: int = Field(gt=0)
    word_weight: float = 40.0
    order_weight: float = 20.0
    family_weight: float = 0.5
    temperature: float = 0.07
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation
    frames: int = 256
    fine_tuning: Optimisation


def recording_weights(recordings: Sequence[Recording], seen: Sequence[int], power: float = 0.3) -> NDArray[np.float64]:
    """Cumulative weights [N] by which the `seen` recordings are drawn: labels in proportion to count ** (1 - power).

    The last is 1; a uniform number in [0, 1) draws the first recording whose cumulative weight is not below it.
    """
    counts = Counter(recordings[index].label for index in seen)
    weights = np.zeros(len(recordings))
    for index in seen:
        weights[index] = counts[recordings[index].label] ** -power
    return np.cumsum(weights / weights.sum())


@dataclass(frozen=True)
class ViewSampler:
    """Views by number, and TowerTraining's inputs for them with the spectrogram in the place of maps."""

    bank: MelBank
    cumulative_weights: NDArray[np.float64]
    augmentation: Augmentation
    targets: Targets
    seed: int

    def view(self, number: int) -> View:
        """View `number`, drawn from (seed, number)."""
        generator = np.random.default_rng((self.seed, number))
        return draw_view(self.bank, self.cumulative_weights, self.augmentation, generator)

    def __call__(self, number: int) -> dict[str, NDArray[np.float32]]:
        """FineTuning's inputs for one view: {mel [F, M]} and what `target_rows` gives."""
        view = self.view(number)
        return {"mel": view.mel, **target_rows(view, self.targets)}


@dataclass(frozen=True)
class ViewMaps:
    """Maps of views and what they are to be called; item n of a training is one of them, drawn from (seed, n).

    maps: float16 [N, channels, F'] as the tower's convolutions give them. views: without their spectrograms.
    """

    maps: NDArray[np.float16]
    views: Sequence[View]
    targets: Targets
    seed: int

    def __call__(self, number: int) -> dict[str, NDArray[np.float32]]:
        """TowerTraining's inputs for one view."""
        index = int(np.random.default_rng((self.seed, number)).integers(len(self.views)))
        return {"hidden": self.maps[index].astype(np.float32), **target_rows(self.views[index], self.targets)}


def target_rows(view: View, targets: Targets) -> dict[str, NDArray[np.float32]]:
    """What a view is to be called.

    labels, families: shares that sum to 1. words: 1 for each word. halves: words of the first half in time, then of
    the second.
    """
    rows = list(view.recordings)
    shares = np.asarray(view.shares, dtype=np.float32)
    words = targets.word_rows[rows]
    halves = words if view.cut is not None else np.stack([words.max(axis=0)] * 2)
    return {
        "labels": shares @ targets.label_rows[rows],
        "families": shares @ targets.family_rows[rows],
        "words": words.max(axis=0),
        "halves": halves.reshape(-1),
    }


@torch.inference_mode()
def map_views(tower: ConvTower, sampler: ViewSampler, count: int) -> ViewMaps:
    """The maps of the first `count` views; their spectrograms are not kept."""
    tower.eval()
    maps, views = [], []
    for start in range(0, count, MAPS_TOGETHER):
        batch = [sampler.view(number) for number in range(start, min(count, start + MAPS_TOGETHER))]
        mel = torch.from_numpy(np.stack([view.mel for view in batch]))
        maps.append(tower.hidden(mel).numpy().astype(np.float16))
        views += [replace(view, mel=view.mel[:0]) for view in batch]
    return ViewMaps(np.concatenate(maps), views, sampler.targets, sampler.seed)


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
    """The projection of an audio tower with the heads that train it; the convolutions are no part of it.

    label_loss: cross-entropy over the labels, read from the features and, with a bank of label vectors, from the
    embedding. word_loss: the labels' words, each by itself, from both. family_loss: the labels' families. order_loss:
    the words of what sounds in the first and in the second half.
    """

    def __init__(self, tower: ConvTower, targets: Targets, recipe: ClapRecipe) -> None:
        super().__init__()
        self._tower = (tower,)  # in a tuple: only what stands below is trained and stored
        self.feature_norm, self.projection = tower.feature_norm, tower.projection
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
        self, hidden: Tensor, labels: Tensor, families: Tensor, words: Tensor, halves: Tensor
    ) -> dict[str, Tensor]:
        """The loss with its parts. hidden: [B, channels, F'] of the tower.

        Targets: [B, labels], [B, families], [B, words], [B, 2 * words].
        """
        tower = self._tower[0]
        tower.dropout.train(self.training)
        features = tower.pool(hidden)
        dropped = tower.dropout(features)
        embedding = tower.embed(features)
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


class FineTuning(nn.Module):
    """The whole tower with the heads of its projection; batch statistics stay those of distillation."""

    def __init__(self, tower: ConvTower, heads: TowerTraining) -> None:
        super().__init__()
        self._tower = (tower,)  # whose other parts the heads hold: nothing is stored twice
        self.input_norm, self.blocks, self.heads = tower.input_norm, tower.blocks, heads

    def train(self, mode: bool = True) -> FineTuning:
        """Switch dropout on or off; batch normalisation of the convolutions stays as it is."""
        super().train(mode)
        self.input_norm.eval()
        self.blocks.eval()
        return self

    def forward(self, mel: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        """TowerTraining's losses of mel [B, F, M] in dB."""
        losses: dict[str, Tensor] = self.heads(self._tower[0].hidden(mel), **targets)
        return losses


binary = functional.binary_cross_entropy_with_logits


def build_clap(recipe: ClapRecipe, tower: DistillationRecipe, vocabulary: int, bands: int) -> ConvClapModel:
    """mini's CLAP with random weights, of the recipes' sizes."""
    return ConvClapModel(
        ConvClapConfig(
            mel_bands=bands,
            channels=tower.channels,
            tower_width=tower.tower_width,
            text_config={**recipe.text, "vocab_size": vocabulary},
        )
    )
