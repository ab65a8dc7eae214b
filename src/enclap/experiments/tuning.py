"""CLAP trained along with the captioner, and what it forgets: its last block and projection, and the labels it knew."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.recordings import read_collection
from enclap.data.splits import SEEN, UNSEEN, VALIDATION, hash_fraction, split_of
from enclap.data.synthetic.grammar import finish, label_texts
from enclap.experiments.recipe import ExperimentRecipe, digest
from enclap.experiments.scenes import EMBED_TOGETHER, Encoders, early_maps, embed_maps
from enclap.files import replacement_path
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.captioner import EnclapOutput
from enclap.model.conv_clap import ConvTower
from enclap.training.dataset import Perturbation
from enclap.types import FloatArray

RECALLED = 10
"""A recording's label is recalled when its text is among so many that are nearest to the sound."""
OLD_RECORDINGS = 150
"""Of labels that the scenes lack, by whose recall is told what CLAP forgets."""
PACE = 0.05
"""CLAP's learning rate, as a part of the captioner's."""
LISTENED = 10.0
"""Seconds of each of them."""


class TowerEnd(nn.Module):
    """The end of an audio tower, from its last block on: what stands here is the tower's own."""

    def __init__(self, tower: ConvTower) -> None:
        super().__init__()
        self.block, self.feature_norm, self.projection = tower.blocks[-1], tower.feature_norm, tower.projection
        self._tower = (tower,)  # in a tuple: its other parts are no parts of this

    def forward(self, maps: Tensor) -> Tensor:
        """Unit embeddings [B, E] of what the last block reads, [B, C, F', M']."""
        return embed_maps(self._tower[0], self.block(maps).mean(dim=3))


class Tail(nn.Module):
    """The end of an audio tower that learns slowly: each weight is the given one plus a small part of what is learned.

    So CLAP has `PACE` times the captioner's learning rate, as pretrained networks are fine-tuned, and weight decay
    pulls it back to what it was. Statistics of batch normalisation stay as they are, and nothing is dropped out.
    """

    def __init__(self, tower: ConvTower) -> None:
        super().__init__()
        self.end = TowerEnd(copy.deepcopy(tower)).requires_grad_(False)
        self.moves = nn.ParameterList(torch.zeros_like(value) for value in self.end.parameters())

    def train(self, mode: bool = True) -> Tail:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, maps: Tensor) -> Tensor:
        """Unit embeddings [B, E] of what the last block reads, [B, C, F', M']."""
        pairs = zip(self.end.named_parameters(), self.moves, strict=True)
        weights = {name: value + PACE * move for (name, value), move in pairs}
        embeddings: Tensor = functional_call(self.end, weights, (maps,))
        return embeddings


class TunedCaptioner(EnclapForConditionalGeneration):
    """A captioner whose embedding comes from the end of CLAP's audio tower, which learns with it.

    Its clap_embedding is what the tower's last block reads, flattened: [B, C * F' * M']. While training, the embedding
    is disturbed as `training.dataset.perturb` does it for embeddings that do not change.
    """

    def __init__(self, config: EnclapConfig, tower: ConvTower, shape: tuple[int, ...], noise: Perturbation) -> None:
        super().__init__(config)
        self.tail = Tail(tower)
        self._shape, self._noise = shape, noise

    def forward(self, *, clap_embedding: Tensor, **inputs: Any) -> EnclapOutput:  # type: ignore[override]
        """Losses and logits of a batch."""
        embedding = self.tail(clap_embedding.reshape(-1, *self._shape))
        if self.training:
            embedding = disturbed(embedding, self._noise)
        return super().forward(clap_embedding=embedding, **inputs)

    def plain(self) -> EnclapForConditionalGeneration:
        """A captioner with these weights that takes embeddings."""
        model = EnclapForConditionalGeneration(self.config)
        model.load_state_dict({k: v for k, v in self.state_dict().items() if not k.startswith("tail.")})
        model.eval()
        return model


def disturbed(embedding: Tensor, noise: Perturbation) -> Tensor:
    """Unit embeddings [B, E] with random vectors of random length added, or zeros."""
    direction = functional.normalize(torch.randn_like(embedding), dim=-1)
    lengths = noise.embedding_noise * torch.rand(len(embedding), 1, device=embedding.device)
    moved = functional.normalize(embedding + lengths * direction, dim=-1)
    kept = torch.rand(len(embedding), 1, device=embedding.device) >= noise.embedding_dropout
    return moved * kept


@torch.inference_mode()
def embed_tail(tail: Tail, maps: NDArray[np.float16]) -> FloatArray:
    """Embeddings float32 [N, E] of what the last block reads, [N, C, F', M']."""
    parts = [torch.from_numpy(maps[at : at + 100].astype(np.float32)) for at in range(0, len(maps), 100)]
    return np.concatenate([tail(part).numpy() for part in parts])


@dataclass(frozen=True, slots=True, eq=False)
class OldLabels:
    """Recordings that CLAP was not trained on, of labels that it knows and the scenes lack.

    maps: float16 [N, C, F', M']. labels: int64 [N], rows of texts. texts: float32 [labels, E], all that CLAP knows.
    """

    maps: NDArray[np.float16]
    labels: NDArray[np.int64]
    texts: FloatArray

    def recall(self, tail: Tail) -> float:
        """Share of the recordings whose label is among the ten nearest texts."""
        nearness = embed_tail(tail, self.maps) @ self.texts.T  # [N, labels]
        right = nearness[np.arange(len(self.labels)), self.labels]
        return float(((nearness > right[:, None]).sum(axis=1) < RECALLED).mean())


def open_old_labels(recordings: Path, folder: Path, recipe: ExperimentRecipe, encoders: Encoders) -> OldLabels:
    """The old labels of a collection, heard once into `folder`."""
    collection = read_collection(recordings)
    known = sorted({item.label for item in collection if split_of(item) == SEEN})
    rows = {label: number for number, label in enumerate(known)}
    held_out = [
        item
        for item in collection
        if split_of(item) in (UNSEEN, VALIDATION) and item.label in rows and item.label not in recipe.labels
    ]
    chosen = sorted(held_out, key=lambda item: hash_fraction(item.path, "old"))[:OLD_RECORDINGS]
    path = folder / f"old-{digest(str([item.path for item in chosen]))}.npy"
    if not path.exists():
        front_end, parts = encoders.front_end, []
        for start in range(0, len(chosen), EMBED_TOGETHER):
            waves = [read_audio(recordings / item.path) for item in chosen[start : start + EMBED_TOGETHER]]
            heard = [resample(wave, front_end.rate)[: round(LISTENED * front_end.rate)] for wave in waves]
            mel = torch.from_numpy(np.concatenate([front_end(samples) for samples in heard]))
            with torch.inference_mode():
                parts.append(early_maps(encoders.tower, mel).numpy().astype(np.float16))
        folder.mkdir(parents=True, exist_ok=True)
        with replacement_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(parts))
    texts = encoders.clap.embed_text([finish(label_texts(label)[0]) for label in known])
    return OldLabels(np.load(path), np.asarray([rows[item.label] for item in chosen]), texts)
