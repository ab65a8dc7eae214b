"""Encoders that the experiments train themselves: a CLAP and a codec on a share of the recordings, and codebooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import EncodecConfig, EncodecModel

from enclap.data.splits import SEEN, hash_fraction
from enclap.experiments.grids import DISTILLED, SHARES, UNTRAINED
from enclap.experiments.recipe import ExperimentRecipe
from enclap.experiments.scenes import EMBED_TOGETHER, Scenes, SceneSource, embed_maps
from enclap.files import replacement_path
from enclap.model.conv_clap import ConvTower
from enclap.training.mini import clap, codec
from enclap.training.mini.augment import MelBank, View, draw_view, open_mel_bank
from enclap.training.mini.targets import make_targets
from enclap.training.trainer import train_model
from enclap.types import FloatArray, IntArray

FITTED_LATENTS = 20_000
"""Latents, at most, on which codebooks are fitted."""
HEADS: dict[str, Any] = {"word_weight": 40.0, "order_weight": 10.0, "family_weight": 0.5, "temperature": 0.07}
"""The weights of the losses of mini's CLAP; the rest of its recipe is not used here."""


class TowerLearning(nn.Module):
    """A tower with the heads of mini's CLAP, all of it trained, or with a teacher's embeddings in their place."""

    def __init__(self, tower: ConvTower, heads: clap.TowerTraining | None) -> None:
        super().__init__()
        self._tower = (tower,)  # in a tuple: its parts stand below, and nothing is stored twice
        self.input_norm, self.blocks = tower.input_norm, tower.blocks
        self.heads = heads
        if heads is None:
            self.feature_norm, self.projection = tower.feature_norm, tower.projection

    def forward(self, mel: Tensor, teacher: Tensor | None = None, **targets: Tensor) -> dict[str, Tensor]:
        """The loss, of mel [B, F, M] in dB: 1 - cosine to teacher [B, E], or TowerTraining's for targets."""
        tower = self._tower[0].train(self.training)
        hidden = tower.hidden(mel)
        if self.heads is None:
            assert teacher is not None
            return {"loss": 1.0 - (embed_maps(tower, hidden) * teacher).sum(dim=-1).mean()}
        losses: dict[str, Tensor] = self.heads(hidden, **targets)
        return losses


def train_tower(source: SceneSource, recipe: ExperimentRecipe, kind: str, seed: int, folder: Path) -> ConvTower:
    """The experiments' own audio tower, trained into `folder` if it is not there. kind: see `embed_with`."""
    torch.manual_seed(seed)
    width = source.encoders.tower.projection.out_features
    tower = ConvTower(source.encoders.front_end.bands, recipe.tower.channels, width)
    path = folder / "model.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if kind != UNTRAINED:
            learn_tower(tower, source, recipe, kind, seed, folder)
        with replacement_path(path) as temporary:
            save_file(tower.state_dict(), temporary)
    tower.load_state_dict(load_file(path))
    return tower.eval()


def learn_tower(
    tower: ConvTower, source: SceneSource, recipe: ExperimentRecipe, kind: str, seed: int, folder: Path
) -> None:
    """Train a tower on random views of a share of the recordings, or to give what the given CLAP gives for them."""
    corpus, bank = source.corpus, view_bank(source, recipe)
    numbers = recordings_of(source, SHARES.get(kind, 1.0))
    targets = make_targets(corpus.recordings, numbers, rarest=1)
    weights = clap.recording_weights(corpus.recordings, numbers)
    settings = recipe.tower
    views = [
        draw_view(bank, weights, settings.augmentation, np.random.default_rng((seed, number)))
        for number in range(settings.views)
    ]
    rows: list[dict[str, NDArray[np.float32]]]
    if kind == DISTILLED:
        rows = [{"mel": view.mel, "teacher": row} for view, row in zip(views, teach(source, views), strict=True)]
        model = TowerLearning(tower, None)
    else:
        rows = [{"mel": view.mel, **clap.target_rows(view, targets)} for view in views]
        model = TowerLearning(tower, clap.TowerTraining(tower, targets, clap.ClapRecipe.model_construct(**HEADS)))
    draw = sampler(rows, seed)
    train_model(model, draw, clap.stack, recipe.scaled(settings.optimisation, seed), folder / "training")


def view_bank(source: SceneSource, recipe: ExperimentRecipe) -> MelBank:
    """Spectrograms of the recordings, in views as long as scenes."""
    front_end = source.encoders.front_end
    bank = open_mel_bank(source.corpus_at(front_end.rate), front_end, source.folder / "cache")
    return MelBank(bank.mels, bank.starts, round(recipe.seconds * front_end.rate / front_end.hop))


@torch.inference_mode()
def teach(source: SceneSource, views: list[View]) -> FloatArray:
    """The given CLAP's embeddings [N, E] of views."""
    tower, parts = source.encoders.tower, []
    for start in range(0, len(views), EMBED_TOGETHER):
        batch = np.stack([view.mel for view in views[start : start + EMBED_TOGETHER]])
        parts.append(embed_maps(tower, tower.hidden(torch.from_numpy(batch))).numpy())
    return np.concatenate(parts)


def sampler(rows: list[dict[str, NDArray[np.float32]]], seed: int) -> Callable[[int], dict[str, NDArray[np.float32]]]:
    """A function from item number to one of the rows, drawn from (seed, number)."""
    return lambda number: rows[int(np.random.default_rng((seed, number)).integers(len(rows)))]


