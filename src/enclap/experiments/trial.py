"""One run: a captioner trained on mini's features for a short time, and its captions of scenes that are new to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from enclap.data.feature_store import Clip, FeatureStore, StoreHeader
from enclap.data.splits import VALIDATION, split_of
from enclap.data.synthetic.scenes import SceneComposer, SceneMix
from enclap.decoding.options import DecodingOptions
from enclap.decoding.selection import SentenceSelector
from enclap.engines.torch import TorchEngine
from enclap.errors import UsageError
from enclap.experiments.grids import Training
from enclap.hub.layout import LEADING_SLOTS
from enclap.model.clap import Clap
from enclap.model.loading import load_caption_model
from enclap.model.masking import clip_generator, hidden_frames, mask_codes
from enclap.model.slots import EncoderInputs
from enclap.training import captioning
from enclap.training.mini.context import FRONT_END, MiniRun
from enclap.training.mini.opinions import find_companions
from enclap.training.mini.scenes import CaptionRecipe, ExportedCodec, SceneSet, embed_scenes, prepare_shard
from enclap.training.mini.stages import make_tokenizer
from enclap.training.recipe import Optimisation
from enclap.types import Features

EVALUATION_SEED = 1_000
"""Of the composed scenes that are captioned; trainings have other seeds."""
CAPTIONED_TOGETHER = 64
MASKED_SHARE, MASKED_SPAN = 0.15, 10
"""Of the codes that are restored when that is measured, the same for every row."""
HELD_OUT = "unseen"
"""What `scenes` calls a set of recordings that CLAP has not seen, by which its clips are named."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a run may cost. steps, batch: of the training. scenes: that are captioned afterwards."""

    steps: int = 400
    batch: int = 48
    scenes: int = 300


def masks_of(training: Training) -> dict[str, float | int]:
    """The settings of masks that a training has; without the masked-codec loss nothing is hidden."""
    hides = {} if training.mcm else {"mask_probability": 0.0}
    return {"mask_span": training.mask_span, **hides}


class ClipView(Sequence[Clip]):
    """Clips as a training sees them: some of the codebooks, and embeddings or zeros in their place."""

    def __init__(self, clips: Sequence[Clip], training: Training) -> None:
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
        clip = self._clips[index]
        return replace(clip, features=self.features(clip.features))

    def __iter__(self) -> Iterator[Clip]:
        return (self[number] for number in range(len(self)))

    def features(self, features: Features) -> Features:
        """The features as the training's model takes them."""
        codes, embedding = features.codes[:, : self._training.codebooks], features.embedding
        if not self._training.use_codes:
            codes = codes[:0]  # no frame at all: hidden ones would still tell how long the sound is
        if embedding is not None and not self._training.has_embedding:
            embedding = np.zeros_like(embedding)
        return Features(codes, embedding)


