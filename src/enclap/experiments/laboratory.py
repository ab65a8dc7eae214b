"""Runs at mini's size: short scenes of real recordings, captioners that train in a minute on one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from enclap.data.feature_store import StoreHeader
from enclap.experiments import encoders
from enclap.experiments.grids import GIVEN, Training
from enclap.experiments.recipe import ExperimentRecipe, digest
from enclap.experiments.scenes import Encoders, Scenes, SceneSource
from enclap.experiments.trial import Sentences, Truth, View, compose_sentences, count_parameters, masked_accuracy
from enclap.experiments.tuning import OldLabels, Tail, TunedCaptioner, embed_tail, open_old_labels
from enclap.files import locked_in_turn, replacement_path
from enclap.hub.layout import CLAP, CODEC
from enclap.hub.resolve import find_model
from enclap.model import EnclapForConditionalGeneration
from enclap.training import captioning
from enclap.training.dataset import Perturbation
from enclap.training.recipe import read_recipe
from enclap.training.tokenizer import train_tokenizer
from enclap.types import Features, FloatArray, IntArray

Kept = TypeVar("Kept", bound=NDArray[Any])
TAIL = "clap-tail.safetensors"
"""The part of CLAP that a run has trained, in its folder."""
UNDISTURBED: dict[str, Any] = {"embedding_noise": 0.0, "embedding_dropout": 0.0}


class MiniLaboratory:
    """Runs with the encoders of a model of mini's kind, on scenes composed of a folder of recordings."""

    def __init__(self, recordings: Path, model: str, recipe: ExperimentRecipe, output: Path, device: str) -> None:
        self.output, self.device = output, device
        self._recordings, self._model, self.recipe = recordings, model, recipe

    @cached_property
    def source(self) -> SceneSource:
        """The scenes."""
        folder = self.output / f"scenes-{digest(self.recipe.scenes_key + self._model)}"
        return SceneSource(self._recordings, folder, self.recipe, self.encoders)

    @cached_property
    def encoders(self) -> Encoders:
        """The given codec and CLAP."""
        return Encoders(self._model)

    @cached_property
    def old_labels(self) -> OldLabels:
        """Recordings by which is told what CLAP forgets."""
        return open_old_labels(self._recordings, self.source.folder, self.recipe, self.encoders)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the scenes' captions, and of the sentences without sounds."""
        captions = [caption for text in self.source.training.texts for caption in text.captions]
        return train_tokenizer([*captions, *compose_sentences(self.recipe.sentences)], self.recipe.vocabulary)

    @cached_property
    def truths(self) -> Sequence[Truth]:
        """Of the scenes that are captioned."""
        texts = self.source.evaluation.texts
        return [Truth(tuple(text.families), text.originals, text.sequence) for text in texts]

    def key(self, training: Training) -> str:
        """A name for a training's folder."""
        parts = {"tower", "codec"} if not training.has_own_encoders else set()
        return f"{training.key}-{digest(self._model + self.recipe.model_dump_json(exclude=parts))}"

    def obstacle(self, training: Training) -> str:
        """Nothing stands in the way at this size."""
        return ""

    def size(self) -> str:
        """How large a run is."""
        recipe = self.recipe
        return (
            f"{recipe.optimisation.steps} steps of {recipe.optimisation.batch_size} of {recipe.scenes} scenes of "
            f"{recipe.seconds:g} s with sounds of {len(recipe.labels)} labels, then {recipe.evaluation_scenes} scenes "
            "captioned"
        )

    def train(self, training: Training, seed: int, folder: Path) -> float:
        """Train a captioner into folder/model, going on from what is there; the seconds that this call took."""
        scenes = self.source.training
        view = self.view(scenes, training, seed)
        began = time.monotonic()
        model = self.new_model(training, seed, view)
        if training.tune_clap:
            shape = scenes.maps.shape[1:]
            torch.manual_seed(seed)
            model = TunedCaptioner(model.config, self.encoders.tower, shape, self.recipe.perturbation)
            view = View(scenes, training, embedding=scenes.maps.reshape(len(scenes.maps), -1).astype(np.float32))
        phases = [self.phase(view, training, seed)]
        if training.sentences:
            phases.insert(0, self.sentence_phase(training, seed, view.features(0)))
        captioning.train_phases(model, self.tokenizer, phases, folder / "training")
        if isinstance(model, TunedCaptioner):
            with replacement_path(folder / TAIL) as temporary:
                save_file(model.tail.moves.state_dict(), temporary)
            model = model.plain()
        captioning.save_captioner(model, self.tokenizer, folder / "model")
        for part in (CODEC, CLAP):
            if not (folder / "model" / part).exists():
                (folder / "model" / part).symlink_to((find_model(self._model) / part).resolve())
        return time.monotonic() - began

    def view(self, scenes: Scenes, training: Training, seed: int) -> View:
        """Scenes as a training takes them, heard by the encoders that it asks for."""
        return View(scenes, training, self.codes(scenes, training, seed), self.embedding(scenes, training, seed))

    def codes(self, scenes: Scenes, training: Training, seed: int) -> IntArray | None:
        """Codes of another codec or other codebooks than the given ones; None for those."""
        given = self.encoders.codec
        if training.codec != GIVEN:
            name = f"codec-{training.codec.split()[0]}"
            return self._kept(
                name,
                seed,
                scenes,
                lambda folder: encoders.encode_with(
                    encoders.train_codec(self.source, self.recipe, training.codec, seed, folder), scenes
                ),
            )
        codebooks, entries = training.codebooks or given.codebooks, training.entries or given.entries
        if entries == given.entries and codebooks <= given.codebooks:
            return None
        return self._kept(
            f"codebooks-{codebooks}x{entries}",
            0,
            scenes,
            lambda folder: encoders.refit(self.source, scenes, codebooks, entries),
        )

    def embedding(self, scenes: Scenes, training: Training, seed: int) -> FloatArray | None:
        """Embeddings of another CLAP than the given one; None for that."""
        if training.clap == GIVEN:
            return None
        return self._kept(
            f"clap-{training.clap.split()[0]}",
            seed,
            scenes,
            lambda folder: encoders.embed_with(
                encoders.train_tower(self.source, self.recipe, training.clap, seed, folder), scenes
            ),
        )

    def _kept(self, name: str, seed: int, scenes: Scenes, make: Callable[[Path], Kept]) -> Kept:
        """What `make` gives for a folder of an encoder, computed once for these scenes."""
        sizes = digest(self.recipe.tower.model_dump_json() + self.recipe.codec.model_dump_json())
        folder = self.source.folder / f"{name}-{sizes}-seed-{seed}"
        path = folder / f"{scenes.texts[0].name.partition('/')[0]}.npy"
        folder.mkdir(parents=True, exist_ok=True)
        with locked_in_turn(folder / "lock", str(folder)):
            if not path.exists():
                found = make(folder)
                with replacement_path(path) as temporary, temporary.open("wb") as file:
                    np.save(file, found)
            kept: Kept = np.load(path)
        return kept

    def new_model(self, training: Training, seed: int, view: View) -> EnclapForConditionalGeneration:
        """A captioner with random weights for what the view's clips hold."""
        given, first = self.encoders, view.features(0)
        assert first.embedding is not None
        entries = training.entries or given.codec.entries
        rate, sizes = given.frame_rate, dict(self.recipe.model)
        if first.log_mel is not None:
            frames = np.stack([view.features(number).log_mel for number in range(0, len(view), 10)])  # type: ignore[misc]
            rate *= len(first.log_mel) / self.source.training.codes.shape[1]
            sizes |= {"acoustic_input": "log_mel", "log_mel_bands": frames.shape[2]}
            sizes |= {"log_mel_mean": float(frames.mean()), "log_mel_deviation": float(frames.std())}
        sizes |= {"use_clap": training.use_clap, "mcm_loss_weight": training.mcm}
        header = StoreHeader(first.codes.shape[1], entries, len(first.embedding), rate, "experiments")
        torch.manual_seed(seed)
        return captioning.new_captioner(sizes, self.tokenizer, header)

    def phase(self, view: View, training: Training, seed: int) -> captioning.Phase:
        """The captioner's training."""
        changes: dict[str, Any] = {"mask_span": training.mask_span}
        if not training.mcm:
            changes["mask_probability"] = 0.0  # without the loss nothing is hidden
        if training.tune_clap or not training.has_embedding:
            changes |= UNDISTURBED
        perturbation = self.recipe.perturbation.model_copy(update=changes)
        optimisation = self.recipe.scaled(self.recipe.optimisation, seed)
        return captioning.Phase(view, np.ones(len(view)), perturbation, optimisation)

    def sentence_phase(self, training: Training, seed: int, features: Features) -> captioning.Phase:
        """The training of the language model alone, before the captioner's."""
        clips = Sentences(compose_sentences(self.recipe.sentences), features)
        optimisation = self.recipe.scaled(self.recipe.optimisation, seed, self.recipe.sentence_steps)
        return captioning.Phase(clips, np.ones(len(clips)), Perturbation(**UNDISTURBED), optimisation)

    def features(self, training: Training, seed: int, folder: Path) -> list[Features]:
        """What the model in folder/model is given of the scenes that are captioned."""
        scenes = self.source.evaluation
        view = self.view(scenes, training, seed)
        if training.tune_clap:
            view = View(scenes, training, embedding=embed_tail(self.tail(folder), scenes.maps))
        return [view.features(number) for number in range(len(view))]

    def tail(self, folder: Path) -> Tail:
        """The end of CLAP's audio tower as a run has trained it."""
        tail = Tail(self.encoders.tower)
        tail.moves.load_state_dict(load_file(folder / TAIL))
        return tail.eval()

    def facts(self, training: Training, seed: int, folder: Path) -> dict[str, Any]:
        """Parameters, the share of hidden codes restored, and for a tuned CLAP its recall of old labels."""
        found: dict[str, Any] = {"parameters": count_parameters(training, folder), "masked_accuracy": None}
        if training.acoustic == "codes":
            names = [text.name for text in self.source.evaluation.texts]
            found["masked_accuracy"] = masked_accuracy(folder, self.features(training, seed, folder), names)
        if training.tune_clap:
            frozen = Tail(self.encoders.tower)
            tails = {"frozen": frozen, "tuned": self.tail(folder)}
            found["recall"] = {name: self.old_labels.recall(tail) for name, tail in tails.items()}
        return found


def mini_laboratory(
    recordings: Path, model: str, sizes: Path, changes: Sequence[str], output: Path, device: str
) -> MiniLaboratory:
    """The laboratory of a file of sizes. changes: "key=value"."""
    return MiniLaboratory(recordings, model, read_recipe(ExperimentRecipe, sizes, changes), output, device)
