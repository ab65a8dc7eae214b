"""Experiments: their grids, runs that rows share, a tiny one from end to end, and the arithmetic of their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli import Run
from enclap.data.feature_store import Clip, FeatureStore, StoreHeader, write_shard
from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError
from enclap.experiments import harness
from enclap.experiments.grids import FULL, GRIDS, Grid, Row, Training, find_grid
from enclap.experiments.harness import decoding_key, is_done, make_runs, planned, read_result, runs_of
from enclap.experiments.page import conclusions, page_lines
from enclap.experiments.table import RowResult, event_counts, f1_of_sums, grid_results, paired_difference
from enclap.experiments.trial import Budget, ClipView, Laboratory, masks_of
from enclap.training.mini.context import MiniRun
from enclap.types import Features
from tiny import CLAP_DIM, CODEBOOKS, ENTRIES, save_clap, save_codec
from tiny_mini import SOUNDS, tiny_run, train_in_this_process, write_recipes

BUDGET = Budget(steps=4, batch=6, scenes=12)
pytestmark = pytest.mark.timeout(600)
FRAME_RATE = 25.0
SMALL = ["--steps", "4", "--batch", "6", "--scenes", "12"]


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """No model: experiments train their own."""
    return Path("no-model")


def made_store(folder: Path, count: int, seed: int) -> FeatureStore:
    """A store of clips of random codes and embeddings, each with a label and a caption that names it."""
    generator = np.random.default_rng(seed)
    header = StoreHeader(CODEBOOKS, ENTRIES, CLAP_DIM, FRAME_RATE, "made")
    clips = []
    for number in range(count):
        label = list(SOUNDS)[number % len(SOUNDS)]
        embedding = generator.normal(size=CLAP_DIM).astype(np.float32)
        codes = generator.integers(ENTRIES, size=(5 + number % 3, CODEBOOKS))
        features = Features(codes, embedding / np.linalg.norm(embedding))
        clips.append(Clip(f"{folder.name}/{number}", features, (f"The sound of a {label}.",), (label,), 1.0))
    folder.mkdir(parents=True)
    write_shard(folder / "00000.parquet", header, clips)
    return FeatureStore(folder)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> MiniRun:
    """What experiments read of a finished training of mini, made up."""
    folder = tmp_path_factory.mktemp("mini")
    recipes = write_recipes(folder / "recipes", 2, folder / "teachers")
    run = MiniRun(folder / "sounds", folder / "out", recipes, folder / "teachers")
    for number, name in enumerate(("seen", "unseen")):
        made_store(run.output / "features" / name, 20, number)
    save_codec(run.output / "codec")
    save_clap(run.output / "clap", "clap")
    run.markers.mark("caption")
    return run


@pytest.fixture
def scenes(mini: MiniRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes to caption that are not composed."""
    store = made_store(tmp_path / "scenes", BUDGET.scenes, 9)
    monkeypatch.setattr(Laboratory, "scenes", store)


def places(run: MiniRun) -> list[str]:
    return ["--mini", str(run.output), "--recordings", str(run.recordings), "--recipes", str(run.recipes)]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.name))
def test_a_grid_asks_something_and_its_first_row_can_be_run(grid: Grid) -> None:
    assert grid is find_grid(grid.name) and grid.question.count("?") == 1 and not grid.rows[0].missing
    names = [row.name for row in grid.rows]
    assert len(set(names)) == len(names)
    for row in grid.runnable:
        DecodingOptions(**row.decoding)
    keys = {(row.training.key, decoding_key(row)) for row in grid.runnable}
    assert len(keys) == len(grid.runnable), "two rows of one grid are the same run"


def test_rows_of_the_same_training_share_its_runs() -> None:
    runs = runs_of(find_grid("decoding"), 2)
    assert [run.seed for run in runs] == [1, 2] and all(len(run.rows) == 7 for run in runs)
    folders = {grid.name: {run.folder(Path(), BUDGET) for run in runs_of(grid, 1)} for grid in GRIDS}
    shared = runs_of(Grid("x", "x", "?", (FULL,)), 1)[0].folder(Path(), BUDGET)
    assert all(shared in found for found in folders.values()), "the full model is one run in all of them"
    assert len(runs_of(find_grid("mcm"))) == 5 * 5