class Laboratory:
    """What all runs share: a finished training of mini, and the scenes that are captioned."""

    def __init__(self, run: MiniRun, output: Path, budget: Budget) -> None:
        if not run.markers.is_done("caption"):
            raise UsageError(f"{run.output}: no finished training of mini; run `make mini` first, or name another")
        self.run = run
        self.output = output
        self.budget = budget

    @cached_property
    def clips(self) -> FeatureStore:
        """The clips that captioners are trained on."""
        return FeatureStore(*(self.run.output / "features" / name for name in ("seen", "unseen")))

    @cached_property
    def scenes(self) -> FeatureStore:
        """The scenes that are captioned, of recordings that neither CLAP nor the captioner was trained on."""
        run, folder = self.run, self.output / f"scenes-{self.budget.scenes}"
        numbers = [number for number, item in enumerate(run.corpus.recordings) if split_of(item) == VALIDATION]
        known = set(run.targets.label_names)
        weights = dict.fromkeys(numbers, 1.0)
        composer = SceneComposer(run.corpus, weights, SceneMix(), EVALUATION_SEED, known, find_companions(run))
        scenes = SceneSet(HELD_OUT, folder / "prepared", self.budget.scenes, composer, captions=1)
        exported = ExportedCodec(run.output / "codec")
        for shard in range(scenes.shards):
            prepare_shard(scenes, shard, exported, FRONT_END)
        return embed_scenes(scenes, folder / "features", Clap.from_folder(run.output / "clap"), self.clips.header)

    def train(self, training: Training, seed: int, folder: Path) -> float:
        """Train a captioner into folder/model; the seconds that it took, of this call alone.

        A training that was cut off goes on from its last checkpoint in the folder.
        """
        recipe = self.run.recipe(CaptionRecipe, "caption")
        header: StoreHeader = self.clips.header
        header = replace(header, codebooks=training.codebooks or header.codebooks)
        sizes: dict[str, Any] = {
            **recipe.model,
            "use_clap": training.use_clap,
            "mcm_loss_weight": training.mcm,
        }
        tokenizer = make_tokenizer(self.run)
        torch.manual_seed(seed)
        model = captioning.new_captioner(sizes, tokenizer, header)
        phase = captioning.Phase(
            ClipView(self.clips, training),
            np.ones(len(self.clips)),
            recipe.perturbation.model_copy(update=masks_of(training)),
            self.optimisation(recipe.optimisation, seed),
        )
        began = time.monotonic()
        captioning.train_captioner(model, tokenizer, [phase], folder / "training", folder / "model")
        return time.monotonic() - began

    def parameters(self, training: Training, folder: Path) -> int:
        """How many numbers the model in folder/model has, without the tables of codes when it is given none."""
        model = load_caption_model(folder / "model")
        unused = () if training.use_codes else ("frame_embedding.", "mcm_heads.")
        return sum(value.numel() for name, value in model.named_parameters() if not name.startswith(unused))

    @torch.inference_mode()
    def masked_accuracy(self, training: Training, folder: Path) -> float | None:
        """The share of hidden codes that the model restores, over all codebooks; None for a model without codes.

        The same codes are hidden for every row, in spans, whatever masks the model was trained with.
        """
        if not training.use_codes:
            return None
        model = load_caption_model(folder / "model")
        right = count = 0
        for clip in ClipView(self.scenes, training):
            codes = clip.features.codes[: model.config.max_frames]
            generator = clip_generator(EVALUATION_SEED, 0, clip.name)
            hidden = hidden_frames(len(codes), codes.shape[1], generator, probability=MASKED_SHARE, span=MASKED_SPAN)
            shown, _ = mask_codes(codes, hidden, model.config.codebook_entries)
            embedding = clip.features.embedding
            inputs = EncoderInputs(
                torch.from_numpy(shown)[None], None, None if embedding is None else torch.tensor(embedding)[None]
            )
            frames = model.encode(inputs)[0].last_hidden_state[0, LEADING_SLOTS : LEADING_SLOTS + len(codes)]
            for number, head in enumerate(model.mcm_heads):
                restored = head(frames).argmax(-1).numpy()
                right += int((restored == codes[:, number])[hidden[:, number]].sum())
            count += int(hidden.sum())
        return right / count if count else None

    def optimisation(self, usual: Optimisation, seed: int) -> Optimisation:
        """mini's own settings with the budget's length and the run's seed."""
        steps = self.budget.steps
        changes = {
            "steps": steps,
            "batch_size": self.budget.batch,
            "seed": seed,
            "warmup_steps": min(usual.warmup_steps, steps // 8),
            "save_every": max(1, steps // 4),
        }
        return usual.model_copy(update=changes)

    def captions(self, training: Training, decoding: DecodingOptions, folder: Path) -> tuple[list[str], float]:
        """The captions of the scenes by the model in folder/model, and the seconds that they took."""
        model = folder / "model"
        for part in ("codec", "clap"):
            if not (model / part).exists():
                (model / part).symlink_to((self.run.output / part).resolve())
        selector = SentenceSelector(TorchEngine(model), None)
        clips = list(ClipView(self.scenes, training))
        found: list[str] = []
        began = time.monotonic()
        for start in range(0, len(clips), CAPTIONED_TOGETHER):
            features = [clip.features for clip in clips[start : start + CAPTIONED_TOGETHER]]
            found += [selection.text for selection in selector.select(features, decoding)]
        return found, time.monotonic() - began
