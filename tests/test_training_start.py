"""What a training starts from: BART from a folder or the hub; and the whole of `enclap train`, small."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from transformers import BartConfig, BartForConditionalGeneration, BartModel

from cli import Run
from enclap.errors import ModelError
from enclap.model import EnclapForConditionalGeneration
from enclap.training.card import Card
from enclap.training.estimate import estimate
from enclap.training.recipe import Optimisation
from enclap.training.start import start_from_bart
from hubserver import Hub
from rule_weights import caption_config
from run_program import header_of, made_up_clips, recipe, write_features

POSITIONS = 96


def bart_folder(folder: Path, tokenizer: Path, head: bool = False, positions: int = POSITIONS) -> Path:
    """A tiny BART with random weights, laid out as facebook/bart-base is; head: with the output projection."""
    torch.manual_seed(0)

    sizes = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = BartConfig(
        **sizes,
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=positions,
        vocab_size=Tokenizer.from_file(str(tokenizer)).get_vocab_size(),
    )
    (BartForConditionalGeneration if head else BartModel)(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder


@pytest.mark.parametrize("head", [False, True])
def test_a_bart_gives_all_of_its_weights(tiny_model: Path, tmp_path: Path, head: bool) -> None:
    folder = bart_folder(tmp_path / "bart", tiny_model / "tokenizer.json", head)
    bart = BartModel.from_pretrained(folder).eval()
    start = start_from_bart(str(folder), header_of(tiny_model), seed=3)
    model = start.model.eval()
    wanted = {f"bart.{name}": value for name, value in bart.state_dict().items()}
    found = model.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert (model.config.codebooks, model.config.codebook_entries, model.config.frame_rate) == (4, 16, 25.0)
    again = start_from_bart(str(folder), header_of(tiny_model), seed=3).model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in found.items())
    tokens = torch.tensor([[0, 5, 6, 2]])
    ours = model.get_decoder()(input_ids=tokens, encoder_hidden_states=torch.ones(1, 3, 16)).last_hidden_state
    theirs = bart.decoder(input_ids=tokens, encoder_hidden_states=torch.ones(1, 3, 16)).last_hidden_state
    torch.testing.assert_close(ours, theirs)


def test_what_is_no_bart_is_told_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    header = header_of(tiny_model)
    with pytest.raises(ModelError, match="no such BART; give a folder, or a name on the hub"):
        start_from_bart("bart", header, 0)
    with pytest.raises(ModelError, match="a model of type enclap; name it with --from"):
        start_from_bart(str(tiny_model), header, 0)
    folder = bart_folder(tmp_path / "bart", tiny_model / "tokenizer.json")
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, "d_model": 32}))
    with pytest.raises(ModelError, match=r"its weights do not fit its config\.json"):
        start_from_bart(str(folder), header, 0)
    (folder / "config.json").write_text(json.dumps({**table, "vocab_size": 50}))
    with pytest.raises(ModelError, match=r"do not fit"):
        start_from_bart(str(folder), header, 0)


def test_a_bart_is_fetched_from_the_hub(tiny_model: Path, tmp_path: Path, online: Hub) -> None:
    folder = bart_folder(tmp_path / "bart", tiny_model / "tokenizer.json")
    online.put("model/facebook/bart-base", folder)
    fetched = start_from_bart("facebook/bart-base", header_of(tiny_model), 0).model.state_dict()
    local = start_from_bart(str(folder), header_of(tiny_model), 0).model.state_dict()
    assert all(torch.equal(fetched[name], value) for name, value in local.items())


@pytest.fixture
def prepared(tiny_model: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A recipe that starts from a BART in a folder, and features."""
    bart = bart_folder(tmp_path / "bart", tiny_model / "tokenizer.json")
    table = recipe(**{"epochs": 2, "start": str(bart)}).model_dump(mode="json")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(table))
    yield path, write_features(tmp_path / "features", tiny_model, made_up_clips(10, validation=3))


def test_a_dry_run_shows_the_recipe_the_steps_and_what_it_takes(
    enclap: Run, prepared: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    path, features = prepared
    command = ["train", str(path), "--data", str(features), "--model", str(tiny_model), "--output", "run", "--dry-run"]
    done = enclap(*command, "--set", "optimisation.seed=9", "--set", "epochs=7")
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    settings, _, rest = shown.partition("clips: ")
    assert yaml.safe_load(settings)["optimisation"]["seed"] == 9 and yaml.safe_load(settings)["epochs"] == 7
    assert rest.startswith("10, of which 3 validate\nsteps: 14 (2 an epoch)\n")
    assert re.search(r"memory: about \d+\.\d GB .*\(estimate\)", shown) and re.search(
        r"time: about .*\(estimate\)", shown
    )
    assert re.search(r"on an H100: about .* s a step, .*\(estimate\)", shown)
    assert not (tmp_path / "run").exists()
    done = enclap(*command, "--set", "optimisation.sed=9")
    assert done.returncode == 2 and "optimisation.sed: unknown key; did you mean seed?" in done.stderr
    done = enclap("train", "audiocaps-bas", "--data", str(features), "--output", "run")
    assert done.returncode == 2 and "no such recipe" in done.stderr and "audiocaps-base" in done.stderr


def test_the_command_trains_a_model_that_captions(
    enclap: Run, prepared: tuple[Path, Path], tiny_model: Path, tmp_path: Path, recording: object
) -> None:
    path, features = prepared
    command = ["train", str(path), "--data", str(features), "--model", str(tiny_model), "--output", "run"]
    done = enclap(*command)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert "clips/s" in done.stderr and "step 4 of 4" in done.stderr
    assert (tmp_path / "run" / "model" / "onnx" / "decoder.onnx").is_file()
    captions = enclap("caption", recording("a.wav", seconds=1.0), "--model", "run/model", "--window", "0")  # type: ignore[operator]
    assert captions.returncode == 0, captions.stderr
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert {item["type"] for item in head["model-index"][0]["results"][0]["metrics"]} == {"loss", "exact"}
    assert "10 clips" in card and "torch " in card and "batch_size: 4" in card
    done = enclap(*command)
    assert done.returncode == 2 and "go on with --resume" in done.stderr


def test_a_card_without_measurements_says_so() -> None:
    text = Card("facebook/bart-base", ("data.csv",), 9, 0, recipe(), {}).text("mine")
    assert "Nothing was measured." in text and "model-index" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "batch", "seconds", "gigabytes"), [("base", 64, 0.116, 16.5), ("large", 32, 0.19, 24.2)]
)
def test_the_estimate_for_an_h100_is_what_was_measured_there(
    size: str, batch: int, seconds: float, gigabytes: float
) -> None:
    """Measured: bfloat16, 750 frames, masked codec modeling, no loading."""
    with torch.device("meta"):
        model = EnclapForConditionalGeneration(caption_config(size))
    plan = Optimisation(steps=1, batch_size=batch, learning_rate=1e-5, bfloat16=True)
    found = estimate(model, plan, frames=750, tokens=15)
    assert found.h100_seconds_per_step == pytest.approx(seconds, rel=0.1)
    assert found.memory / 1e9 == pytest.approx(gigabytes, rel=0.35)
