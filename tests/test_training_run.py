"""`enclap train`: epochs, resuming, many processes, validation, and one clear error for what does not fit."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from enclap.data.feature_store import FeatureStore
from enclap.errors import DataError, EnclapError, EnvironmentFault, ModelError, UsageError
from enclap.model import EnclapForConditionalGeneration
from enclap.training import run as run_module
from enclap.training import validation as validation_module
from enclap.training.dataset import CaptionItem, EpochItems, Perturbation
from enclap.training.run import prepare, require_same_run
from enclap.training.tokenizer import train_tokenizer
from enclap.training.trackers import require_trackers
from enclap.training.trainer import COMPLETE_FILE, ItemTrainer
from forked import run_in_two, start
from run_program import fresh_model, made_up_clips, recipe, run, run_and_save, run_of, write_features

CLIPS, VALIDATION = 19, 5  # 14 clips with two captions: seven steps of four an epoch


@pytest.fixture(scope="module")
def encoders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_model(tiny_model, tmp_path_factory.mktemp("encoders") / "model")


@pytest.fixture(scope="module")
def features(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    return write_features(folder, encoders, made_up_clips(CLIPS, VALIDATION)[:CLIPS])


@pytest.fixture(scope="module")
def alone(encoders: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process that nothing interrupts."""
    output = tmp_path_factory.mktemp("alone") / "run"
    save(run(output, encoders, features, {}).start.model, output)
    return output


def save(model: torch.nn.Module, output: Path) -> None:
    torch.save(model.state_dict(), output / "weights-0.pt")


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def curve(output: Path) -> list[tuple[float, ...]]:
    keys = ("step", "loss", "lm_loss", "mcm_loss", "grad_norm", "learning_rate")
    return [tuple(record[key] for key in keys) for record in records(output) if "loss" in record]


def assert_same_run(found: Path, wanted: Path, exact: bool) -> None:
    tolerance = 0.0 if exact else 1e-5
    for one, other in zip(curve(found), curve(wanted), strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    weights, expected = (torch.load(folder / "weights-0.pt", weights_only=True) for folder in (found, wanted))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=100 * tolerance, atol=tolerance, msg=name)


def test_every_caption_comes_once_an_epoch_and_the_rest_of_the_last_batch_counts_for_nothing() -> None:
    clips = made_up_clips(11, captions=2)
    items = epoch_items(clips, batch_size=8)
    assert (len(items), items.steps_per_epoch) == (22, 3)
    for epoch in range(2):
        drawn = [items(number) for number in range(24 * epoch, 24 * (epoch + 1))]
        real = [item for item in drawn if (item.labels >= 0).any()]
        assert len(real) == 22
        texts = sorted(TOKENIZER.decode(item.labels.tolist()) for item in real)
        assert texts == sorted(text for clip in clips for text in clip.captions)
        fillers = [item for item in drawn if not (item.labels >= 0).any()]
        assert len(fillers) == 2 and all((item.mcm_labels == -100).all() for item in fillers)


TOKENIZER: Tokenizer = train_tokenizer([text for clip in made_up_clips(64, captions=2) for text in clip.captions], 400)


def epoch_items(clips: Any, batch_size: int = 4, seed: int = 3, limit: int = 30, **options: Any) -> EpochItems:
    perturbation, sizes = Perturbation(mask_probability=0.5, mask_span=3), {"batch_size": batch_size, "seed": seed}
    return EpochItems(clips, range(len(clips)), TOKENIZER, 16, limit, perturbation, **sizes, **options)


def by_caption(items: EpochItems, epoch: int, batch_size: int) -> dict[str, CaptionItem]:
    size = items.steps_per_epoch * batch_size
    drawn = [items(number) for number in range(size * epoch, size * (epoch + 1))]
    return {TOKENIZER.decode(item.labels.tolist()): item for item in drawn if (item.labels >= 0).any()}


