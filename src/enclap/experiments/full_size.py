"""The grids at a published size: a recipe of `enclap train` and its data in the place of short scenes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from enclap.data.datasets.base import TRAIN, VALIDATION
from enclap.data.feature_store import Clip, FeatureStore
from enclap.errors import DataError
from enclap.experiments.grids import Training
from enclap.experiments.recipe import digest
from enclap.experiments.table import families_named
from enclap.experiments.trial import Truth, count_parameters, masked_accuracy
from enclap.hub.layout import CLAP, CODEC
from enclap.hub.resolve import find_model
from enclap.training import captioning
from enclap.training.caption_recipe import GROUP_BY_LENGTH, CaptionTraining, read_caption_recipe
from enclap.training.captioning import count_batch
from enclap.training.dataset import EpochItems
from enclap.training.run import TrainingRun, collator_of, features_of
from enclap.training.start import Start, start_from_bart
from enclap.training.trainer import train_model
from enclap.types import Features

TEST = "test"
HEARD_BY = 2
"""Captions of a clip that name a family before it counts as there, where a clip has so many."""
NO_AUDIO = "the features of a data set hold codes and embeddings, and no spectrograms"
OTHER_ENCODERS = "the encoders are the published ones"


def full_size_laboratory(
    recipe: str, changes: Sequence[str], data: tuple[str, ...], model: str | None, output: Path, device: str
) -> FullSizeLaboratory:
    """The laboratory of a recipe, which is named as for `enclap train`. model: whose encoders hear; None for those of
    the features.
    """
    return FullSizeLaboratory(read_caption_recipe(recipe, changes), recipe, data, model, output, device)


class ClipView(Sequence[Clip]):
    """Clips of a data set as a training sees them: some of the inputs, and zeros in the place of embeddings."""

    def __init__(self, clips: FeatureStore, training: Training) -> None:
        self._clips = clips
        self._training = training

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        """A clip, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        clip, training = self._clips[index], self._training
        codes, embedding = clip.features.codes[:, : training.codebooks], clip.features.embedding
        if training.acoustic == "none":
            codes = codes[:0]  # no frame at all: hidden ones would still tell how long the sound is
        if embedding is not None and not training.has_embedding:
            embedding = np.zeros_like(embedding)
        return replace(clip, features=Features(codes, embedding))

    def __iter__(self) -> Iterator[Clip]:
        return (self[number] for number in range(len(self)))


class FullSizeLaboratory:
    """Runs of a recipe of `enclap train` on features or a data set, of whose test or validation clips captions are."""

    def __init__(
        self, recipe: CaptionTraining, name: str, data: tuple[str, ...], model: str | None, output: Path, device: str
    ) -> None:
        self.output, self.device = output, device
        self._recipe, self._name, self._data, self._model = recipe, name, data, model

    @cached_property
    def _features(self) -> tuple[FeatureStore, str]:
        run = TrainingRun(self._recipe, self._data, self.output / f"data-{digest(str(self._data))}", self._model)
        return features_of(run)

    @property
    def store(self) -> FeatureStore:
        """The features of the data, extracted if they are not."""
        return self._features[0]

    @cached_property
    def captioned(self) -> list[int]:
        """The clips that are captioned: of the test split, or of validation where there is none."""
        splits = self.store.column("split")
        for wanted in (TEST, VALIDATION):
            rows = [row for row, split in enumerate(splits) if split == wanted]
            if rows:
                return rows
        raise DataError("no clips to caption: the splits 'test' and 'validation' are empty")

    @cached_property
    def truths(self) -> Sequence[Truth]:
        """Of each clip that is captioned, the families that its captions name; clips are independent of each other."""
        captions = self.store.column("captions")
        return [Truth(families_heard(captions[row]), (str(row),)) for row in self.captioned]

    def key(self, training: Training) -> str:
        """A name for a training's folder."""
        return f"{training.key}-{digest(self._recipe.model_dump_json() + str(self._data))}"

    def obstacle(self, training: Training) -> str:
        """Why a training is not possible with features of a data set."""
        if training.acoustic in ("log_mel", "feature_map"):
            return NO_AUDIO
        if training.has_own_encoders or training.tune_clap or training.entries or (training.codebooks or 0) > 16:
            return OTHER_ENCODERS
        if training.sentences:
            return "the language model is pretrained already"
        return ""

    def size(self) -> str:
        """How large a run is."""
        return f"the recipe {self._name}, {self._recipe.epochs} epochs, then the test clips captioned"

    def train(self, training: Training, seed: int, folder: Path) -> float:
        """Train a captioner into folder/model, going on from what is there; the seconds that this call took."""
        start = self.start(training, seed)
        view = ClipView(self.store, training)
        rows = [row for row, split in enumerate(self.store.column("split")) if split == TRAIN]
        perturbation = {"mask_span": training.mask_span, **({} if training.mcm else {"mask_probability": 0.0})}
        items = EpochItems(
            view,
            rows,
            start.tokenizer,
            start.model.config.codebook_entries,
            start.model.config.max_frames,
            self._recipe.perturbation.model_copy(update=perturbation),
            batch_size=self._recipe.optimisation.batch_size,
            seed=seed,
            group_by_length=self._recipe.train_sampling_strategy == GROUP_BY_LENGTH,
        )
        plan = self._recipe.planned(items.steps_per_epoch).model_copy(update={"seed": seed})
        began = time.monotonic()
        count = partial(count_batch, codebooks=start.model.config.codebooks)
        train_model(start.model, items, collator_of(start), plan, folder / "training", count)
        captioning.save_captioner(start.model, start.tokenizer, folder / "model")
        for part in (CODEC, CLAP):
            if not (folder / "model" / part).exists():
                (folder / "model" / part).symlink_to((find_model(self._model or self._features[1]) / part).resolve())
        return time.monotonic() - began

    def start(self, training: Training, seed: int) -> Start:
        """The BART that a run begins from, with the inputs that its training has."""
        header = self.store.header
        header = replace(
            header,
            codebooks=training.codebooks or header.codebooks,
            embedding=header.embedding if training.use_clap else 0,
        )
        start = start_from_bart(str(self._recipe.start), header, seed)
        start.model.config.label_smoothing = self._recipe.label_smoothing
        start.model.config.mcm_loss_weight = training.mcm
        return start

    def features(self, training: Training, seed: int, folder: Path) -> list[Features]:
        """What the model in folder/model is given of the clips that are captioned."""
        view = ClipView(self.store, training)
        return [view[row].features for row in self.captioned]

    def facts(self, training: Training, seed: int, folder: Path) -> dict[str, Any]:
        """Parameters, and the share of hidden codes restored."""
        accuracy = None
        if training.acoustic == "codes":
            names = self.store.column("name")
            features = self.features(training, seed, folder)
            accuracy = masked_accuracy(folder, features, [names[row] for row in self.captioned])
        return {"parameters": count_parameters(training, folder), "masked_accuracy": accuracy}


def families_heard(captions: Sequence[str]) -> tuple[str, ...]:
    """The families of sounds that at least two of a clip's captions name, or the only one it has."""
    counts = Counter(family for caption in captions for family in families_named(caption))
    enough = min(HEARD_BY, len(captions))
    return tuple(sorted(family for family, count in counts.items() if count >= enough))
