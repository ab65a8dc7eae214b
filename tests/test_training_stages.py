"""The training loop and the losses: resumed equals uninterrupted, fast equals slow twin, each stage learns."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from enclap.data.feature_store import FeatureStore, write_shard
from enclap.errors import UsageError
from enclap.experiments.recipe import ExperimentRecipe
from enclap.model.conv_clap import ConvTower
from enclap.training.dataset import CaptionItem, CaptionItems, Perturbation
from enclap.training.mini import clap as clap_stage
from enclap.training.mini import codec as codec_stage
from enclap.training.mini.augment import Augmentation, MelBank
from enclap.training.mini.distillation import DistillationRecipe
from enclap.training.mini.opinions import TeacherRecipe
from enclap.training.mini.scenes import CaptionRecipe
from enclap.training.mini.targets import Targets, make_targets
from enclap.training.mini.text import TextRecipe, make_pair_sampler, symmetric_contrast
from enclap.training.recipe import Optimisation, parse, read_recipe
from enclap.training.tokenizer import train_tokenizer
from enclap.training.trainer import train_model
from enclap.training.weights import round_to_float16
from feature_clips import HEADER, clips
from test_training_data import recording

ROOT = Path(__file__).resolve().parents[1]
RECIPES: dict[str, type[Any]] = {
    "teacher": TeacherRecipe,
    "codec": codec_stage.CodecRecipe,
    "distillation": DistillationRecipe,
    "clap": clap_stage.ClapRecipe,
    "text": TextRecipe,
    "caption": CaptionRecipe,
    "experiments": ExperimentRecipe,
}


class Line(nn.Module):
    """Learns y = 2 x with a noisy part, so that the random state matters too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": functional.mse_loss(self.layer(self.dropout(x)), 2.0 * x)}


def draw(number: int) -> float:
    return float(np.random.default_rng(number).standard_normal())


def collate(values: Any) -> dict[str, Tensor]:
    return {"x": torch.tensor(values).float()[:, None]}


def train(output: Path, draw: Callable[[int], float] = draw) -> nn.Module:
    optimisation = Optimisation(
        steps=24, batch_size=4, learning_rate=0.05, warmup_steps=2, ema=0.9, save_every=5, log_every=4
    )
    return train_model(Line(), draw, collate, optimisation, output)


def test_a_run_that_was_cut_off_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")

    def cut(number: int) -> float:
        if number >= 4 * 13:
            raise KeyboardInterrupt
        return draw(number)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", cut)
    resumed = train(tmp_path / "cut")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == 24


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_recipes_of_mini_are_read(name: str) -> None:
    read_recipe(RECIPES[name], ROOT / "recipes" / "mini" / f"{name}.yaml")


def test_there_is_no_recipe_that_is_not_tested() -> None:
    assert {path.stem for path in (ROOT / "recipes" / "mini").rglob("*.yaml")} == set(RECIPES)