def test_the_plan_names_every_run_and_what_is_left(enclap: Run, tmp_path: Path) -> None:
    done = enclap("experiment", "components", "--dry-run", "--seeds", "2")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1].startswith("8 of 8 runs are left: 3200 steps of 48 items")
    assert "time unknown before a first run" in lines[-1]
    assert any(line.startswith("cannot be run yet: log-mel alone: ") for line in lines)
    assert list(tmp_path.iterdir()) == []
    wrong = enclap("experiment", "nothing")
    assert wrong.returncode == 2 and "there are components, mcm, codes, pretraining, cost, decoding" in wrong.stderr
    unfinished = enclap("experiment", "mcm", "--mini", "none")
    assert unfinished.returncode == 2 and "no finished training of mini" in unfinished.stderr


def test_a_view_shows_what_a_training_may_see() -> None:
    features = Features(np.arange(12).reshape(3, 4), np.ones(2, np.float32))
    clip = Clip("a", features, ("a dog",), ("dog barking",), 1.0)
    seen = {training: ClipView([clip], training)[0].features for training in (Training(), Training(codebooks=2))}
    assert [item.codes.shape for item in seen.values()] == [(3, 4), (3, 2)]
    assert ClipView([clip], Training(use_codes=False))[0].features.codes.shape == (0, 4)
    embedding = ClipView([clip] * 2, Training(has_embedding=False))[:2][1].features.embedding
    assert embedding is not None and not embedding.any() and features.embedding is not None and features.embedding.any()
    assert masks_of(Training(mcm=0.0)) == {"mask_span": 10, "mask_probability": 0.0}


@pytest.mark.usefixtures("scenes")
def test_an_experiment_runs_once_and_its_page_says_what_is_shown(enclap: Run, mini: MiniRun, tmp_path: Path) -> None:
    arguments = [*places(mini), *SMALL, "--seeds", "2", "--output", "out", "--pages", "pages"]
    done = enclap("experiment", "cost", *arguments)
    assert done.returncode == 0, done.stderr
    results = sorted((tmp_path / "out" / "runs").glob("*/*/result.json"))
    assert len(results) == 4 * 2
    before = {path: path.read_bytes() for path in results}
    page = (tmp_path / "pages" / "cost.md").read_text()
    for row in find_grid("cost").rows:
        assert f"| {row.name} | 2 | 0." in page and row.name in done.stdout
    assert "](cost.svg)" in page and (tmp_path / "pages" / "cost.svg").is_file() and "## What this supports" in page
    again = enclap("experiment", "cost", *arguments)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert {path: path.read_bytes() for path in results} == before
    plan = enclap("experiment", "components", *arguments, "--dry-run").stdout
    assert "2 of 8 runs are left" in plan and "minutes" in plan
    table = {key: read_result(path.parent) for key, path in enumerate(results)}
    assert all(result is not None and len(result["labels"]) == BUDGET.scenes for result in table.values())
    tables = [result for result in table.values() if result is not None]
    without = [result for result in tables if not result["training"]["use_codes"]]
    assert all(result["masked_accuracy"] is None for result in without) and len(without) == 2
    assert without[0]["parameters"] < min(item["parameters"] for item in tables if item not in without)


@pytest.mark.slow
def test_scenes_are_composed_of_recordings_that_nobody_trained_on(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, 2)
    train_in_this_process(run, last="caption")
    laboratory = Laboratory(run, tmp_path / "experiments", BUDGET)
    scenes = laboratory.scenes
    assert len(scenes) == BUDGET.scenes and scenes.header == laboratory.clips.header
    make_runs(runs_of(Grid("tiny", "Tiny", "Does it run?", (FULL,), seeds=1)), laboratory, resume=False)


