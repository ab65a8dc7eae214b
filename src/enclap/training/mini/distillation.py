"""Distillation: mini's audio tower learns to see in a sound what a pretrained teacher, mn04_as, sees in it.

Teacher and student are given the same crop, changed in the same way; the student learns the teacher's last map step by
step, its mean, and the probabilities of AudioSet's classes (arXiv 1503.02531). No label is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from enclap.data.recordings import Corpus
from enclap.evaluation.sound_pairs import root_mean_square
from enclap.model.conv_clap import ConvTower
from enclap.training.mini.context import CORPUS_RATE, FRONT_END, MiniRun
from enclap.training.mini.opinions import load_teacher
from enclap.training.recipe import Optimisation, Settings
from enclap.training.teachers import mobilenet
from enclap.training.teachers.weights import read_student
from enclap.training.trainer import train_model
from enclap.types import FloatArray

STANDARD_CROPS = 200
"""Crops from which the mean and the deviation of the teacher's map are measured, by which it is standardised."""


class DistillationRecipe(Settings):
    """Where the tower starts and how it is trained on.

    start: "nothing", or the name of a student in the folder of teachers. seconds: of a crop. optimisation: the training
    by the teacher; None takes the start as it is. map_weight, embedding_weight, class_weight: of the three losses.
    The others are chances or ranges of how a crop is changed: mixed with another (difference in dB), band-limited
    (lowest frequency kept), filtered to a telephone's band, covered by noise (signal-to-noise ratio), made softer.
    """

    start: str = "nothing"
    channels: tuple[int, ...]
    tower_width: int = Field(gt=0)
    seconds: float = Field(default=5.0, gt=0)
    mixture: float = 0.5
    mixture_db: tuple[float, float] = (-15.0, 5.0)
    band_limit: float = 0.33
    band_limit_hz: tuple[float, float] = (2_500.0, 12_000.0)
    telephone: float = 0.08
    noise: float = 0.33
    noise_db: tuple[float, float] = (10.0, 40.0)
    tilt_db: float = 6.0
    softest_db: float = -26.0
    map_weight: float = 1.0
    embedding_weight: float = 1.0
    class_weight: float = 40.0
    optimisation: Optimisation | None = None


TELEPHONE_HZ = (300.0, 3_400.0)


@dataclass(frozen=True)
class CropSampler:
    """A function from item number to a changed crop: {samples [N] at 32 kHz, mel [F, 64] of the student's front end}.

    A recording is drawn in proportion to the root of its length; a short one is repeated or placed in silence.
    """

    corpus: Corpus
    cumulative_weights: NDArray[np.float64]
    recipe: DistillationRecipe
    seed: int

    def __call__(self, number: int) -> dict[str, FloatArray]:
        """Item `number`, drawn from (seed, number)."""
        generator, recipe = np.random.default_rng((self.seed, number)), self.recipe
        samples = self._crop(generator)
        if generator.random() < recipe.mixture:
            other = self._crop(generator)
            level = (
                10.0 ** (generator.uniform(*recipe.mixture_db) / 20.0)
                * root_mean_square(samples)
                / max(root_mean_square(other), 1e-6)
            )
            samples = samples + np.float32(level) * other
        samples = change_spectrum(samples, recipe, generator)
        if generator.random() < recipe.noise:
            level = root_mean_square(samples) * 10.0 ** (-generator.uniform(*recipe.noise_db) / 20.0)
            samples = samples + (level * generator.standard_normal(len(samples))).astype(np.float32)
        level = 10.0 ** (generator.uniform(recipe.softest_db, 0.0) / 20.0) / max(float(np.abs(samples).max()), 1e-4)
        samples = samples * np.float32(level)
        return {"samples": samples, "mel": FRONT_END.log_mel(samples)}

    def _crop(self, generator: np.random.Generator) -> FloatArray:
        index = int(np.searchsorted(self.cumulative_weights, generator.random()))
        length = int(self.recipe.seconds * CORPUS_RATE)
        room = self.corpus.length(index) - length
        if room > 0:
            return self.corpus.audio(index, int(generator.integers(0, room + 1)), length)
        audio = self.corpus.audio(index)
        if generator.random() < 0.5:
            return np.resize(audio, length)
        result = np.zeros(length, dtype=np.float32)
        start = int(generator.integers(0, length - len(audio) + 1))
        result[start : start + len(audio)] = audio
        return result


