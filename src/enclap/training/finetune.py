"""From a folder of sounds with captions to a model that describes such sounds, as `enclap finetune` does it."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from enclap.captioner import Captioner
from enclap.data.datasets.base import TRAIN, VALIDATION
from enclap.data.datasets.open import open_checked
from enclap.data.feature_store import Clip, FeatureStore
from enclap.data.splits import hash_fraction
from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError, UsageError
from enclap.extraction.extract import extract_features
from enclap.files import check_free, locked, make_folders
from enclap.hub.layout import read_configuration
from enclap.text import printable
from enclap.training.adapters import add_adapters, merge_adapters
from enclap.training.caption_recipe import CaptionTraining, read_caption_recipe
from enclap.training.finetune_report import Comparison, Report, write_report
from enclap.training.model_folder import write_model
from enclap.training.run import (
    MODEL,
    Prepared,
    TrainingRun,
    card_of,
    items_of,
    learn,
    quiet_transformers,
    require_same_run,
)
from enclap.training.start import Start, require_captions, start_from_model
from enclap.training.trainer import BEST
from enclap.training.vocabulary import (
    PIECES_PER_WORD,
    extend_model,
    extended_tokenizer,
    learn_merges,
    pieces_per_word,
    repeats_within,
)
from enclap.training.weights import round_to_float16

logger = logging.getLogger(__name__)

FEWEST_FOR_VALIDATION = 100
"""Clips from which some are held out; of fewer, each is worth more to the training than to a measurement."""
HELD_OUT = 0.1
SMALL_WIDTH = 512
"""Width of a caption model below which it is trained as mini is, and not as the published sizes."""
ROOM = 1.25
"""How much longer than the longest caption a generated one may get."""
WORK = ".work"
"""Added to the output's name: the folder of features and checkpoints, from which a run that was stopped goes on."""


@dataclass(frozen=True, slots=True)
class FineTuning:
    """What `enclap finetune` was asked for.

    data: as `open_dataset` takes it. overrides: of the recipe. keep_work: leave features and checkpoints there.
    """

    data: tuple[str, ...]
    output: Path
    base: str = "mini"
    audio: Path | None = None
    overrides: tuple[str, ...] = ()
    keep_work: bool = False


