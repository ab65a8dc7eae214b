"""Experiments: grids, runs that rows share, tiny ones of every kind from end to end, and the arithmetic of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from cli import Run
from enclap.data.feature_store import Clip, StoreHeader, fingerprint, write_shard
from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError, UsageError
from enclap.experiments import cost, harness
from enclap.experiments.encoders import encode_with, recordings_of, refit
from enclap.experiments.full_size import NO_AUDIO, FullSizeLaboratory, families_heard, full_size_laboratory
from enclap.experiments.grids import DISTILLED, FULL, GRIDS, UNTRAINED, Grid, Row, Training, find_grid
from enclap.experiments.harness import decoding_key, is_done, make_runs, planned, read_result, runs_of
from enclap.experiments.laboratory import MiniLaboratory, mini_laboratory
from enclap.experiments.page import not_run
from enclap.experiments.scenes import early_maps, embed_maps, late_map
from enclap.experiments.table import (
    grid_results,
    results_of,
)
from enclap.experiments.trial import Sentences, View, compose_sentences
from enclap.experiments.tuning import Tail, embed_tail
from enclap.types import Features
from test_training_start import bart_folder
from tiny import tiny_model_folder
from tiny_mini import SOUNDS, write_recordings

pytestmark = pytest.mark.timeout(600)
STEPS = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "save_every": 2, "log_every": 1}
SIZES: dict[str, Any] = {
    "labels": list(SOUNDS)[:6],
    "seconds": 1.28,
    "scenes": 12,
    "unseen_weight": 2.0,
    "evaluation_scenes": 8,
    "order": 0.3,
    "together": 0.2,
    "captions": 2,
    "vocabulary": 320,
    "sentences": 6,
    "sentence_steps": 2,
    "model": {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 64,
    },
    "optimisation": STEPS,
    "tower": {"channels": [2, 4, 4], "views": 6, "optimisation": STEPS},
    "codec": {"segment_seconds": 0.64, "segments": 6, "optimisation": STEPS},
}
OTHERS = (
    Training(acoustic="none"),
    Training(acoustic="log_mel", use_clap=False),
    Training(acoustic="feature_map", use_clap=False),
    Training(acoustic="log_mel"),
    Training(acoustic="none", has_embedding=False),
    Training(sentences=True),
    Training(tune_clap=True),
    Training(codebooks=6),
    Training(codebooks=2, entries=8),
    Training(clap="30 %", codec="10 %"),
    Training(clap=UNTRAINED, codec=UNTRAINED),
    Training(clap=DISTILLED, codec="100 %"),
)
"""One training of every kind that the grids ask for."""


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """No model of captions: experiments train their own."""
    return Path("no-model")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings, a model whose encoders hear, and the file of sizes."""
    folder = tmp_path_factory.mktemp("experiments")
    sizes = folder / "sizes.yaml"
    sizes.write_text(yaml.safe_dump(SIZES))
    model = tiny_model_folder(folder / "model", clap="enclap_conv_clap")
    return {"recordings": write_recordings(folder / "sounds"), "model": model, "sizes": sizes, "output": folder / "out"}


@pytest.fixture(scope="module")
def laboratory(places: dict[str, Path]) -> MiniLaboratory:
    torch.set_num_threads(1)
    return mini_laboratory(
        places["recordings"], str(places["model"]), places["sizes"], (), places["output"], device="cpu"
    )


def options(places: dict[str, Path]) -> list[str | Path]:
    names = ("recordings", "model", "sizes", "output")
    return [item for name in names for item in (f"--{name}", places[name])]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.name))
def test_a_grid_asks_something_and_its_rows_differ(grid: Grid, laboratory: MiniLaboratory) -> None:
    assert grid is find_grid(grid.name) and grid.question.count("?") == 1
    names = [row.name for row in grid.rows]
    assert len(set(names)) == len(names) and all(verdict.row in names[1:] for verdict in grid.verdicts)
    assert not any(laboratory.obstacle(row.training) for row in grid.rows), "all rows can be run at mini's size"
    keys = {(row.training.key, decoding_key(row)) for row in grid.rows}
    assert len(keys) == len(grid.rows), "two rows of one grid are the same run"