def test_masks_and_crops_differ_between_epochs_and_depend_on_seed_epoch_and_clip_alone() -> None:
    clips = [clip for clip in made_up_clips(24, frames=80, captions=1) if len(clip.features.codes) > 40][:6]
    first, again = by_caption(epoch_items(clips), 0, 4), by_caption(epoch_items(clips[::-1], 2), 0, 2)
    second, other = by_caption(epoch_items(clips), 1, 4), by_caption(epoch_items(clips, seed=4), 0, 4)
    assert len(first) == 6 and first.keys() == again.keys()
    for text, item in first.items():
        assert len(item.codes) == 30
        assert np.array_equal(item.codes, again[text].codes) and np.array_equal(item.mcm_labels, again[text].mcm_labels)
    for changed in (second, other):
        assert sum(np.array_equal(item.codes, changed[text].codes) for text, item in first.items()) == 0
    originals = {text: np.where(item.mcm_labels >= 0, item.mcm_labels, item.codes) for text, item in first.items()}
    moved = {text: np.where(item.mcm_labels >= 0, item.mcm_labels, item.codes) for text, item in second.items()}
    assert any(not np.array_equal(originals[text], moved[text]) for text in originals), "another crop"


def test_batches_hold_clips_of_like_length_or_any_and_the_items_of_an_epoch_are_the_same() -> None:
    clips = made_up_clips(128, frames=200)
    spreads, epochs = [], []
    for group_by_length in (True, False):
        items = epoch_items(clips, batch_size=8, limit=500, group_by_length=group_by_length)
        drawn = [items(number) for number in range(128)]
        lengths = np.asarray([len(item.codes) for item in drawn]).reshape(-1, 8)
        spreads.append(float(np.mean(np.ptp(lengths, axis=1))))
        epochs.append(
            sorted((item.labels.tobytes(), item.codes.tobytes(), item.mcm_labels.tobytes()) for item in drawn)
        )
        again = epoch_items(clips, batch_size=8, limit=500, group_by_length=group_by_length)  # as resumed, or elsewhere
        for number in (120, 7, 64):
            assert np.array_equal(again(number).codes, drawn[number].codes)
    assert spreads[0] < 25 and spreads[1] > 100  # of 200 frames
    assert epochs[0] == epochs[1]


@pytest.mark.timeout(300)
def test_neither_workers_nor_parts_change_a_run(alone: Path, encoders: Path, features: Path, tmp_path: Path) -> None:
    for name, changes in (("workers", {"optimisation.workers": 2}), ("parts", {"optimisation.accumulate": 2})):
        save(run(tmp_path / name, encoders, features, changes).start.model, tmp_path / name)
        assert_same_run(tmp_path / name, alone, exact=False)


