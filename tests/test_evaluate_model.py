"""`enclap evaluate --model --data`: the recordings of a data set are captioned and compared with their references."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cli import Run
from enclap import Captioner
from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning.predict import clap_similarity, predict
from enclap.evaluation.captioning.tables import CaptionSet, read_references
from sounds import noise, write_audio


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of three recordings, one of them silent, in a folder beside the current one."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_audio(folder / "a.wav", noise(1.0, 16_000), 16_000)
    write_audio(folder / "b.wav", noise(12.0, 16_000), 16_000)
    write_audio(folder / "silent.wav", np.zeros((16_000, 1), np.float32), 16_000)
    rows = [(name, "a hiss", "noise") for name in ("a.wav", "b.wav", "silent.wav")]
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption_1", "caption_2"), *rows])
    return folder / "data.csv"


def test_the_captions_are_those_of_the_captioner(tiny_model: Path, data: Path) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    predicted = predict(captioner, read_references(data), data.parent)
    expected = [captioner.caption(data.parent / name, window=0).captions[0].text for name in predicted.captions.clips]
    assert list(predicted.captions.predictions) == expected
    assert predicted.captions.references == (("a hiss", "noise"),) * 3
    assert predicted.failures == []


def test_similarity_is_the_mean_cosine_over_windows_and_silence_has_none(tiny_model: Path, data: Path) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    captions = CaptionSet(("a.wav", "silent.wav"), ("a hiss", "a hiss"), (("x",), ("x",)), ((), ()))
    if not captioner.engine.can_embed_text:
        with pytest.raises(EnvironmentFault, match="no text tower"):
            clap_similarity(captioner.engine, captions, data.parent)
        return
    found = clap_similarity(captioner.engine, captions, data.parent)
    assert -1.0 <= found.clips[0] <= 1.0 and np.isnan(found.clips[1])
    assert found.value == found.clips[0]


def test_a_recording_that_fails_is_named_and_the_others_are_evaluated(
    enclap: Run, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    with data.open("a", newline="") as file:
        csv.writer(file).writerow(("missing.wav", "nothing", "nothing"))
    arguments = ["--model", tiny_model, "--data", data, "--tokenizer", "none", "--resamples", "10"]
    done = enclap("evaluate", *arguments, "--comparison-clips", "0", "-o", "report")
    assert done.returncode == 1
    assert f"enclap: {data.parent / 'missing.wav'}: no such file" in done.stderr
    table = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert table["clips"] == 3 and table["source"]["model"] == str(tiny_model)
    assert "words" in table["metrics"] and "order_correct" in table["not_computed"]