def change_spectrum(samples: FloatArray, recipe: DistillationRecipe, generator: np.random.Generator) -> FloatArray:
    """The samples with a tilted spectrum, and for some of them a lower upper limit or a telephone's band."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1.0 / CORPUS_RATE)
    octaves = np.log2(np.maximum(hertz, 50.0) / 1_000.0)
    decibels = generator.uniform(-1.0, 1.0) * recipe.tilt_db / 4.0 * octaves
    kind = generator.random()
    if kind < recipe.band_limit:
        decibels = np.where(hertz > generator.uniform(*recipe.band_limit_hz), -80.0, decibels)
    elif kind < recipe.band_limit + recipe.telephone:
        lowest, highest = TELEPHONE_HZ
        decibels = np.where((hertz < lowest) | (hertz > highest), -80.0, decibels)
    return np.fft.irfft(spectrum * 10.0 ** (decibels / 20.0), len(samples)).astype(np.float32)


class Distillation(nn.Module):
    """The student with the heads that read the teacher's map and classes off it; the teacher is no part of the state.

    mean, deviation: [384] of the teacher's map.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, tower: ConvTower, recipe: DistillationRecipe, teacher: mobilenet.MobileNet) -> None:
        super().__init__()
        self.tower = tower
        self.map = nn.Conv1d(recipe.channels[-1], mobilenet.WIDTH, 1)
        self.classes = nn.Linear(mobilenet.WIDTH, mobilenet.CLASSES)
        self.register_buffer("mean", torch.zeros(mobilenet.WIDTH))
        self.register_buffer("deviation", torch.ones(mobilenet.WIDTH))
        self._recipe = recipe
        self._teacher = (teacher, mobilenet.MobileNetFrontEnd())  # in a tuple: not trained, not stored

    @torch.no_grad()
    def teach(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's map [B, 384, T'] (mean over bands, standardised) and probabilities [B, 527] of samples."""
        network, front_end = self._teacher
        features = network.map(front_end(samples))
        probabilities = torch.sigmoid(network.classifier(features))
        return self.standardised(features.mean(dim=2)), probabilities

    def standardised(self, features: Tensor) -> Tensor:
        """The map [B, 384, T'] with mean 0 and deviation 1 in each channel."""
        centred: Tensor = features - self.mean[:, None]
        return centred / self.deviation[:, None]

    def forward(self, samples: Tensor, mel: Tensor) -> dict[str, Tensor]:
        """The loss with its parts, of samples [B, N] at 32 kHz and mel [B, F, M] in dB of the same crops."""
        target, probabilities = self.teach(samples)
        seen = self.map(self.tower.hidden(mel))  # [B, 384, T]
        steps = functional.adaptive_avg_pool1d(target, seen.shape[2])  # the teacher's steps are half as long
        embedding = seen.mean(dim=2)
        recipe = self._recipe
        parts = {
            "map_loss": recipe.map_weight * functional.mse_loss(seen, steps),
            "embedding_loss": recipe.embedding_weight * share_of_variance(embedding, target.mean(dim=2)),
            "class_loss": recipe.class_weight
            * functional.binary_cross_entropy_with_logits(self.classes(embedding), probabilities),
        }
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def share_of_variance(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of [B, D] as a share of what varies within the batch."""
    variance = wanted.var(dim=0, correction=0).mean().clamp(min=1e-3)
    return functional.mse_loss(found, wanted) / variance


def stack_crops(items: Sequence[dict[str, FloatArray]]) -> dict[str, Tensor]:
    """A batch: samples [B, N] and mel [B, F, M]."""
    return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


@torch.no_grad()
def measure_map(model: Distillation, draw: Callable[[int], dict[str, FloatArray]]) -> None:
    """Set the mean and the deviation of the teacher's map from the first crops."""
    maps = [
        model.teach(torch.from_numpy(draw(number)["samples"])[None])[0][0] for number in range(STANDARD_CROPS)
    ]  # [384, T'] each
    steps = torch.cat(maps, dim=1)
    model.mean.copy_(steps.mean(dim=1))
    model.deviation.copy_(steps.std(dim=1).clamp(min=1e-3))


def length_weights(corpus: Corpus, chosen: Sequence[int]) -> NDArray[np.float64]:
    """Cumulative weights [N] by which the chosen recordings are drawn, in proportion to the root of their length."""
    weights = np.zeros(len(corpus))
    weights[list(chosen)] = [corpus.length(index) ** 0.5 for index in chosen]
    return np.cumsum(weights / weights.sum())


def start_tower(recipe: DistillationRecipe, teachers: Path) -> ConvTower:
    """A tower with the weights of the recipe's start: random ones, or those of a student."""
    tower = ConvTower(FRONT_END.bands, recipe.channels, recipe.tower_width)
    if recipe.start != "nothing":
        student = read_student(teachers / f"{recipe.start}.pt")
        blocks = {name: value for name, value in student.items() if name.startswith("blocks.")}
        norm = {f"input_{name}": value for name, value in student.items() if name.startswith("norm.")}
        tower.load_state_dict({**tower.state_dict(), **norm, **blocks})
    return tower


def distil(run: MiniRun) -> None:
    """Write distillation/model.safetensors: the audio tower, whose projection is still random."""
    recipe = run.recipe(DistillationRecipe, "distillation")
    folder = run.output / "distillation"
    folder.mkdir(parents=True, exist_ok=True)
    tower = start_tower(recipe, run.teachers)
    if recipe.optimisation is not None:
        torch.manual_seed(recipe.optimisation.seed)
        model = Distillation(tower, recipe, load_teacher(run))
        draw = CropSampler(run.corpus, length_weights(run.corpus, run.seen), recipe, recipe.optimisation.seed)
        measure_map(model, draw)
        train_model(model, draw, stack_crops, recipe.optimisation, folder)
    save_file(tower.state_dict(), folder / "model.safetensors")