@pytest.mark.usefixtures("scenes")
def test_rows_of_one_training_are_captioned_from_it(mini: MiniRun, tmp_path: Path) -> None:
    rows = (
        Row("beam"),
        Row("greedy", decoding={"beams": 1}),
        Row("clap", decoding={"sample": True, "candidates": 3, "rerank": "clap"}),
    )
    grid = Grid("tiny", "Tiny", "Does it run?", rows, seeds=1)
    laboratory = Laboratory(mini, tmp_path, BUDGET)
    make_runs(runs_of(grid), laboratory, resume=False)
    [run] = runs_of(grid)
    folder = run.folder(tmp_path, BUDGET)
    assert is_done(run, folder) and [item.name for item in grid_results(grid, [run], tmp_path, BUDGET)] == [
        "beam",
        "greedy",
        "clap",
    ]
    assert list(planned(grid, [run], tmp_path, BUDGET))[-1].startswith("0 of 1 runs are left")


class FakeLaboratory:
    """Notes what a training finds in its folder, and has none."""

    scenes: tuple[Clip, ...] = ()

    def __init__(self) -> None:
        self.found: list[str] = []

    def train(self, training: Training, seed: int, folder: Path) -> float:
        self.found = [path.name for path in folder.iterdir()] if folder.exists() else []
        folder.mkdir(parents=True, exist_ok=True)
        return 1.0

    def parameters(self, training: Training, folder: Path) -> int:
        return 1

    def masked_accuracy(self, training: Training, folder: Path) -> None:
        return None


@pytest.mark.parametrize("resume", [True, False])
def test_a_training_that_was_cut_off_goes_on_or_begins_anew(tmp_path: Path, resume: bool) -> None:
    [run] = runs_of(Grid("tiny", "Tiny", "Does it run?", (Row("full"),), seeds=1))
    folder = run.folder(tmp_path, BUDGET)
    (folder / "training").mkdir(parents=True)
    laboratory = FakeLaboratory()
    harness.train(run, folder, laboratory, resume)  # type: ignore[arg-type]
    assert laboratory.found == (["training"] if resume else [])
    assert read_result(folder) is not None
    (folder / "result.json").write_text("{}")
    with pytest.raises(DataError, match="not a run's result; remove the folder"):
        read_result(folder)


def test_events_are_families_named_rightly_wrongly_and_missed() -> None:
    counts = event_counts(["A dog barks.", "Rain falls.", "Nothing."], [["dog barking"], ["dog barking"], ["rain"]])
    np.testing.assert_array_equal(counts[:, [0, 2]], [[1, 0], [0, 1], [0, 1]])
    assert counts[1, 1] >= 1 and f1_of_sums(counts[:1].sum(axis=0)) > f1_of_sums(counts.sum(axis=0))
    assert f1_of_sums(np.zeros(3)) == 0.0


def made_counts(level: float, seeds: int = 3, clips: int = 80) -> np.ndarray:
    right = np.random.default_rng(int(level * 100)).random((seeds, clips)) < level
    return np.stack([right, ~right, ~right], axis=-1).astype(np.float64)


def test_a_difference_is_zero_for_a_row_beside_itself_and_shown_for_a_better_one() -> None:
    first = made_counts(0.4)
    assert paired_difference(first, first, 100) == (0.0, 0.0, 0.0)
    value, low, high = paired_difference(made_counts(0.8), first, 500)
    assert low < value < high and low > 0.2
    assert paired_difference(made_counts(0.8), first, 500) == (value, low, high)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "is better than"),
        (-0.3, -0.1, "is worse than"),
        (-0.1, 0.1, "is not shown"),
        (0.0, 0.1, "is not shown"),
    ],
)
def test_an_effect_inside_its_interval_is_called_not_shown(low: float, high: float, said: str) -> None:
    second = RowResult("second", 3, 0.5, 0.0, (low + high) / 2, low, high, None, 1, 1.0, 1.0)
    results = [RowResult("first", 3, 0.5, 0.0, None, None, None, None, 1, 1.0, 1.0), second]
    assert said in conclusions(results)[0]
    lines = page_lines(find_grid("components"), results, BUDGET, False)
    assert any("log-mel alone: " in line for line in lines) and any(
        "its runs are not finished" in line for line in lines
    )
    assert conclusions(results[:1]) == ["Nothing yet: fewer than two rows are finished."]