@pytest.mark.timeout(300)
def test_two_processes_learn_and_measure_what_one_does(
    alone: Path, encoders: Path, features: Path, tmp_path: Path
) -> None:
    output = tmp_path / "two"
    run_in_two(run_and_save, output, encoders, features, {})
    assert_same_run(output, alone, exact=False)
    one, other = ([record for record in records(folder) if "eval_loss" in record] for folder in (output, alone))
    assert [record["step"] for record in one] == [record["step"] for record in other] == [4, 8, 12]
    for found, wanted in zip(one, other, strict=True):
        assert found["eval_loss"] == pytest.approx(wanted["eval_loss"], rel=1e-5)
        assert found["eval_exact"] == wanted["eval_exact"]
    weights = [torch.load(output / f"weights-{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", [2, 7])
def test_a_run_killed_at_any_step_ends_like_one_that_was_not(
    alone: Path, encoders: Path, features: Path, tmp_path: Path, step: int
) -> None:
    output = tmp_path / "run"
    process = start(run_and_save, output, encoders, features, {})
    while process.is_alive() and (
        not (output / "log.jsonl").exists() or f'"step": {step},' not in (output / "log.jsonl").read_text()
    ):
        time.sleep(0.005)
    assert process.is_alive(), "it ended too early"
    process.kill()
    process.join()
    save(run(output, encoders, features, {}).start.model, output)
    assert_same_run(output, alone, exact=True)
    evaluations = [[r["eval_loss"] for r in records(folder) if "eval_loss" in r][-1] for folder in (output, alone)]
    assert evaluations[0] == evaluations[1]


@pytest.mark.timeout(300)
def test_killed_while_saving_the_checkpoint_before_is_whole(
    alone: Path, encoders: Path, features: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = start(run_and_save, output, encoders, features, {}, 6)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    checkpoints = output / "checkpoints"
    assert (checkpoints / "checkpoint-3" / COMPLETE_FILE).exists() and (checkpoints / "checkpoint-6").is_dir()
    assert not (checkpoints / "checkpoint-6" / COMPLETE_FILE).exists()
    save(run(output, encoders, features, {}).start.model, output)
    assert_same_run(output, alone, exact=True)


@pytest.mark.timeout(300)
def test_after_a_full_disk_the_run_goes_on(
    alone: Path, encoders: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ItemTrainer._save_optimizer_and_scheduler

    def full(self: Any, folder: str) -> None:
        if self.state.global_step == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, folder)

    monkeypatch.setattr(ItemTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(EnvironmentFault, match=r"no room left on the disk; free some, then go on .*--resume"):
        run(tmp_path / "run", encoders, features, {})
    monkeypatch.undo()
    save(run(tmp_path / "run", encoders, features, {}).start.model, tmp_path / "run")
    assert_same_run(tmp_path / "run", alone, exact=True)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(
    encoders: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = EnclapForConditionalGeneration._add_losses, iter(range(1_000))

    def broken(self: Any, output: Any, *arguments: Any) -> None:
        original(self, output, *arguments)
        if self.training and next(calls) == 4:
            output.loss = output.loss * float("nan")

    monkeypatch.setattr(EnclapForConditionalGeneration, "_add_losses", broken)
    for logged in (1, 1_000):  # also when nothing is logged before the next checkpoint
        calls = iter(range(1_000))
        output = tmp_path / str(logged)
        with pytest.raises(EnclapError, match=r"not a number any more at step \d+; lower learning_rate"):
            run(output, encoders, features, {"optimisation.log_every": logged})
        whole = [path.name for path in (output / "checkpoints").glob("*") if (path / COMPLETE_FILE).exists()]
        assert whole == ["checkpoint-3"]


@pytest.mark.timeout(300)
def test_the_best_weights_are_kept_and_a_run_that_gains_nothing_ends(
    encoders: Path, features: Path, tmp_path: Path
) -> None:
    changes = {
        "epochs": 40,
        "validation.patience": 2,
        "optimisation.learning_rate": 2e-2,
        "optimisation.schedule": "cosine",
    }
    prepared = run(tmp_path / "run", encoders, features, changes)
    measured = [record for record in records(tmp_path / "run") if "eval_loss" in record]
    losses = [record["eval_loss"] for record in measured]
    assert len(losses) < 40 and losses.index(min(losses)) == len(losses) - 3, losses
    best = json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())
    assert (best["step"], best["eval_loss"]) == (measured[-3]["step"], min(losses))
    validation = run_module.validation_of(prepared)
    assert validation is not None
    assert validation(prepared.start.model, Accelerator(cpu=True))["loss"] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.timeout(300)
def test_the_best_weights_may_be_chosen_by_a_metric_of_all_sentences_together(
    encoders: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric is asked once a measurement, with every clip's sentence once, in order; the highest value wins."""
    scores = iter([0.1, 0.5, 0.5, 0.2])
    asked: list[tuple[int, list[tuple[str, ...]], str]] = []

    def score(predictions: list[str], references: list[tuple[str, ...]], metric: str) -> float:
        asked.append((len(predictions), references, metric))
        return next(scores)

    monkeypatch.setattr(validation_module, "caption_score", score)
    prepared = run(tmp_path / "run", encoders, features, {"epochs": 4, "validation.best": "cider"})
    validated = [prepared.store[row].captions for row in prepared.validation]
    assert asked == [(len(validated), validated, "cider_d")] * 4
    best = json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())
    assert best["eval_cider"] == 0.5 and best["step"] == 2 * prepared.items.steps_per_epoch


def test_trackers_are_silenced_before_they_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str | None, ...]] = []
    variables = ("MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING")

    def import_tracker() -> None:
        found.append(tuple(os.environ.get(name) for name in variables))

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "mlflow", import_tracker)
    for chosen in (None, "kept"):
        for name in variables:
            monkeypatch.setenv(name, "")  # so that it is as before after the test
            monkeypatch.delenv(name) if chosen is None else monkeypatch.setenv(name, chosen)
        require_trackers(["mlflow"])
    assert found == [("true", "false"), ("kept", "kept")]