def recordings_of(source: SceneSource, share: float) -> list[int]:
    """Numbers of a share of the recordings that encoders may see, chosen by their originals; never none of them."""
    numbers = source.numbers(SEEN)
    recordings = source.corpus.recordings
    chosen = [number for number in numbers if hash_fraction(recordings[number].recording, "share") < share]
    return chosen or numbers[:1]


@torch.inference_mode()
def embed_with(tower: ConvTower, scenes: Scenes) -> FloatArray:
    """Embeddings [N, E] of scenes by a tower of the experiments' own, which hears just the scene."""
    parts = []
    for start in range(0, len(scenes.mel), EMBED_TOGETHER):
        mel = torch.from_numpy(scenes.mel[start : start + EMBED_TOGETHER].astype(np.float32))
        parts.append(embed_maps(tower, tower.hidden(mel)).numpy())
    return np.concatenate(parts)


def train_codec(source: SceneSource, recipe: ExperimentRecipe, kind: str, seed: int, folder: Path) -> EncodecModel:
    """The experiments' own codec, of the given one's sizes, trained into `folder` if it is not there.

    Its codebooks are fitted on latents of the recordings that it was trained on; those of an untrained one on all.
    """
    config: EncodecConfig = source.encoders.codec.model.config
    path = folder / "model.safetensors"
    torch.manual_seed(seed)
    sizes = {"sampling_rate": config.sampling_rate, "hidden_size": config.hidden_size}
    sizes |= {name: getattr(config, name) for name in ("num_filters", "upsampling_ratios", "num_lstm_layers")}
    sizes |= {name: getattr(config, name) for name in ("codebook_size", "target_bandwidths", "audio_channels")}
    recipe_of_sizes: dict[str, Any] = {"model": sizes}
    model = codec.build_codec(codec.CodecRecipe.model_construct(**recipe_of_sizes))
    if not path.exists():
        settings = recipe.codec
        numbers = recordings_of(source, SHARES.get(kind, 1.0))
        rate = source.encoders.codec.rate
        weights = clap.recording_weights(source.corpus.recordings, numbers)
        draw = codec.make_segment_sampler(
            source.corpus_at(rate),
            weights,
            int(settings.segment_seconds * rate),
            seed,
        )
        learning = codec.CodecTraining(model, quantised=False)
        if kind != UNTRAINED:
            optimisation = recipe.scaled(settings.optimisation, seed)
            train_model(learning, draw, codec.stack_segments, optimisation, folder / "training")
        codec.standardise_latents(learning, latents_of(model, draw, settings.segments))
        codec.fit_codebooks(model, latents_of(model, draw, settings.segments), seed=seed)
        folder.mkdir(parents=True, exist_ok=True)
        with replacement_path(path) as temporary:
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    model.load_state_dict(load_file(path))
    return model.eval()


@torch.inference_mode()
def latents_of(model: EncodecModel, draw: Callable[[int], FloatArray], items: int) -> Tensor:
    """Latents [N, D] of `items` drawn segments."""
    model.eval()
    return torch.cat(
        [model.encoder(torch.from_numpy(draw(number))[None, None]).squeeze(0).T for number in range(items)]
    )


@torch.inference_mode()
def encode_with(model: EncodecModel, scenes: Scenes) -> IntArray:
    """Codes int64 [N, T, K] of scenes by a codec of the experiments' own."""
    parts = []
    for start in range(0, len(scenes.samples), EMBED_TOGETHER):
        samples = scenes.samples[start : start + EMBED_TOGETHER].astype(np.float32) / 32767
        latents = model.encoder(torch.from_numpy(samples)[:, None])  # [B, D, T]
        parts.append(model.quantizer.encode(latents).permute(1, 2, 0).numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def refit(source: SceneSource, scenes: Scenes, codebooks: int, entries: int) -> IntArray:
    """Codes int64 [N, T, K] of scenes by other codebooks on the given codec's latents.

    Codebooks of the given codec's own size go on where its own end: the first are the codec's, and those that it lacks
    are fitted on what is left. Codebooks of another size are all fitted.
    """
    given = source.encoders.codec
    table = given.model.config.to_dict() | {"codebook_size": entries}
    bits, rate = int(np.ceil(np.log2(entries))), source.encoders.frame_rate
    model = EncodecModel(EncodecConfig(**{**table, "target_bandwidths": [codebooks * bits * rate / 1000]}))
    own = given.codebooks if entries == given.entries else 0
    layers = model.quantizer.layers
    assert len(layers) == codebooks
    generator = np.random.default_rng(0)
    flat = source.training.latents.reshape(-1, source.training.latents.shape[-1])
    chosen = generator.choice(len(flat), min(FITTED_LATENTS, len(flat)), replace=False)
    residual = torch.from_numpy(flat[chosen])
    for number in range(min(own, codebooks)):
        codebook = given.model.quantizer.layers[number].codebook
        layers[number].codebook.embed.copy_(codebook.embed)
        residual = residual - functional.embedding(codebook.quantize(residual), codebook.embed)
    if codebooks > own:
        fresh = EncodecModel(EncodecConfig(**{**table, "target_bandwidths": [(codebooks - own) * bits * rate / 1000]}))
        codec.fit_codebooks(fresh, residual)
        for layer, fitted in zip(layers[own:], fresh.quantizer.layers, strict=True):
            layer.codebook.embed.copy_(fitted.codebook.embed)
    latents = torch.from_numpy(scenes.latents).transpose(1, 2)  # [N, D, T]
    starts = range(0, len(latents), 100)
    parts = [model.quantizer.encode(latents[at : at + 100]).permute(1, 2, 0).numpy() for at in starts]
    return np.concatenate(parts)