def test_every_kind_of_training_is_tried_here() -> None:
    def kind(training: Training) -> tuple[object, ...]:
        given = training.acoustic, training.use_clap, training.has_embedding, training.sentences, training.tune_clap
        return *given, training.clap == DISTILLED, training.clap == UNTRAINED, (training.entries or 0) > 0

    asked = {kind(row.training) for grid in GRIDS for row in grid.rows}
    assert asked <= {kind(training) for training in (*OTHERS, Training(), Training(use_clap=False))} | {
        kind(Training(clap="100 %")),
        kind(Training(clap=UNTRAINED)),
    }


def test_rows_of_the_same_training_share_its_runs(laboratory: MiniLaboratory) -> None:
    runs = runs_of(find_grid("decoding"), laboratory, 2)
    assert [run.seed for run in runs] == [1, 2] and all(len(run.rows) == 7 for run in runs)
    shared = runs_of(Grid("x", "x", "?", (FULL,)), laboratory, 1)[0].folder(laboratory)
    for grid in GRIDS:
        if grid.name != "pretraining":
            assert shared in {run.folder(laboratory) for run in runs_of(grid, laboratory, 1)}, "the full model is one"
    assert len(runs_of(find_grid("mcm"), laboratory)) == 5 * 5
    other = mini_laboratory(laboratory._recordings, "m", Path(laboratory.output).parent / "sizes.yaml", (), Path(), "")
    assert other.key(Training()) != laboratory.key(Training()), "runs of another model are others"


def test_the_plan_names_every_run_and_what_is_left(enclap: Run, places: dict[str, Path], tmp_path: Path) -> None:
    done = enclap("experiment", "components", "--dry-run", "--seeds", "2", *options(places))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[-1] == "18 of 18 runs are left, time unknown before a first run"
    assert not any(line.startswith("cannot be run") for line in lines)
    assert list(tmp_path.iterdir()) == []
    wrong = enclap("experiment", "nothing", *options(places))
    assert wrong.returncode == 2 and "there are components, mcm, codes, pretraining, decoding, cost" in wrong.stderr
    costs = enclap("experiment", "cost", "--dry-run", *options(places))
    assert costs.returncode == 0 and "log-mel alone; " in costs.stdout and "EnCLAP large" in costs.stdout
    alone = enclap("experiment", "mcm", "--recipe", "clotho-base")
    assert alone.returncode == 2 and "--recipe and --data belong together" in alone.stderr
    missing = enclap("experiment", "mcm", "--device", "cuda", *options(places))
    assert missing.returncode == 3 or torch.cuda.is_available()


def test_a_view_shows_what_a_training_may_see(laboratory: MiniLaboratory) -> None:
    scenes = laboratory.source.training
    frames = scenes.codes.shape[1]
    seen = {training: View(scenes, training).features(3) for training in OTHERS[:5]}
    assert [item.codes.shape[0] for item in seen.values()] == [0] * 5
    log_mel, feature_map = seen[OTHERS[1]].log_mel, seen[OTHERS[2]].log_mel
    assert log_mel is not None and log_mel.shape == (frames, laboratory.encoders.front_end.bands)
    assert feature_map is not None and len(feature_map) == scenes.feature_map.shape[1]
    embedding = View(scenes, OTHERS[4])[:2][1].features.embedding
    assert embedding is not None and not embedding.any()
    full = View(scenes, Training(codebooks=2)).features(0)
    assert full.codes.shape == (frames, 2) and full.embedding is not None and full.embedding.any()