def test_a_recipe_names_all_its_faults_at_once() -> None:
    with pytest.raises(UsageError, match=r"batch_size.*steps.*pace") as caught:
        parse(Optimisation, {"steps": 0, "batch_size": -1, "learning_rate": 1.0, "pace": 3}, "here.yaml")
    assert "here.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_settings_are_overridden_by_key() -> None:
    path = ROOT / "recipes" / "mini" / "text.yaml"
    recipe = read_recipe(TextRecipe, path, ["optimisation.steps=7", "views=12", "optimisation.ema=0.5"])
    assert (recipe.optimisation.steps, recipe.views, recipe.optimisation.ema) == (7, 12, 0.5)
    assert recipe.optimisation.seed == read_recipe(TextRecipe, path).optimisation.seed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimisation.steps", "--set optimisation.steps: write key=value"),
        ("optimisation..steps=1", "write key=value, the keys of inner tables joined by dots"),
        ("views.steps=1", "--set views.steps=1: views is not a table"),
        ("views=[1", r"--set views=\[1: the value is not YAML"),
        ("optimisation.setps=1", r"text.yaml: optimisation.setps: unknown key; did you mean steps\?"),
        ("veiws=1", r"text.yaml: veiws: unknown key; did you mean views\?"),
        ("colour=1", "text.yaml: colour: unknown key; known: optimisation, views"),
        ("optimisation.learning_rate=.inf", "optimisation.learning_rate: Input should be a finite number"),
    ],
)
def test_a_wrong_override_is_named_with_what_was_probably_meant(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_recipe(TextRecipe, ROOT / "recipes" / "mini" / "text.yaml", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such recipe"),
        (b"- 1", "a recipe is a table of settings"),
        (b"a: [", "not YAML"),
        (b"a: \xff", "not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_recipe(TextRecipe, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(TextRecipe, tmp_path)


def slow_contrast(logits: Tensor, group: Tensor) -> float:
    """The definition, pair by pair."""
    total = 0.0
    for matrix in (logits, logits.T):
        for row, values in enumerate(matrix):
            same = [column for column in range(len(group)) if group[column] == group[row]]
            log_sum = torch.logsumexp(values, 0)
            total += float(sum(log_sum - values[column] for column in same)) / len(same)
    return total / (2 * len(group))


def test_contrast_shares_the_probability_among_all_pairs_of_a_label() -> None:
    torch.manual_seed(0)
    logits, group = torch.randn(6, 6), torch.tensor([0, 1, 0, 2, 1, 0])
    assert float(symmetric_contrast(logits, group)) == pytest.approx(slow_contrast(logits, group), abs=1e-5)
    assert float(symmetric_contrast(logits, group)) == pytest.approx(float(symmetric_contrast(logits.T, group)))


def test_soft_cross_entropy_is_torchs_for_whole_labels_and_ignores_empty_rows() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 7), torch.tensor([0, 3, 6, 2, 2])
    wanted = functional.cross_entropy(logits, labels, label_smoothing=0.05)
    rows = functional.one_hot(labels, 7).float()
    torch.testing.assert_close(clap_stage.soft_cross_entropy(logits, rows), wanted)
    padded = clap_stage.soft_cross_entropy(torch.cat([logits, torch.randn(2, 7)]), torch.cat([rows, torch.zeros(2, 7)]))
    torch.testing.assert_close(padded, wanted)


def test_targets_hold_labels_of_seen_recordings_and_words_that_recur() -> None:
    labels = ["dog barking", "puppy barking", "dog barking", "rain"]
    recordings = [recording(label, number) for number, label in enumerate(labels)]
    targets = make_targets(recordings, seen=[0, 1, 2])
    assert targets.label_names == ("dog barking", "puppy barking") and targets.word_names == ("barking",)
    assert targets.label_rows[3].sum() == 0 and targets.word_rows[:, 0].tolist() == [1, 1, 1, 0]
    families = [targets.family_names[row.argmax()] for row in targets.family_rows]
    assert targets.family_rows.sum(axis=1).tolist() == [1, 1, 1, 1] and families == ["dog", "dog", "dog", "rain"]


def small_tower() -> tuple[ConvTower, clap_stage.TowerTraining, Targets]:
    """A tower of 8 mel bands and the training of its projection on three labels."""
    recordings = [recording(label, number) for number, label in enumerate(["dog barking", "rain", "bell ringing"] * 3)]
    targets = make_targets(recordings, seen=range(9))
    one = Optimisation(steps=1, batch_size=1, learning_rate=1.0)
    recipe = clap_stage.ClapRecipe(text={}, views=1, optimisation=one, fine_tuning=one)
    torch.manual_seed(0)
    tower = ConvTower(8, (8, 16), 16)
    return tower, clap_stage.TowerTraining(tower, targets, recipe), targets


def test_a_tower_learns_what_is_heard_and_in_which_half() -> None:
    tower, training, targets = small_tower()
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 3, (48, 2))  # what sounds in the first and in the second half
    mel = generator.normal(-60.0, 2.0, (48, 20, 8)).astype(np.float32)
    for item, (first, second) in enumerate(kinds):
        mel[item, :10, 2 * first] += 40.0
        mel[item, 10:, 2 * second] += 40.0
    rows = {"labels": targets.label_rows, "families": targets.family_rows, "words": targets.word_rows}
    batch = {name: torch.from_numpy(table[kinds].mean(axis=1)) for name, table in rows.items()}
    batch["words"] = (batch["words"] > 0).float()
    halves = torch.from_numpy(targets.word_rows[kinds].reshape(48, -1))
    hidden = tower.hidden(torch.from_numpy(mel)).detach()  # the convolutions stay as they are
    optimiser = torch.optim.AdamW(training.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        parts = training(hidden, **batch, halves=halves)
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        losses.append({name: float(value.detach()) for name, value in parts.items()})
    for name in ("label_loss", "word_loss", "family_loss", "order_loss"):
        assert losses[-1][name] < 0.7 * losses[0][name], name
    training.eval()
    with torch.no_grad():
        seen = tower.spans(hidden)[:, 0] * 4.0
        found = training.order_head(seen).reshape(48, 2, -1) > 0
    assert (found == halves.reshape(48, 2, -1).bool()).float().mean() > 0.9


def small_sampler(targets: Targets, augmentation: Augmentation) -> clap_stage.ViewSampler:
    """Views of nine recordings, 20 frames long."""
    bank = MelBank(np.full((90, 8), -60.0, dtype=np.float16), np.arange(0, 91, 10), 20)
    return clap_stage.ViewSampler(bank, np.cumsum(np.full(9, 1 / 9)), augmentation, targets, seed=0)


def test_fine_tuning_trains_the_convolutions_but_not_their_batch_statistics() -> None:
    tower, heads, targets = small_tower()
    sampler = small_sampler(targets, Augmentation())
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    model = clap_stage.FineTuning(tower, heads).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(**clap_stage.stack([sampler(number) for number in range(6)]))["loss"].backward()
    optimiser.step()
    changed = {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}
    assert "blocks.0.0.weight" in changed and "projection.weight" in changed
    assert not {name for name in changed if name.startswith(("input_norm.running", "blocks")) and "running" in name}


def test_the_halves_of_a_view_hold_the_words_of_what_sounds_in_them() -> None:
    tower, _, targets = small_tower()
    draw = clap_stage.map_views(tower, small_sampler(targets, Augmentation(mixture=0.0, sequence=1.0)), 20)
    for number in range(20):
        item = draw(number)
        first, second = item["halves"].reshape(2, -1)
        assert np.array_equal(np.maximum(first, second), item["words"]) and item["labels"].sum() == pytest.approx(1.0)
        assert item["hidden"].shape == (16, 10)  # channels, and frames halved once


def test_every_sampler_can_be_sent_to_a_worker_of_the_data_loader(tmp_path: Path) -> None:
    tower, _, targets = small_tower()
    view = small_sampler(targets, Augmentation())
    maps = clap_stage.map_views(tower, view, 8)
    tokenizer = train_tokenizer(["A dog barks."], 300)
    pair = make_pair_sampler(np.eye(2, dtype=np.float32), ["dog barking", "rain"], tokenizer, seed=0)
    write_shard(tmp_path / "00000.parquet", HEADER, clips(8))
    items = CaptionItems(FeatureStore(tmp_path), np.ones(8), tokenizer, 32, Perturbation(), batch_size=2, seed=0)
    for draw, field in ((view, "mel"), (maps, "hidden"), (pair, "ids"), (items, "codes")):
        found, wanted = (
            item if isinstance(item, dict) else vars_of(item) for item in (pickle.loads(pickle.dumps(draw))(5), draw(5))
        )
        assert np.array_equal(found[field], wanted[field])


def vars_of(item: CaptionItem) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in fields(item)}


def test_rare_labels_are_drawn_less_often_than_common_ones_but_more_than_their_share() -> None:
    recordings = [recording("rain", number) for number in range(8)] + [recording("bell ringing", 9)]
    cumulative = clap_stage.recording_weights(recordings, range(9))
    rare = cumulative[-1] - cumulative[-2]
    assert cumulative[-1] == pytest.approx(1.0) and 1 / 9 < rare < 1 / 2


CODEC = {
    "sampling_rate": 8_000,
    "num_filters": 2,
    "upsampling_ratios": [5, 4],
    "hidden_size": 8,
    "num_lstm_layers": 1,
    "codebook_size": 16,
    "target_bandwidths": [6.4],
}


def small_codec() -> Any:
    torch.manual_seed(0)
    one = Optimisation(steps=1, batch_size=1, learning_rate=1.0)
    return codec_stage.build_codec(codec_stage.CodecRecipe(model=CODEC, encoder=one, quantised=one))


def test_the_codecs_first_layer_drives_quiet_samples_out_of_the_linear_part_of_elu() -> None:
    torch.manual_seed(0)
    codec, quiet = small_codec(), 0.03 * torch.randn(1, 1, 4_000)
    with torch.no_grad():
        values = codec.encoder.layers[0](quiet)
    assert float(values.std()) > 0.1  # where the exponential bends


def test_each_codebook_leaves_less_variance_and_the_codes_give_the_latents_back() -> None:
    codec = small_codec()
    latents = torch.randn(600, 8) @ torch.diag(torch.linspace(2, 0.2, 8))
    left = codec_stage.fit_codebooks(codec, latents)
    assert left[0] < 0.6 and all(after < before for before, after in itertools.pairwise(left))
    codes = codec.quantizer.encode(latents.T[None])
    error = (codec.quantizer.decode(codes)[0].T - latents).square().mean() / latents.square().mean()
    assert float(error) == pytest.approx(left[-1], rel=1e-3)


def test_standardised_latents_leave_what_is_read_from_them_as_it_was() -> None:
    model = codec_stage.CodecTraining(small_codec(), quantised=False)
    audio = 0.3 * torch.randn(2, 800)
    with torch.no_grad():
        model.codec.encoder.layers[-1].conv.bias += 30.0 * torch.randn(8)
        before = model.mel_head(model.codec.encoder(audio.unsqueeze(1)))
        old = model.codec.encoder(audio.unsqueeze(1))
        codec_stage.standardise_latents(model, old.transpose(1, 2).reshape(-1, 8))
        latents = model.codec.encoder(audio.unsqueeze(1))
        inner = (..., slice(1, -1))
        torch.testing.assert_close(model.mel_head(latents)[inner], before[inner], rtol=1e-3, atol=1e-3)
    assert latents.mean(dim=(0, 2)).abs().max() < 1e-3
    assert float(latents.square().mean()) == pytest.approx(1.0, abs=1e-2)


def test_dead_codes_are_restarted_on_vectors_of_the_batch() -> None:
    codebook = small_codec().quantizer.layers[0].codebook
    with torch.no_grad():
        codebook.embed.copy_(torch.full_like(codebook.embed, 50.0))
        codebook.embed[0] = 0.0
        codebook.cluster_size.zero_()
    vectors = torch.randn(40, 8)
    codec_stage.move_codebook(codebook, vectors, codebook.quantize(vectors))
    for entry in codebook.embed[1:]:
        assert (entry == vectors).all(dim=1).any()


def test_perplexity_counts_the_entries_in_use() -> None:
    assert float(codec_stage.perplexity(torch.tensor([0, 1, 2, 3]), 16)) == pytest.approx(4.0)
    assert float(codec_stage.perplexity(torch.tensor([5, 5, 5]), 16)) == pytest.approx(1.0)


@pytest.mark.parametrize("quantised", [False, True])
def test_the_codec_learns_with_and_without_its_codebooks(quantised: bool) -> None:
    codec = small_codec()
    model = codec_stage.CodecTraining(codec, quantised)
    time = torch.arange(2_400) / 8_000
    audio = 0.3 * torch.sin(2 * torch.pi * torch.tensor([[200.0], [450.0]]) * time)
    with torch.no_grad():
        latent = codec.encoder(audio.unsqueeze(1))
    codec_stage.fit_codebooks(codec, latent.transpose(1, 2).reshape(-1, 8))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = model(audio)["loss"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_rounded_weights_are_what_float16_holds() -> None:
    layer = nn.Linear(7, 3)
    round_to_float16(layer)
    assert torch.equal(layer.weight, layer.weight.half().float())
