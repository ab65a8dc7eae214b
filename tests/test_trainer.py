"""The training loop: any number of processes, parts and workers learn what one process learns; resuming; the log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from enclap.errors import UsageError
from enclap.training.recipe import Optimisation
from enclap.training.trainer import COMPLETE_FILE, train_model
from enclap.training.weights import AVERAGE_FILE
from forked import run_in_two
from training_program import BATCH, STEPS, train, train_all, train_in_two_phases

TOLERANCE = 1e-5


def records(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(output: Path) -> dict[str, list[float]]:
    """Each logged loss and part, step by step."""
    steps = [record for record in records(output) if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1)), "every step is logged once"
    return {name: [record[name] for record in steps] for name in ("loss", "lm_loss", "mcm_loss", "grad_norm")}


def assert_same_training(found: Path, wanted: Path) -> None:
    for name, values in losses(wanted).items():
        assert losses(found)[name] == pytest.approx(values, rel=TOLERANCE, abs=TOLERANCE), name
    weights, expected = (torch.load(folder / "weights-0.pt", weights_only=True) for folder in (found, wanted))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=TOLERANCE, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that takes each batch whole."""
    output = tmp_path_factory.mktemp("alone")
    train(output)
    return output


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, each batch in one part and in two."""
    output = tmp_path_factory.mktemp("two")
    run_in_two(train_all, output, {"whole": {}, "parts": {"accumulate": 2}})
    return output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["whole", "parts"])
def test_two_processes_learn_what_one_learns(two: Path, alone: Path, name: str) -> None:
    assert_same_training(two / name, alone)
    numbers = [json.loads((two / name / f"process-{rank}.json").read_text())["numbers"] for rank in range(2)]
    assert len(numbers[0]) == len(numbers[1]) == STEPS * BATCH // 2
    for step in range(STEPS):
        half = slice(step * BATCH // 2, (step + 1) * BATCH // 2)
        assert sorted(numbers[0][half] + numbers[1][half]) == list(range(step * BATCH, (step + 1) * BATCH))


@pytest.mark.timeout(300)
def test_log_average_and_checkpoints_are_written_once_and_both_processes_end_with_the_same_model(two: Path) -> None:
    weights = [torch.load(two / "whole" / f"weights-{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(records(two / "whole")) == STEPS + 1  # and the summary
    checkpoints = sorted((two / "whole" / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["checkpoint-6", "checkpoint-9"]
    for path in checkpoints:
        assert (path / AVERAGE_FILE).exists() and (path / COMPLETE_FILE).exists()


@pytest.mark.timeout(300)
def test_processes_draw_their_own_dropout(two: Path) -> None:
    seeds = {json.loads((two / "whole" / f"process-{rank}.json").read_text())["seed"] for rank in range(2)}
    assert len(seeds) == 2


@pytest.mark.timeout(300)
def test_what_two_processes_began_one_can_end(two: Path, alone: Path, tmp_path: Path) -> None:
    output = tmp_path / "resumed"
    (two / "parts").rename(output)
    (output / "checkpoints" / "checkpoint-9" / COMPLETE_FILE).unlink()  # as if cut off while that was written
    train(output)
    assert_same_training(output, alone)
    output.rename(two / "parts")


@pytest.mark.timeout(300)
def test_a_captioner_trained_by_two_processes_is_the_folder_that_one_writes(two: Path, tmp_path: Path) -> None:
    folder = train_in_two_phases(tmp_path)
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (two / "phases" / "model" / name).read_bytes() == (folder / name).read_bytes()
    found, wanted = (load_file(path / "model.safetensors") for path in (two / "phases" / "model", folder))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=1e-5)  # float16 may round either way
        assert torch.equal(value, value.half().float())


@pytest.mark.parametrize("settings", [{"accumulate": 4}, {"workers": 2}, {"accumulate": 2, "workers": 1}])
def test_neither_parts_nor_workers_change_what_is_learned(
    alone: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    train(tmp_path, **settings)
    assert_same_training(tmp_path, alone)


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size 8 cannot be divided equally among 1 processes with 3 parts each"):
        train(tmp_path, accumulate=3)


def test_a_log_that_runs_ahead_of_the_checkpoint_is_cut_back(alone: Path, tmp_path: Path) -> None:
    train(tmp_path)
    whole = losses(tmp_path)
    for name in ("checkpoint-6", "checkpoint-9"):
        (tmp_path / "checkpoints" / name / COMPLETE_FILE).unlink()
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 10, "lo')
    train(tmp_path)
    assert losses(tmp_path) == whole and len(records(tmp_path)) == STEPS + 1


def test_checkpoints_that_were_cut_off_are_in_no_ones_way(alone: Path, tmp_path: Path) -> None:
    """The trainer keeps the two newest; a remnant that looks newer would have the one just written removed."""
    for number in (100, 200):
        remnant = tmp_path / "checkpoints" / f"checkpoint-{number}"
        remnant.mkdir(parents=True)
        os.utime(remnant, (2e9, 2e9))
    train(tmp_path)
    assert_same_training(tmp_path, alone)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-6", "checkpoint-9"]


class Mean(nn.Module):
    """A model whose loss is a mean over items, and whose forward takes any keywords, as many of transformers' do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)

    def forward(self, x: Tensor, **keywords: Any) -> dict[str, Tensor]:
        error = (self.layer(x) - 2.0 * x).square().mean()
        return {"loss": error, "error": error.detach()}


def test_a_mean_over_items_is_divided_by_the_parts_whatever_forward_accepts(tmp_path: Path) -> None:
    found = []
    for parts in (1, 4):
        optimisation = Optimisation(
            steps=STEPS, batch_size=8, learning_rate=0.05, warmup_steps=1, log_every=1, accumulate=parts
        )
        output = tmp_path / str(parts)
        train_model(
            Mean(),
            float,
            lambda items: {"x": torch.tensor(items)[:, None] / 50, "labels": torch.ones(2)},
            optimisation,
            output,
        )
        found.append([(record["loss"], record["error"]) for record in records(output) if "loss" in record])
    for whole, divided in zip(*found, strict=True):
        assert divided == pytest.approx(whole, rel=TOLERANCE) and whole[0] == pytest.approx(whole[1])


class Waits(TorchDispatchMode):  # type: ignore[misc]
    """Counts what a GPU would be waited for: numbers that Python reads, and places that are looked for."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(function) in ("aten._local_scalar_dense.default", "aten.nonzero.default")
        return function(*args, **(kwargs or {}))


def test_between_records_a_step_waits_for_three_masks_and_hidden_codes_alone(tmp_path: Path) -> None:
    counts = []
    for steps in (2, 7):
        with Waits() as waits:
            train(tmp_path / str(steps), steps=steps, log_every=100, save_every=100)
        counts.append(waits.count)
    assert counts[1] - counts[0] == 5 * (3 + 1)