def test_scenes_are_heard_as_the_encoders_hear_them(laboratory: MiniLaboratory) -> None:
    scenes, given = laboratory.source.evaluation, laboratory.encoders
    samples = scenes.samples[:2].astype(np.float32) / 32767
    agreement = (given.codec.encode_batch(samples) == scenes.codes[:2]).mean()
    assert agreement > 0.95, "but for the rounding of samples"
    mel = torch.from_numpy(scenes.mel[:2].astype(np.float32))
    with torch.inference_mode():
        embeddings = given.clap.encoder.embed(mel[:, None]).numpy()
        maps = early_maps(given.tower, mel)
        torch.testing.assert_close(late_map(given.tower, maps), given.tower.hidden(mel))
        torch.testing.assert_close(embed_maps(given.tower, late_map(given.tower, maps)), torch.from_numpy(embeddings))
    np.testing.assert_allclose(embeddings, scenes.embedding[:2], atol=2e-2)  # spectrograms are kept in float16
    np.testing.assert_allclose(embed_tail(Tail(given.tower), scenes.maps[:2]), scenes.embedding[:2], atol=2e-2)
    known = {laboratory.source.corpus.recordings[number].recording for number in laboratory.source.numbers("seen")}
    assert all(known.isdisjoint(text.originals) for text in scenes.texts) and all(t.families for t in scenes.texts)


def test_other_codebooks_go_on_where_the_given_ones_end(laboratory: MiniLaboratory) -> None:
    scenes, given = laboratory.source.evaluation, laboratory.encoders.codec
    more = refit(laboratory.source, scenes, given.codebooks + 2, given.entries)
    assert (more[..., : given.codebooks] == scenes.codes).mean() > 0.99
    assert more.shape[2] == given.codebooks + 2 and more.min() >= 0 and more.max() < given.entries
    coarse = refit(laboratory.source, scenes, 3, 8)
    assert coarse.shape[2] == 3 and coarse.max() < 8
    np.testing.assert_array_equal(refit(laboratory.source, scenes, 3, 8), coarse)
    assert (encode_with(given.model, scenes) == scenes.codes).mean() > 0.95


def test_a_smaller_share_of_the_recordings_is_part_of_a_larger(laboratory: MiniLaboratory) -> None:
    parts = [set(recordings_of(laboratory.source, share)) for share in (0.1, 0.3, 1.0)]
    assert parts[0] <= parts[1] <= parts[2] and 0 < len(parts[0]) < len(parts[2])
    assert parts[2] == set(laboratory.source.numbers("seen"))


def test_sentences_without_sounds_are_of_the_grammar_and_silent() -> None:
    texts = compose_sentences(5)
    assert texts == compose_sentences(5) and all(text.endswith(".") for text in texts)
    features = Features(np.ones((3, 2), dtype=np.int64), np.ones(4, np.float32), np.ones((5, 2), np.float32))
    clip = Sentences(texts, features)[1]
    assert len(clip.features.codes) == 0 and clip.captions == (texts[1],)
    assert not np.any(clip.features.embedding) and not np.any(clip.features.log_mel)


@pytest.mark.slow
@pytest.mark.parametrize("training", OTHERS, ids=lambda training: training.key)
def test_every_kind_of_training_runs_from_end_to_end(laboratory: MiniLaboratory, training: Training) -> None:
    grid = Grid("tiny", "Tiny", "Does it run?", (Row("row", training),), seeds=1)
    [run] = make_runs(runs_of(grid, laboratory), laboratory, resume=False)
    result = read_result(run.folder(laboratory))
    assert result is not None and is_done(run, run.folder(laboratory))
    [captions] = result["captions"].values()
    assert len(captions["texts"]) == SIZES["evaluation_scenes"] and result["parameters"] > 0
    assert (result["masked_accuracy"] is None) == (training.acoustic != "codes")
    assert ("recall" in result) == training.tune_clap
    assert not (run.folder(laboratory) / "training").exists(), "checkpoints of finished trainings are removed"
    if training.tune_clap:
        tuned = laboratory.features(training, 1, run.folder(laboratory))[0].embedding
        given = laboratory.source.evaluation.embedding[0]
        assert tuned is not None and not np.allclose(tuned, given, atol=1e-3), "CLAP has learned"
        assert np.allclose(np.linalg.norm(tuned), 1.0, atol=1e-4)


