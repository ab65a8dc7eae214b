"""A trained model onto the hub: whole, private, with its card; and what hinders it shows before the training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from enclap.cli import train as command
from enclap.errors import EnclapError, UsageError
from enclap.hub.integrity import write_checksums
from enclap.hub.resolve import find_model
from enclap.training import run as training
from enclap.training.card import Card
from enclap.training.publish import publish, reserve
from enclap.training.run import TrainingRun, train_and_publish
from hubserver import Hub
from run_program import recipe

NAME = "someone/rain"


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files go the hub's older way, which the server of the tests speaks."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder as a training leaves it: with a card that tells what was measured."""
    folder = shutil.copytree(tiny_model, tmp_path / "trained")
    metrics = {"loss": 2.5, "cider": 0.75}
    card = Card("facebook/bart-base", ("train.csv",), 90, 10, recipe(), metrics, "mit").text("rain")
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_checksums(folder)
    return folder


def test_a_published_model_is_private_has_its_card_and_can_be_fetched(
    online: Hub,
    trained: Path,
) -> None:
    for _ in range(2):  # the second time nothing is new
        reserve(NAME)
        publish(trained, NAME)
    files = {path.relative_to(trained).as_posix(): path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert online.repositories[f"model/{NAME}"] == files and online.private == {f"model/{NAME}"}
    head = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert head["license"] == "mit" and head["library_name"] == "enclap"
    [result] = head["model-index"][0]["results"]
    assert {item["type"]: item["value"] for item in result["metrics"]} == {"loss": 2.5, "cider": 0.75}
    fetched = find_model(NAME)
    assert all((fetched / name).read_bytes() == content for name, content in files.items())


def test_the_libraries_of_the_hub_read_the_card(trained: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(trained / "README.md").data
    assert data.model_name == "rain" and data.pipeline_tag == "audio-text-to-text"
    assert [(item.metric_type, item.metric_value) for item in data.eval_results] == [("loss", 2.5), ("cider", 0.75)]


def test_what_hinders_an_upload_shows_before_the_training(
    online: Hub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def forbid(run: TrainingRun) -> Path:
        raise AssertionError("trained, though nobody may write there")

    monkeypatch.setattr(training, "train", forbid)
    run = TrainingRun(recipe(), ("features",), tmp_path / "run")
    online.token = "right"
    with pytest.raises(EnclapError, match=r"someone/rain: the hub refused .*hf auth login"):
        train_and_publish(run, NAME)
    for name in ("rain", "a/b/c", "../rain"):
        with pytest.raises(UsageError, match="write OWNER/NAME"):
            train_and_publish(run, name)


def test_a_failed_upload_leaves_the_model_and_says_where(online: Hub, trained: Path) -> None:
    reserve(NAME)
    online.refused = True
    with pytest.raises(EnclapError, match=rf"someone/rain: the upload failed .*the model is in {trained}.*hf upload"):
        publish(trained, NAME)
    assert online.repositories[f"model/{NAME}"] == {}


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EnclapError, match=r"someone/rain: .*try again") as caught:
        reserve(NAME)
    assert "\n" not in str(caught.value)


def test_the_command_publishes_what_it_has_trained(
    online: Hub,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "train", lambda run: trained)
    command.train("audiocaps-base", ["features"], trained.parent / "run", push=NAME)
    assert "README.md" in online.repositories[f"model/{NAME}"]
