"""All stages of a tiny mini: losses as before, resumed runs that repeat nothing, and a folder that captions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enclap import Captioner
from enclap.data.attribution import FILE_NAME as ATTRIBUTION
from enclap.decoding.calibration import FILE_NAME as CALIBRATION
from enclap.decoding.calibration import Calibration
from enclap.errors import UsageError
from enclap.evaluation import sound_pairs
from enclap.hub.integrity import check_folder
from enclap.hub.resolve import find_model
from enclap.training.mini import stages
from enclap.training.mini.calibrate import measure_calibration
from enclap.training.mini.context import MiniRun
from enclap.training.mini.run import install
from enclap.training.stage import run_stage
from tiny_mini import logged_losses, tiny_run, train_in_this_process

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mini" / "losses.json").read_text(encoding="utf-8"))
STEPS = 6


def assert_golden(output: Path) -> None:
    """Sums differ with the number of cores: in the last bits, after a rounding to float16 in the fourth digit."""
    found = logged_losses(output)
    assert found.keys() == GOLDEN["losses"].keys()
    for phase, losses in GOLDEN["losses"].items():
        tolerance = 1e-5 if phase.startswith(("codec", "distillation")) else 1e-3
        assert found[phase] == pytest.approx(losses, rel=tolerance), phase


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> MiniRun:
    """A run through all stages."""
    run = tiny_run(tmp_path_factory.mktemp("mini"), STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sound_pairs, "PAIRS", 12)
        train_in_this_process(run)
    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_losses_of_every_stage_are_those_of_before(trained: MiniRun) -> None:
    assert_golden(trained.output)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_finished_model_captions_and_is_calibrated(trained: MiniRun) -> None:
    captioner = Captioner.from_pretrained(trained.model)
    result = captioner.caption(trained.recordings / "rain0.wav")
    assert len(result.captions) == 1 and 0.0 <= (result.captions[0].score or -1.0) <= 1.0
    calibration = Calibration.read(trained.model)
    assert calibration is not None and calibration.phrase == 3
    names = {path.name for path in (trained.output / "scenes").iterdir()}
    assert names == {"seen", "unseen", "filled"} == {path.name for path in (trained.output / "features").iterdir()}
    rows = (trained.model / ATTRIBUTION).read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(trained.used) and len(trained.used) == len(trained.seen) + len(trained.held_out)
    assert not set(trained.unseen) - set(trained.held_out)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_finished_run_repeats_nothing(trained: MiniRun) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.output.rglob("*") if path.is_file()}
    train_in_this_process(replace(trained))
    assert {path: path.stat().st_mtime_ns for path in trained.output.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_finished_model_takes_the_place_of_the_bundled_one_and_its_card_stays(
    trained: MiniRun, tmp_path: Path
) -> None:
    target = tmp_path / "bundled"
    target.mkdir()
    for name in ("README.md", "reliability.svg", "old.onnx"):
        (target / name).write_text(f"this {name}", encoding="utf-8")
    install(trained, target)
    check_folder(target, hashes=True)
    assert (target / CALIBRATION).read_bytes() == (trained.model / CALIBRATION).read_bytes()
    assert (target / "reliability.svg").read_text(encoding="utf-8") == "this reliability.svg"
    assert (target / "README.md").read_text(encoding="utf-8") == "this README.md" and not (target / "old.onnx").exists()
    with pytest.raises(UsageError, match="not finished"):
        install(replace(trained, output=tmp_path / "nothing"), target)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stage_that_was_cut_off_ends_as_if_it_had_not_been(
    trained: MiniRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.output, tmp_path / "out")
    for name in ("caption", "assemble", "memory", "calibrate"):
        (tmp_path / "out" / "done" / name).unlink()
    for name in ("features", "training", "caption", "model"):
        shutil.rmtree(tmp_path / "out" / name)
    run = replace(trained, output=tmp_path / "out")
    whole = stages.embed_scenes
    calls: list[int] = []

    def cut_off(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages, "embed_scenes", cut_off)
        run_stage(stages.STAGES, "caption", run, run.markers)
    assert not run.markers.is_done("caption")
    train_in_this_process(run, last="caption")
    assert_golden(run.output)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (run.output / "caption" / name).read_bytes() == (trained.output / "caption" / name).read_bytes()


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_make_mini_killed_in_the_middle_goes_on_and_learns_the_same(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, STEPS)
    paths = [f"--recordings={run.recordings}", f"--output={run.output}", f"--teachers={run.teachers}"]
    paths.append(f"--recipes={run.recipes}")
    command = [sys.executable, "-m", "enclap.training.mini.run", *paths]
    process = subprocess.Popen(command, start_new_session=True)
    wait_for(lambda: (run.output / "done" / "codec").exists(), process)
    os.killpg(process.pid, 9)
    process.wait()
    assert not run.model.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert_golden(run.output)
    assert Calibration.read(run.model) is not None
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "begins" not in again.stderr
    early = [*command[:-1], "--recipes=nowhere", f"--output={tmp_path / 'new'}", "--stage=scenes"]
    refused = subprocess.run(early, capture_output=True, text=True, check=False)
    assert (
        refused.returncode == 2
        and "error: scenes: needs codec, opinions, not done yet; run that first" in refused.stderr
    )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return when it has happened; the process must not end before."""
    while not happened():
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the process ended with exit code {process.returncode}")


@pytest.mark.shared
@pytest.mark.timeout(1_200)
def test_the_last_stage_gives_the_calibration_that_ships(shared: Path) -> None:
    """To the last bit, but for the curve: float32 scores differ between processors in the seventh digit."""
    shipped = Calibration.read(find_model("mini"))
    assert shipped is not None
    found = measure_calibration(find_model("mini"), shared / "data" / "sounds")
    curve = {name: getattr(shipped, name) for name in ("slope", "nearness", "several", "crowd", "offset")}
    assert found.model_copy(update=curve) == shipped
    assert [getattr(found, name) for name in curve] == pytest.approx(list(curve.values()), rel=1e-5)