def test_an_experiment_runs_once_and_its_page_says_what_is_shown(
    enclap: Run, places: dict[str, Path], laboratory: MiniLaboratory, tmp_path: Path
) -> None:
    arguments = ["decoding", *options(places), "--seeds", "2", "--pages", tmp_path / "pages"]
    laboratory.source.evaluation  # noqa: B018 - composed once for all tests
    done = enclap("experiment", *arguments)
    assert done.returncode == 0, done.stderr
    grid = find_grid("decoding")
    runs = runs_of(grid, laboratory, 2)
    before = [(run.folder(laboratory) / "result.json").read_bytes() for run in runs]
    page = (tmp_path / "pages" / "decoding.md").read_text()
    for row in grid.rows:
        assert f"| {row.name} | 2 | 0." in page and row.name in done.stdout
    for part in (
        "](decoding.svg)",
        "## What this supports",
        "## What it does not",
        "0.223",
        "**Does the search matter?**",
    ):
        assert part in page
    assert "Not run in full" not in page and (tmp_path / "pages" / "decoding.svg").is_file()
    again = enclap("experiment", *arguments)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert [(run.folder(laboratory) / "result.json").read_bytes() for run in runs] == before
    more = enclap("experiment", *arguments[:-2], "--pages", tmp_path / "more", "--seeds", "3", "--report")
    assert more.returncode == 0 and "2 of 3 seeds" in (tmp_path / "more" / "decoding.md").read_text()
    plan = list(planned(grid, runs_of(grid, laboratory, 3), laboratory))
    assert plan[-1].startswith("1 of 3 runs are left, about ")
    found = results_of(grid, runs_of(grid, laboratory, 3), laboratory)
    assert any("2 of 3 seeds" in line for line in not_run(grid, grid_results(found), laboratory, 3))
    by_order = [found[name][1] for name in found if name.startswith("8 samples")]
    assert len(by_order) == 3 and all(item["captioning"] > 0 for item in by_order)


class FakeLaboratory:
    """Notes what a training finds in its folder, and has none."""

    truths = ()
    device = "cpu"

    def __init__(self, output: Path) -> None:
        self.output = output
        self.found: list[str] = []

    def key(self, training: Training) -> str:
        return training.key

    def obstacle(self, training: Training) -> str:
        return ""

    def train(self, training: Training, seed: int, folder: Path) -> float:
        self.found = [path.name for path in folder.iterdir()]
        return 1.0

    def facts(self, training: Training, seed: int, folder: Path) -> dict[str, Any]:
        return {"parameters": 1, "masked_accuracy": None}


@pytest.mark.parametrize("resume", [True, False])
def test_a_training_that_was_cut_off_goes_on_or_begins_anew(tmp_path: Path, resume: bool) -> None:
    laboratory: Any = FakeLaboratory(tmp_path)
    [run] = runs_of(Grid("tiny", "Tiny", "Does it run?", (Row("full"),), seeds=1), laboratory)
    folder = run.folder(laboratory)
    (folder / "training").mkdir(parents=True)
    harness.train(run, folder, laboratory, resume)
    assert laboratory.found == (["training"] if resume else [])
    assert read_result(folder) is not None
    (folder / "result.json").write_text("{}")
    with pytest.raises(DataError, match="not a run's result; remove the folder"):
        read_result(folder)