def test_trackers_are_looked_for_before_anything_begins(encoders: Path, features: Path, tmp_path: Path) -> None:
    asked = run_of(tmp_path / "run", encoders, features, {"optimisation.trackers": ["tensorbord"]})
    with pytest.raises(UsageError, match=r"optimisation.trackers: tensorbord: no such tracker; there are .*wandb"):
        prepare(asked)
    asked = run_of(tmp_path / "run", encoders, features, {"optimisation.trackers": ["dvclive"]})
    with pytest.raises(EnvironmentFault, match=r"dvclive: .*installed"):  # of the known ones the least likely here
        prepare(asked)
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_same_folder_is_refused(alone: Path, encoders: Path, features: Path) -> None:
    with pytest.raises(UsageError, match="holds a training already; go on with --resume"):
        require_same_run(prepare(run_of(alone, encoders, features, {}, resume=False)))
    with pytest.raises(UsageError, match=r"was begun otherwise \(recipe.optimisation.seed: 5 -> 6\); choose another"):
        require_same_run(prepare(run_of(alone, encoders, features, {"optimisation.seed": 6})))
    require_same_run(prepare(run_of(alone, encoders, features, {"optimisation.workers": 3})))


def test_features_of_another_model_are_refused(encoders: Path, features: Path, tmp_path: Path) -> None:
    other = run_of(tmp_path / "a", encoders, features, {})
    with pytest.raises(DataError, match="made by other encoders than those of this model; name theirs with --model"):
        prepare(replace(other, encoders="mini"))
    with pytest.raises(DataError, match=r"mini: the features are of another model \(codebooks 8, features 4; entries"):
        prepare(replace(other, start="mini"))


def test_a_split_that_is_empty_is_an_error(encoders: Path, tmp_path: Path) -> None:
    clips = made_up_clips(4, validation=4)
    with pytest.raises(DataError, match="no clips to train on: the split 'train' is empty, there are validation"):
        prepare(run_of(tmp_path / "a", encoders, write_features(tmp_path / "only", encoders, clips), {}))
    folder = write_features(tmp_path / "train", encoders, made_up_clips(4))
    with pytest.raises(DataError, match=r"validation\.best=cider: the split 'validation' is empty"):
        prepare(run_of(tmp_path / "b", encoders, folder, {"validation.best": "cider"}))
    with pytest.raises(DataError, match="holds no feature shards"):
        FeatureStore(tmp_path)


def test_a_vocabulary_that_does_not_fit_is_an_error(encoders: Path, features: Path, tmp_path: Path) -> None:
    other = fresh_model(encoders, tmp_path / "other", vocab_size=100)
    with pytest.raises(ModelError, match=r"the vocabulary does not fit: .*the model has vectors for 100"):
        prepare(replace(run_of(tmp_path / "run", encoders, features, {}), start=str(other)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: Input should be greater than 0"),
        ({"optimisation.learning_rat": 1.0}, r"learning_rat: unknown key; did you mean learning_rate\?"),
        (
            {"train_sampling_strategy": "shuffle"},
            "train_sampling_strategy: Input should be 'group_by_length' or 'random'",
        ),
        ({"validation.best": "bleu"}, "validation.best: String should match pattern"),
        ({"perturbation.mask_spam": 1}, r"mask_spam: unknown key; did you mean mask_span\?"),
    ],
)
def test_a_bad_recipe_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        recipe(**settings)
    assert "\n" not in str(caught.value)
