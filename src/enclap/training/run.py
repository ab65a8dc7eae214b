"""A training of the caption model from a recipe, as `enclap train` runs it, in one process or in many.

A run's folder holds run.json (what the run is), log.jsonl, checkpoints/, best/ (weights that validated best) and at the
end model/, which `enclap caption` takes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from enclap.captioner import Captioner
from enclap.convert.published_sizes import DEFAULT_GENERATION
from enclap.data.datasets.base import TRAIN, VALIDATION
from enclap.data.datasets.open import open_checked
from enclap.data.feature_store import FeatureStore, find_shards, read_header
from enclap.errors import DataError, UsageError
from enclap.extraction.extract import PLAN, extract_features
from enclap.files import write_whole
from enclap.hub.resolve import find_model
from enclap.text import printable
from enclap.training.arguments import require_sharding
from enclap.training.caption_recipe import GROUP_BY_LENGTH, CaptionTraining
from enclap.training.captioning import count_batch
from enclap.training.card import Card, licence_of
from enclap.training.collate import CaptionCollator
from enclap.training.dataset import EpochItems
from enclap.training.estimate import Estimate, estimate
from enclap.training.model_folder import write_model
from enclap.training.processor import quick_processor
from enclap.training.publish import publish, reserve
from enclap.training.recipe import Optimisation
from enclap.training.start import Start, require_captions, require_encoders, start_from_bart, start_from_model
from enclap.training.trackers import require_trackers
from enclap.training.trainer import BEST, newest_checkpoint, train_model
from enclap.training.validation import Validation

logger = logging.getLogger(__name__)

RUN = "run.json"
MODEL = "model"
WITHOUT_EFFECT = ("workers", "accumulate", "log_every", "save_every", "trackers", "compile", "checkpointing")
"""Optimiser settings that may change when a run goes on: what is learned does not depend on them."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What `enclap train` was asked for.

    data: folders of features, or what `open_dataset` takes. encoders: the model whose codec and CLAP hear the clips;
    None for the one that the features name. start: the model to go on from; None for the recipe's BART. audio: see
    `open_dataset`. resume: whether to go on with a run that is in `output`.
    """

    recipe: CaptionTraining
    data: tuple[str, ...]
    output: Path
    encoders: str | None = None
    start: str | None = None
    audio: Path | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a training needs, checked: the model to train, its items, the clips to validate with, the encoders."""

    run: TrainingRun
    start: Start
    store: FeatureStore
    items: EpochItems
    validation: list[int]
    optimisation: Optimisation
    encoders: Path


def prepare(run: TrainingRun) -> Prepared:
    """The checked parts of a run; one error for what does not fit. Features are extracted if there are none yet."""
    quiet_transformers()
    recipe = run.recipe
    require_trackers(recipe.optimisation.trackers)
    store, named = features_of(run)
    encoders = find_model(run.encoders or named)
    require_encoders(encoders, store.header)
    if run.start is None and recipe.start is None:
        raise UsageError("this recipe goes on from a trained model; name it with --from")
    if run.start is not None:
        start = start_from_model(run.start, store.header)
    else:
        start = start_from_bart(str(recipe.start), store.header, recipe.optimisation.seed)
    start.model.config.label_smoothing = recipe.label_smoothing
    start.model.config.mcm_loss_weight = recipe.mcm_loss_weight
    splits = store.column("split")
    rows, validation = ([row for row, name in enumerate(splits) if name == split] for split in (TRAIN, VALIDATION))
    if not rows:
        raise DataError(f"no clips to train on: the split 'train' is empty, there are {', '.join(sorted(set(splits)))}")
    if not validation and recipe.validation.best != "loss":
        raise DataError(f"validation.best={recipe.validation.best}: the split 'validation' is empty")
    captions = store.column("captions")
    require_captions(start, [captions[row] for row in [*rows, *validation]])
    items = items_of(store, rows, start, recipe)
    return Prepared(run, start, store, items, validation, recipe.planned(items.steps_per_epoch), encoders)


def quiet_transformers() -> None:
    """Have transformers show no bar for every file, and no remarks on what is meant to be so."""
    disable_progress_bar()
    set_verbosity_error()


def items_of(store: FeatureStore, rows: Sequence[int], start: Start, recipe: CaptionTraining) -> EpochItems:
    """The training items of these clips."""
    return EpochItems(
        store,
        rows,
        start.tokenizer,
        start.model.config.codebook_entries,
        start.model.config.max_frames,
        recipe.perturbation,
        batch_size=recipe.optimisation.batch_size,
        seed=recipe.optimisation.seed,
        group_by_length=recipe.train_sampling_strategy == GROUP_BY_LENGTH,
    )


def features_of(run: TrainingRun) -> tuple[FeatureStore, str]:
    """The features of a run's data, and the model that they are of; extracted into the run's folder if need be."""
    state = PartialState(cpu=not torch.cuda.is_available())
    folders = [Path(name) for name in run.data if is_features(Path(name))]
    if folders and len(folders) < len(run.data):
        raise UsageError("--data: give folders of features or data sets, not both")
    if not folders:
        folders = [run.output / "features"]
        if state.is_main_process:
            dataset, _ = open_checked(run.data, run.audio)
            captioner = Captioner.from_pretrained(run.encoders or run.start or "mini")
            result = extract_features(dataset, captioner, folders[0])
            if result.failures:
                logger.warning("%d clips could not be extracted; see %s", result.failures, folders[0])
    with state.main_process_first():  # which makes the copy that all map
        store = FeatureStore(*folders)
    plan = folders[0] / PLAN
    named = str(json.loads(plan.read_text(encoding="utf-8"))["model"]) if plan.is_file() else "mini"
    return store, named


