"""Ways to run a training that others bring; each learns what one plain process does, within a stated tolerance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from enclap.errors import UsageError
from enclap.training.run import train
from enclap.training.trainer import COMPLETE_FILE
from run_program import run, run_of
from test_training_run import (  # noqa: F401 - alone, encoders and features are fixtures
    alone,
    assert_same_run,
    curve,
    encoders,
    features,
)

TESTS = Path(__file__).parent
TWO = "--nproc-per-node=2"
BFLOAT16_TOLERANCE = 1e-2  # of losses near 6; bfloat16 keeps eight bits


def command(output: Path, model: Path, data: Path, **settings: Any) -> list[str]:
    return [str(TESTS / "run_program.py"), str(output), str(model), str(data), json.dumps(settings)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def launch(*parts: str) -> None:
    """Run a launcher to its end."""
    done = subprocess.run(
        [sys.executable, "-m", *parts], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_accelerate_launch_learns_what_one_process_does(
    alone: Path,  # noqa: F811
    encoders: Path,  # noqa: F811
    features: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """With --cpu it would start a single process; --multi_gpu starts two, which find no GPU and meet over gloo."""
    settings = ("--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
    program = command(tmp_path / "run", encoders, features)
    launch("accelerate.commands.launch", *settings, "--main_process_port=0", *program)
    assert (tmp_path / "run" / "weights-1.pt").is_file()
    assert_same_run(tmp_path / "run", alone, exact=False)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_weights_in_shards_learn_what_whole_ones_do_also_when_resumed(
    alone: Path,  # noqa: F811
    encoders: Path,  # noqa: F811
    features: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = {"optimisation.fsdp": True}
    program = command(tmp_path / "run", encoders, features, **settings)
    sharded = [str(TESTS / "sharded_program.py"), *program[1:]]
    for _ in range(2):
        launch("torch.distributed.run", "--standalone", TWO, *sharded)
        assert_same_run(tmp_path / "run", alone, exact=False)
        weights = [torch.load(tmp_path / "run" / f"weights-{rank}.pt", weights_only=True) for rank in range(2)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        (tmp_path / "run" / "checkpoints" / "checkpoint-12" / COMPLETE_FILE).unlink()  # as if cut off there


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_bfloat16_learns_almost_the_same(
    alone: Path,  # noqa: F811
    encoders: Path,  # noqa: F811
    features: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    run(tmp_path / "run", encoders, features, {"optimisation.bfloat16": True})
    pairs = zip(curve(tmp_path / "run"), curve(alone), strict=True)
    differences = [abs(one[1] - other[1]) for one, other in pairs]  # of the losses
    assert 0 < max(differences) < BFLOAT16_TOLERANCE  # 0: the setting did nothing


@pytest.mark.parametrize(
    ("settings", "launcher", "message"),
    [
        ({"optimisation.fsdp": True}, "false", r"optimisation\.fsdp: Accelerate shards weights on GPUs alone"),
        ({}, "true", r"the launcher asks for FSDP, not the recipe; use --set optimisation\.fsdp=true"),
    ],
)
def test_what_cannot_be_sharded_is_told_in_one_line(
    encoders: Path,  # noqa: F811
    features: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    launcher: str,
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", launcher)
    with pytest.raises(UsageError, match=message):
        train(run_of(tmp_path / "run", encoders, features, settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_compiled_model_learns_the_same(
    alone: Path,  # noqa: F811
    encoders: Path,  # noqa: F811
    features: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Batches of many lengths: PyTorch compiles for the first, once more for all others, and never again."""
    from torch._dynamo.utils import counters
    from torch._inductor import config

    counters.clear()
    with config.patch({"cpp.simdlen": 256}):  # as wide as the rest of PyTorch is in tests; mixed widths gave NaN
        run(tmp_path / "run", encoders, features, {"optimisation.compile": True})
    for one, other in zip(curve(tmp_path / "run"), curve(alone), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert counters["frames"]["ok"] > 0, "nothing was compiled"
