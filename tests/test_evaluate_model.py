"""`enclap evaluate --model --data`: the recordings of a data set are captioned and compared with their references."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cli import Run
from enclap import Captioner
from enclap.audio.read import Source, open_audio
from enclap.audio.window import DEFAULT_WINDOW, split_windows
from enclap.data.datasets.base import CaptionedClip
from enclap.data.datasets.table import TableDataset
from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning.predict import clap_similarity, predict
from enclap.types import Waveform
from sounds import noise, write_audio

NAMES = ("a.wav", "b.wav", "silent.wav")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of three recordings, one of them silent, in a folder beside the current one."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_audio(folder / "a.wav", noise(1.0, 16_000), 16_000)
    write_audio(folder / "b.wav", noise(12.0, 16_000), 16_000)
    write_audio(folder / "silent.wav", np.zeros((16_000, 1), np.float32), 16_000)
    rows = [(name, "a hiss", "noise") for name in NAMES]
    with (folder / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption_1", "caption_2"), *rows])
    return folder / "data.csv"


def test_the_captions_are_those_of_the_captioner(tiny_model: Path, data: Path) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    predicted = predict(captioner, TableDataset(data))
    expected = [captioner.caption(data.parent / name, window=0).captions[0].text for name in predicted.captions.clips]
    assert list(predicted.captions.predictions) == expected
    assert predicted.captions.references == (("a hiss", "noise"),) * 3
    assert predicted.failures == [] and predicted.sources == [data.parent / name for name in predicted.captions.clips]


def test_sound_that_is_in_no_file_of_its_own_is_captioned_too(tiny_model: Path, data: Path) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    waveform = Waveform(noise(1.0, 16_000)[:, 0], 16_000)
    archived = (data.parent / "a.wav").read_bytes()
    sources = {"made": waveform, "archived": archived}
    predicted = predict(
        captioner, [CaptionedClip(name, source, ("a hiss",), "test") for name, source in sources.items()]
    )
    wanted = [captioner.caption(source, window=0) for source in ((waveform.samples, 16_000), archived)]
    assert list(predicted.captions.predictions) == [result.captions[0].text for result in wanted]


def test_similarity_is_the_mean_cosine_over_windows_and_silence_has_none(tiny_model: Path, data: Path) -> None:
    engine = Captioner.from_pretrained(tiny_model).engine
    sources: list[Source] = [data.parent / name for name in ("a.wav", "b.wav", "silent.wav")]
    systems = [["a hiss"] * 3, ["rain", "a hiss", "rain"]]
    first, second = clap_similarity(engine, sources, systems)
    assert np.isnan(first.clips[2]) and np.isnan(second.clips[2])
    assert first.clips[1] == second.clips[1] and first.value == pytest.approx(first.clips[:2].mean())
    with open_audio(sources[1]) as audio:
        windows = list(split_windows(audio.blocks, audio.rate, DEFAULT_WINDOW))
    embeddings = [engine.extract([window])[0].embedding for window in windows]
    [text] = engine.embed_text(["a hiss"])
    assert len(windows) == 2
    assert first.clips[1] == pytest.approx(np.mean([embedding @ text for embedding in embeddings]), abs=1e-6)


class Deaf:
    """An engine without CLAP's text tower."""

    can_embed_text = False


def test_a_model_without_a_text_tower_has_no_similarity() -> None:
    with pytest.raises(EnvironmentFault, match="no text tower"):
        clap_similarity(Deaf(), [], [])  # type: ignore[arg-type]


COMMON = ["--tokenizer", "none", "--resamples", "10", "--comparison-clips", "0", "-o", "report"]


def test_a_recording_that_fails_is_named_and_the_others_are_evaluated(
    enclap: Run, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    (data.parent / "broken.wav").write_bytes(b"no sound")
    with data.open("a", newline="") as file:
        csv.writer(file).writerow(("broken.wav", "nothing", "nothing"))
    (tmp_path / "other.csv").write_text("path,caption\n" + "".join(f"{n},a hiss\n" for n in (*NAMES, "broken.wav")))
    done = enclap("evaluate", "--model", tiny_model, "--data", data, "--compare", "other.csv", *COMMON)
    assert done.returncode == 1
    assert f"enclap: {data.parent / 'broken.wav'}: not a sound file" in done.stderr
    table = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert table["clips"] == 3 and table["source"]["model"] == str(tiny_model)
    assert "words" in table["metrics"] and "order_correct" in table["not_computed"]
    similar = table["metrics"]["clap_similarity"], table["rows"]["compared"]["clap_similarity"]
    assert table["difference"]["clap_similarity"]["value"] == pytest.approx(similar[0]["value"] - similar[1]["value"])
    with (tmp_path / "report" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["compared_caption"] for row in rows] == ["a hiss"] * 3 and "compared_rouge_l" in rows[0]
    assert rows[2]["clap_similarity"] == rows[2]["compared_clap_similarity"] == ""


def test_one_split_is_evaluated(enclap: Run, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    text = data.read_text().replace("\r\n", "\n").replace("caption_2", "caption_2,split")
    data.write_text(
        text.replace("a hiss,noise", "a hiss,noise,evaluation", 1).replace("a hiss,noise\n", "a hiss,noise,train\n")
    )
    arguments = ["--model", tiny_model, "--data", data, "--split"]
    wrong = enclap("evaluate", *arguments, "tset")
    assert wrong.returncode == 2 and "its splits are test, train" in wrong.stderr
    assert enclap("evaluate", *arguments, "test", *COMMON).returncode == 0
    table = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert table["clips"] == 1 and table["source"]["split"] == "test"
    assert enclap("evaluate", "--predictions", data, "--references", data, "--split", "test").returncode == 2


def test_a_table_that_names_missing_recordings_is_refused_before_any_is_captioned(
    enclap: Run, tiny_model: Path, data: Path
) -> None:
    (data.parent / "a.wav").unlink()
    done = enclap("evaluate", "--model", tiny_model, "--data", data)
    assert done.returncode == 3 and "line 2: no file 'a.wav'" in done.stderr