def is_features(folder: Path) -> bool:
    """Whether a folder holds shards of features."""
    try:
        read_header(find_shards(folder)[0])
    except DataError:
        return False
    return True


def estimate_run(prepared: Prepared) -> Estimate:
    """What the run takes on this machine."""
    captions = prepared.store.column("captions")
    encoded = prepared.start.tokenizer.encode_batch([texts[0] for texts in captions[:256]])
    tokens = float(np.mean([len(item.ids) for item in encoded]))
    frames = float(prepared.store.lengths().mean())
    return estimate(prepared.start.model, prepared.optimisation, frames, tokens, PartialState().num_processes)


def identity_of(prepared: Prepared) -> dict[str, Any]:
    """What makes this run what it is, as it is kept in run.json."""
    settings = prepared.run.recipe.model_dump(mode="json")
    for name in WITHOUT_EFFECT:
        settings["optimisation"].pop(name)
    facts = [prepared.store.column(name) for name in ("name", "split", "captions", "audio")]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    data = {"clips": len(prepared.store), "sha256": digest, "encoders": prepared.store.header.encoders}
    return {"recipe": settings, "data": data, "start": prepared.run.start or prepared.run.recipe.start}


def require_same_run(prepared: Prepared) -> None:
    """Write run.json, or raise UsageError when the folder holds another run, or one that nobody asked to go on with."""
    path, identity = prepared.run.output / RUN, identity_of(prepared)
    shown = printable(str(prepared.run.output))
    if path.is_file():
        if not prepared.run.resume:
            raise UsageError(f"{shown}: holds a training already; go on with --resume, or choose another output")
        found = json.loads(path.read_text(encoding="utf-8"))
        if differing := differences(found, identity):
            raise UsageError(f"{shown}: was begun otherwise ({'; '.join(differing)}); choose another output")
    elif newest_checkpoint(prepared.run.output / "checkpoints", tidy=False) is not None:
        raise UsageError(f"{shown}: holds checkpoints of another program; choose another output")
    else:
        PartialState().wait_for_everyone()  # or a slower process would find what the first one has just written
        if PartialState().is_main_process:
            prepared.run.output.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(identity, indent=1) + "\n")


def differences(found: Any, wanted: Any, key: str = "") -> list[str]:
    """What differs between two tables, each as "key: old -> new"."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = sorted({*found, *wanted})
        return [
            item
            for name in names
            for item in differences(found.get(name), wanted.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if found == wanted else [f"{key}: {found} -> {wanted}"]


def validation_of(prepared: Prepared) -> Validation | None:
    """What measures the model once an epoch; None without clips to validate with."""
    if not prepared.validation:
        return None
    settings, start = prepared.run.recipe.validation, prepared.start
    generation = {name: start.generation[name] for name in DEFAULT_GENERATION if name in start.generation}
    generation["early_stopping"] = settings.beams > 1 and bool(generation.get("early_stopping"))
    return Validation(
        [prepared.store[row] for row in prepared.validation],
        start.tokenizer,
        collator_of(start),
        every=prepared.items.steps_per_epoch,
        best=settings.best,
        patience=settings.patience,
        batch_size=settings.batch_size,
        generation={**generation, "num_beams": settings.beams},
    )


def collator_of(start: Start) -> CaptionCollator:
    """What makes batches for a model."""
    return CaptionCollator(start.model.config.codebook_entries, start.model.config.max_frames)


def train(run: TrainingRun) -> Path:
    """The folder of the trained model, `output`/model. Under `torchrun` every process calls this alike."""
    state = PartialState(cpu=not torch.cuda.is_available())
    require_sharding(run.recipe.optimisation, state.num_processes)
    prepared = prepare(run)
    require_same_run(prepared)
    state.wait_for_everyone()
    learn(prepared)
    if state.is_main_process:
        best = run.output / BEST / "metrics.json"
        metrics = json.loads(best.read_text(encoding="utf-8")) if best.is_file() else {}
        write_model(prepared.start, prepared.encoders, run.output / MODEL, card_of(prepared, metrics))
    state.wait_for_everyone()
    return run.output / MODEL


def train_and_publish(run: TrainingRun, repository: str | None) -> Path:
    """What `train` gives, after the model was put onto the hub; by one process, whose failure ends the others.

    The repository is made first, so that a wrong name or a missing right shows before the training.
    """
    writes = PartialState(cpu=not torch.cuda.is_available()).is_main_process and repository is not None
    if writes:
        reserve(str(repository))
    folder = train(run)
    if writes:
        publish(folder, str(repository))
    return folder


def learn(prepared: Prepared) -> None:
    """Train the model of a run."""
    count = partial(count_batch, codebooks=prepared.start.model.config.codebooks)
    with quick_processor(prepared.optimisation.compile):
        train_model(
            prepared.start.model,
            prepared.items,
            collator_of(prepared.start),
            prepared.optimisation,
            prepared.run.output,
            count,
            validation_of(prepared),
        )


def card_of(prepared: Prepared, metrics: dict[str, float]) -> Card:
    """What the model's card says."""
    return Card(
        start=str(prepared.run.start or prepared.run.recipe.start),
        data=tuple(printable(name) for name in prepared.run.data),
        clips=len(prepared.store),
        validated=len(prepared.validation),
        recipe=prepared.run.recipe,
        metrics={name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")},
        licence=licence_of(prepared.encoders),
    )
