"""The recipes of the paper and the published training loop, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from enclap.training.arguments import training_arguments
from enclap.training.caption_recipe import CaptionTraining, read_caption_recipe, recipe_path
from enclap.training.captioning import count_batch
from enclap.training.recipe import Optimisation
from enclap.training.trainer import ItemTrainer, train_model
from reference_tiny import from_official_slots, our_tensors, reference_model

ROOT = Path(__file__).resolve().parents[1]
PEAKS = {
    "audiocaps-base": (6.5e-5, 2000, None, "facebook/bart-base"),
    "audiocaps-large": (3e-5, 2000, None, "facebook/bart-large"),
    "clotho-base": (4e-5, 1000, None, "facebook/bart-base"),
    "clotho-large": (2.5e-5, 1000, None, "facebook/bart-large"),
    "clotho-finetune-base": (2e-5, 0, 1000, None),
    "clotho-finetune-large": (1.25e-5, 0, 1000, None),
}
"""Peak rate, warm-up, time scale and start of each (EnCLAP, arXiv 2401.17690)."""


@pytest.mark.parametrize("name", sorted(PEAKS))
def test_the_recipes_say_what_the_paper_says(name: str) -> None:
    recipe = read_caption_recipe(name)
    plan = recipe.optimisation
    assert (plan.learning_rate, plan.warmup_steps, plan.time_scale, recipe.start) == PEAKS[name]
    assert (recipe.epochs, plan.batch_size, plan.bfloat16, plan.clip_norm) == (15, 64, True, 1.0)
    assert (plan.weight_decay, plan.decay_embedding_norms, plan.adam_beta2) == (0.01, True, 0.999)
    assert (plan.schedule, plan.ema, plan.trackers) == ("inverse_sqrt", None, ("tensorboard",))
    assert (recipe.label_smoothing, recipe.mcm_loss_weight, recipe.validation.beams) == (0.2, 0.7, 4)
    masking = recipe.perturbation
    assert (masking.mask_probability, masking.mask_span) == (0.15, 10)
    assert masking.embedding_noise == masking.embedding_dropout == masking.codes_dropout == 0.0


def test_there_is_no_recipe_that_is_not_tested() -> None:
    finetuning = {"finetune-small", "finetune-large"}  # tests/test_vocabulary.py
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} == set(PEAKS) | finetuning
    assert recipe_path("audiocaps-base").is_file()


def test_every_number_of_a_recipe_has_a_source() -> None:
    for name in PEAKS:
        text = recipe_path(name).read_text(encoding="utf-8")
        assert "arXiv 2401.17690" in text and "authors' configuration" in text and "ours" in text


def published_batches(arrays: dict[str, np.ndarray]) -> list[dict[str, Tensor]]:
    """Batch A, the whole golden batch, and batch B, its rows 1 and 2 with the first 16 slots and 6 labels."""
    batches = []
    for rows, slots, labels in ((slice(0, 3), 23, 9), (slice(1, 3), 16, 6)):
        part = {name: array[rows] for name, array in arrays.items() if name.startswith("in_")}
        cut = {
            name: array[:, :slots] if array.ndim > 1 and array.shape[1] == 23 else array for name, array in part.items()
        }
        batch = from_official_slots(cut)
        frames = batch["codes"].shape[1]
        batch["mcm_labels"] = torch.from_numpy(cut["in_mcm_labels"][:, 2 : 2 + frames])
        batch["labels"] = torch.from_numpy(cut["in_labels"][:, :labels])
        batches.append(batch)
    return batches


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("warmup", {"learning_rate": 3e-3, "warmup_steps": 8}),
        ("timescale", {"learning_rate": 1e-3, "warmup_steps": 0, "time_scale": 10}),
    ],
)
def test_thirty_steps_are_those_of_the_published_loop(
    shared: Path, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    folder = shared / "reference" / "enclap_tiny"
    with np.load(folder / "forward.npz") as arrays:
        batches = published_batches({key: arrays[key] for key in arrays.files})
    model = reference_model()
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
            if hasattr(module, "activation_dropout"):
                module.activation_dropout = 0.0  # type: ignore[assignment]
    paper = read_caption_recipe("audiocaps-base").optimisation.model_dump()
    plan = {**paper, "steps": 30, "batch_size": 1, "bfloat16": False, "log_every": 1, "trackers": (), **settings}
    train_model(
        model,
        lambda number: batches[number % 2],
        lambda items: items[0],
        Optimisation.model_validate(plan),
        tmp_path,
        lambda batch: count_batch(batch, model.config.codebooks),
    )
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    with np.load(folder / "training.npz") as arrays:
        wanted = {key: arrays[f"{name}_{key}"] for key in ("lr", "lm_loss", "mcm_loss", "loss", "grad_norm")}
    assert [step["learning_rate"] for step in steps] == pytest.approx(wanted["lr"].tolist(), rel=1e-9)
    for part in ("loss", "lm_loss", "mcm_loss"):
        assert [step[part] for step in steps] == pytest.approx(wanted[part].tolist(), abs=1e-5), part
    assert [step["grad_norm"] for step in steps] == pytest.approx(wanted["grad_norm"].tolist(), rel=1e-4)
    final = our_tensors(load_file(folder / f"training_{name}_final.safetensors"), model.config.codebook_entries)
    state = model.state_dict()
    near = sum(int((state[key] - value).abs().le(1e-4).sum()) for key, value in final.items())
    assert near / sum(value.numel() for value in final.values()) > 0.99


def test_weight_decay_spares_what_the_published_loop_spares(tmp_path: Path) -> None:
    model = reference_model()
    plan = Optimisation(steps=1, batch_size=1, learning_rate=1e-3)
    trainer = ItemTrainer(
        count=None, published_decay=True, model=model, args=training_arguments(plan, tmp_path), train_dataset=[0]
    )
    decayed = set(trainer.get_decay_parameter_names(model))
    spared = {name for name, _ in model.named_parameters()} - decayed
    assert len(spared) == 59
    assert {name for name in decayed if "norm" in name} == {
        f"bart.{side}.layernorm_embedding.weight" for side in ("encoder", "decoder")
    }


def test_recipes_are_checked() -> None:
    table = {"epochs": 1, "optimisation": {"batch_size": 1, "learning_rate": 1.0}}
    assert CaptionTraining.model_validate(table).planned(7).steps == 7