def finetune(asked: FineTuning) -> Report:
    """What came of it; the model and its report are in `output`, which is there when all of it is.

    UsageError for captions that the model would cut or an output that exists, DataError for faults in the data.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("enclap finetune runs in one process; for many use `enclap extract` and `enclap train --from`")
    check_free(asked.output)
    quiet_transformers()
    work = asked.output.with_name(asked.output.name + WORK)
    make_folders(work)
    with locked(work / ".lock", str(asked.output)):
        report = finetune_in(asked, work)
        (work / MODEL).rename(asked.output)
    if not asked.keep_work:
        shutil.rmtree(work)
    return report


def finetune_in(asked: FineTuning, work: Path) -> Report:
    """What came of it; the model with its report is in `work`/model."""
    dataset, _ = open_checked(asked.data, asked.audio)
    base = Captioner.from_pretrained(asked.base)
    extracted = extract_features(dataset, base, work / "features")
    store = FeatureStore(work / "features")
    prepared, notes = prepare_finetuning(asked, base, store, work)
    if extracted.failures:
        notes.insert(0, f"{extracted.failures} clips could not be used; see failures.jsonl in {WORK}")
    require_same_run(prepared)
    tuned = train_captions(prepared)
    shown = [store[row] for row in prepared.validation] or list(store[: Report.EXAMPLES])
    before = captions_of(base, shown)
    best = work / BEST / "metrics.json"
    metrics = json.loads(best.read_text(encoding="utf-8")) if best.is_file() else {}
    staged = work / MODEL
    write_model(tuned, prepared.encoders, staged, card_of(prepared, metrics))
    after = captions_of(Captioner.from_pretrained(staged), shown)
    pairs = zip(shown, before, after, strict=True)
    compared = tuple(Comparison(clip.name, clip.captions, one, other) for clip, one, other in pairs)
    clips = len(store) - len(prepared.validation)
    report = Report(asked.base, clips, compared if prepared.validation else (), compared, tuple(notes))
    write_report(report, work / "log.jsonl", staged)
    return report


def prepare_finetuning(
    asked: FineTuning, base: Captioner, store: FeatureStore, work: Path
) -> tuple[Prepared, list[str]]:
    """The training, with a vocabulary and limits that fit the captions, and what the user should know of it."""
    assert base.folder is not None
    recipe = recipe_for(base.folder, len(store), asked.overrides)
    start = start_from_model(str(base.folder), store.header)
    rows, validation, notes = divided(store)
    captions = store.column("captions")
    texts = [text for row in rows for text in captions[row]]
    torch.manual_seed(recipe.optimisation.seed)
    start, note = with_fitting_vocabulary(start, texts)
    notes.append(note)
    longest = require_captions(start, [captions[row] for row in [*rows, *validation]])
    start = replace(start, generation=with_fitting_limits(start, texts, longest))
    config = start.model.config
    config.label_smoothing, config.mcm_loss_weight = recipe.label_smoothing, recipe.mcm_loss_weight
    notes.append(
        "scores are not calibrated: the base model's calibration says nothing of these sentences, so it is gone"
    )
    items = items_of(store, rows, start, recipe)
    run = TrainingRun(recipe, asked.data, work, asked.base, asked.base, asked.audio, resume=True)
    plan = recipe.planned(items.steps_per_epoch)
    return Prepared(run, start, store, items, validation, plan, base.folder), notes


def recipe_for(base: Path, clips: int, overrides: Sequence[str]) -> CaptionTraining:
    """The recipe for a base model and so many clips; many clips get fewer epochs than few."""
    small = int(read_configuration(base)["d_model"]) < SMALL_WIDTH
    recipe = read_caption_recipe("finetune-small" if small else "finetune-large", overrides)
    if small and clips > FEWEST_FOR_VALIDATION and not any(item.startswith("epochs=") for item in overrides):
        epochs = math.ceil(recipe.epochs * math.sqrt(FEWEST_FOR_VALIDATION / clips))
        recipe = recipe.model_copy(update={"epochs": epochs})
    return recipe


def divided(store: FeatureStore) -> tuple[list[int], list[int], list[str]]:
    """The clips to train on, those held out, and a note on how they were divided.

    A split "validation" in the table is kept. Else a tenth is held out, drawn by the sound, where there are enough.
    Clips of other splits are left alone.
    """
    splits, names = store.column("split"), store.column("audio")
    rows, validation = ([row for row, name in enumerate(splits) if name == split] for split in (TRAIN, VALIDATION))
    if not rows:
        raise DataError("no clips to train on: none is in the split 'train'")
    if validation:
        return rows, validation, [f"{len(validation)} clips of the split 'validation' were held out"]
    if len(rows) < FEWEST_FOR_VALIDATION:
        why = f"fewer than {FEWEST_FOR_VALIDATION} clips"
        return rows, [], [f"{why}: nothing was held out, so nothing says how well other sounds are described"]
    order = sorted(rows, key=lambda row: hash_fraction(names[row], "finetune"))
    held = sorted(order[: round(HELD_OUT * len(rows))])
    return sorted(set(rows) - set(held)), held, [f"{len(held)} clips, drawn by their sound, were held out"]


def with_fitting_vocabulary(start: Start, captions: Sequence[str]) -> tuple[Start, str]:
    """The start with tokens for the captions' words, where its own cut them into many pieces; and a note on it."""
    before = pieces_per_word(start.tokenizer, captions)
    if before <= PIECES_PER_WORD:
        return start, f"the vocabulary fits: {before:.1f} tokens a word"
    tokenizer = extended_tokenizer(start.tokenizer, learn_merges(start.tokenizer, captions))
    extend_model(start.model, start.tokenizer, tokenizer)
    new = tokenizer.get_vocab_size() - start.tokenizer.get_vocab_size()
    after = pieces_per_word(tokenizer, captions)
    note = f"{new} tokens were added to the vocabulary: a word takes {after:.1f} tokens, before {before:.1f}"
    return replace(start, tokenizer=tokenizer), note


def with_fitting_limits(start: Start, captions: Sequence[str], longest: int) -> dict[str, object]:
    """How to generate, so that each of the captions could be a result. longest: tokens of the longest."""
    generation = dict(start.generation)
    room = math.ceil(ROOM * longest) + 1  # the decoder's first token comes before the caption's
    most = start.model.config.max_position_embeddings
    generation["max_length"] = min(most, max(room, int(generation.get("max_length") or 0)))
    generation["min_length"] = 0
    length = int(generation.get("no_repeat_ngram_size") or 0)
    encoded = start.tokenizer.encode_batch(list(captions))
    if length and any(repeats_within(item.ids, length) for item in encoded):
        generation["no_repeat_ngram_size"] = 0
    return generation


def train_captions(prepared: Prepared) -> Start:
    """The trained start, its weights rounded to what a folder stores where the base's are."""
    rank = prepared.run.recipe.lora
    if rank is None:
        learn(prepared)
        model = prepared.start.model
    else:
        adapters = add_adapters(prepared.start.model, rank, train_tokens=True)
        learn(prepared)
        model = merge_adapters(adapters)
    round_to_float16(model)
    return replace(prepared.start, model=model)


def captions_of(captioner: Captioner, clips: Sequence[Clip]) -> list[str]:
    """What a model says of clips, as `enclap caption --window 0` shows it."""
    selected = captioner.selector.select([clip.features for clip in clips], DecodingOptions())
    logger.info("%s: %d captions", printable(captioner.model), len(clips))
    return [selection.text for selection in selected]