def full_size(tmp_path: Path) -> FullSizeLaboratory:
    """A laboratory of a tiny recipe, with features of two splits."""
    model = tiny_model_folder(tmp_path / "model")
    header = StoreHeader(4, 16, 16, 25.0, fingerprint(model))
    generator = np.random.default_rng(0)
    clips = []
    for number in range(12):
        embedding = generator.normal(size=16).astype(np.float32)
        features = Features(generator.integers(16, size=(20, 4)), embedding / np.linalg.norm(embedding))
        captions = ("A dog barks.", "A dog is barking.", "Rain falls.")
        clips.append(Clip(str(number), features, captions, (), 1.0, "train" if number < 8 else "test"))
    (tmp_path / "features").mkdir()
    write_shard(tmp_path / "features" / "0.parquet", header, clips)
    bart = bart_folder(tmp_path / "bart", model / "tokenizer.json")
    recipe = {"start": str(bart), "epochs": 1, "optimisation": {"batch_size": 8, "learning_rate": 1e-3}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    data = (str(tmp_path / "features"),)
    return full_size_laboratory(str(tmp_path / "recipe.yaml"), (), data, str(model), tmp_path / "out", "cpu")


def test_a_recipe_and_its_data_take_the_place_of_scenes(tmp_path: Path) -> None:
    laboratory = full_size(tmp_path)
    assert laboratory.obstacle(Training(acoustic="log_mel")) == NO_AUDIO
    assert [row.name for row in find_grid("components").rows if not laboratory.obstacle(row.training)] == [
        "full: codes and CLAP",
        "CLAP alone",
        "codes alone",
        "language model alone",
    ]
    rows = (Row("full"), Row("codes", Training(use_clap=False)), Row("CLAP", Training(acoustic="none", codebooks=2)))
    grid = Grid("tiny", "Tiny", "Does it run?", rows, seeds=1)
    runs = list(make_runs(runs_of(grid, laboratory), laboratory, resume=False))
    results = grid_results(results_of(grid, runs, laboratory))
    assert [item.name for item in results] == ["full", "codes", "CLAP"] and len(laboratory.truths) == 4
    assert laboratory.truths[0].families == families_heard(["A dog barks.", "A dog is barking.", "Rain falls."])
    assert families_heard(["A dog barks.", "A dog is barking.", "Rain falls."]) == families_heard(["A dog barks."])


def test_costs_are_those_of_the_networks(
    laboratory: MiniLaboratory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = cost.networks_of(Training(), laboratory)
    alone = cost.measure("CLAP alone", lambda: cost.networks_of(Training(acoustic="none"), laboratory))
    full = cost.measure("full", lambda: networks)
    assert full.captioner == sum(value.numel() for value in networks.captioner.parameters())
    assert full.encoders > alone.encoders > 0 and full.operations > alone.operations > 0 and full.seconds > 0
    assert len(cost.rows_to_measure()) >= 12 and networks.lstm_operations > 0
    monkeypatch.setattr(cost, "measured", lambda _: iter([full, alone]))
    page = cost.write_cost_page(laboratory, tmp_path).read_text()
    assert "| CLAP alone |" in page and "SLAM-AAC" in page and "0.223" in page and "## What it does not" in page
    with pytest.raises(UsageError, match="without --recipe"):
        cost.write_cost_page(FakeLaboratory(tmp_path), tmp_path)  # type: ignore[arg-type]


def test_linear_layers_count_two_operations_a_weight() -> None:
    class Plain(torch.nn.Linear):
        def run(self) -> None:
            self(torch.zeros(1, 8))

        captioner, encoder_parameters, lstm_operations = torch.nn.Linear(8, 4), 0, 0.0

    found = cost.measure("linear", lambda: Plain(8, 4))  # type: ignore[arg-type, return-value]
    assert found.operations == 2 * 8 * 4 and found.captioner == 8 * 4 + 4


def test_the_scores_of_a_row_do_not_depend_on_its_decoding_options_type() -> None:
    assert decoding_key(Row("a", decoding={"beams": 4})) == decoding_key(Row("b"))
    DecodingOptions(**Row("c", decoding={"sample": True, "candidates": 8, "rerank": "both"}).decoding)


def test_an_experiment_that_there_is_not_is_told_first(enclap: Run, tmp_path: Path) -> None:
    wrong = enclap("experiment", "nothing", "--sizes", tmp_path / "sizes.yaml")
    assert wrong.returncode == 2 and "enclap: nothing: no such experiment; there are components, mcm" in wrong.stderr
    elsewhere = enclap("experiment", "mcm", "--sizes", tmp_path / "sizes.yaml")
    assert elsewhere.returncode == 2 and elsewhere.stderr.count("\n") == 1
    assert "no such file of sizes; it is recipes/mini/experiments.yaml in a clone" in elsewhere.stderr
