"""The shipped model from the recordings, stage by stage: codec, CLAP, features, captioner, export.

Each stage writes into its own folder under the output folder and is skipped when its `done` file stands there; a
stage that was cut off goes on from its last checkpoint. `make mini` calls this module.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import EncodecModel

from enclap.audio.mel import ClapFrontEnd
from enclap.data.manifest import Corpus, open_corpus
from enclap.training import clap as clap_stage
from enclap.training import codec as codec_stage
from enclap.training.recipe import HeldOut, RecipeType, read_recipe
from enclap.training.trainer import run_stage
from enclap.training.views import MelBank, open_mel_bank
from enclap.types import FloatArray

logger = logging.getLogger(__name__)

CORPUS_RATE = 32_000
"""Samples per second of the decoded recordings: the highest rate they come in."""

FRONT_END = ClapFrontEnd(
    rate=CORPUS_RATE,
    length=10 * CORPUS_RATE,
    window=1_024,
    hop=CORPUS_RATE // 50,
    bands=64,
    lowest=50.0,
    highest=14_000.0,
)
HELD_OUT = HeldOut()


@dataclass(frozen=True)
class Workshop:
    """Where the recordings, the recipes and the results lie."""

    recordings: Path
    output: Path
    recipes: Path

    @cached_property
    def corpus(self) -> Corpus:
        """All recordings, decoded."""
        return open_corpus(self.recordings, self.output / "cache", CORPUS_RATE)

    @cached_property
    def mels(self) -> MelBank:
        """All recordings as mel spectrograms."""
        return open_mel_bank(self.corpus, FRONT_END, self.output / "cache")

    @cached_property
    def seen(self) -> list[int]:
        """Numbers of the recordings that CLAP is trained on."""
        return [
            number
            for number, recording in enumerate(self.corpus.recordings)
            if recording.split == "train" and not clap_stage.is_held_out(recording, HELD_OUT)
        ]

    @cached_property
    def held_out(self) -> list[int]:
        """Numbers of the training recordings that CLAP is not trained on."""
        seen = set(self.seen)
        return [
            number
            for number, recording in enumerate(self.corpus.recordings)
            if recording.split == "train" and number not in seen
        ]

    @cached_property
    def targets(self) -> clap_stage.Targets:
        """Labels and words that CLAP is trained on."""
        return clap_stage.make_targets(self.corpus.recordings, self.seen)

    def recipe(self, kind: type[RecipeType], name: str) -> RecipeType:
        """A stage's recipe."""
        return read_recipe(kind, self.recipes / f"{name}.yaml")


def train_teacher(workshop: Workshop) -> None:
    """Write teacher/model.safetensors."""
    recipe = workshop.recipe(clap_stage.TeacherRecipe, "teacher")
    torch.manual_seed(recipe.optimisation.seed)
    model = new_teacher(workshop, recipe)
    bank = MelBank(workshop.mels.mels, workshop.mels.starts, recipe.frames)
    draw = clap_stage.view_drawer(
        bank, workshop.targets, choose(workshop), recipe.augmentation, recipe.optimisation.seed
    )
    run_stage(model, draw, clap_stage.stack, recipe.optimisation, workshop.output / "teacher")
    save_file(model.state_dict(), workshop.output / "teacher" / "model.safetensors")


def new_teacher(workshop: Workshop, recipe: clap_stage.TeacherRecipe) -> clap_stage.Teacher:
    """A teacher with random weights."""
    targets = workshop.targets
    return clap_stage.Teacher(
        recipe.channels, FRONT_END.bands, len(targets.label_names), len(targets.word_names)
    )


def load_teacher(workshop: Workshop) -> clap_stage.Teacher:
    """The trained teacher."""
    model = new_teacher(workshop, workshop.recipe(clap_stage.TeacherRecipe, "teacher"))
    model.load_state_dict(load_file(workshop.output / "teacher" / "model.safetensors"))
    return model.eval().requires_grad_(False)


def choose(workshop: Workshop) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Cumulative probabilities by which CLAP's recordings are drawn."""
    return clap_stage.sampling(workshop.corpus.recordings, workshop.seen)


def train_codec(workshop: Workshop) -> None:
    """Write codec/ (config and weights) and codec/report.json: errors and perplexities on held-out recordings."""
    recipe = workshop.recipe(codec_stage.CodecRecipe, "codec")
    folder = workshop.output / "codec"
    corpus = open_corpus(workshop.recordings, workshop.output / "cache", int(recipe.model["sampling_rate"]))
    samples = int(recipe.segment_seconds * corpus.rate)
    chances = clap_stage.sampling(corpus.recordings, workshop.seen)
    torch.manual_seed(recipe.autoencoder.seed)
    codec = codec_stage.build_codec(recipe)
    for name, quantised, optimisation in (
        ("autoencoder", False, recipe.autoencoder),
        ("quantised", True, recipe.quantised),
    ):
        draw = codec_stage.segment_drawer(corpus, chances, samples, optimisation.seed)
        if quantised:
            left = codec_stage.fit_codebooks(codec, _latents(codec, draw, recipe.clustering_items))
            logger.info("variance left after each codebook: %s", [round(value, 3) for value in left])
        model = codec_stage.CodecTraining(codec, quantised)
        run_stage(model, draw, codec_stage.stack_segments, optimisation, folder / name)
    codec.save_pretrained(folder)
    _codec_preprocessor(folder, corpus.rate)
    chances = clap_stage.sampling(corpus.recordings, workshop.held_out)
    unheard = codec_stage.segment_drawer(corpus, chances, samples, seed=0)
    report = codec_stage.codec_report(codec, torch.from_numpy(np.stack([unheard(n) for n in range(96)])))
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def _latents(codec: EncodecModel, draw: Callable[[int], FloatArray], items: int) -> Tensor:
    """Latent vectors [N, D] of `items` drawn segments."""
    codec.eval()
    parts = [codec.encoder(torch.from_numpy(draw(number))[None, None]) for number in range(items)]
    return torch.cat([part.squeeze(0).T for part in parts])


def _codec_preprocessor(folder: Path, rate: int) -> None:
    """Write the codec's preprocessor_config.json with the names of transformers' EncodecFeatureExtractor."""
    table = {"feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "sampling_rate": rate}
    (folder / "preprocessor_config.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
