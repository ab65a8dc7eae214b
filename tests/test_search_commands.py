"""`enclap index`, `enclap search` and `enclap tag` as a user types them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from cli import Run
from enclap.captioner import Captioner
from enclap.engines import load_engine
from enclap.errors import ModelError, UsageError
from enclap.hub.resolve import find_model
from enclap.search.labels import LabelSet
from enclap.search.tagging import TagSpan, join_spans, read_labels, tag_recordings
from fakes import EchoEngine
from libraries import tone_captioner, write_sound, write_sounds

ROOT = Path(__file__).resolve().parents[1]
FIRE = ROOT / "examples" / "fire.wav"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sounds(tmp_path / "sounds", {"rain.wav": "rain", "deep/dog.wav": "dog"})


def test_a_folder_is_indexed_and_searched(enclap: Run, folder: Path, tiny_model: Path) -> None:
    done = enclap("index", folder, "--output", "library", "--model", tiny_model)
    assert done.returncode == 0, done.stderr
    assert "2 files heard, 0 known by content, 0 unchanged, 0 removed, 0 failed" in done.stderr
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    done = enclap("index", folder, "--output", "library", "--model", tiny_model, "--quiet")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "broken.wav" in done.stderr
    found = enclap("search", "library", "a dog", "--format", "json")
    assert found.returncode == 0, found.stderr
    table = json.loads(found.stdout)
    assert [Path(hit["path"]).name for hit in table["results"]] == ["dog.wav", "rain.wav"]
    assert table["results"][0]["path"] == str(folder / "deep/dog.wav")
    found = enclap("search", "library", "dog", "--folder", "deep", "--format", "m3u")
    assert found.stdout.splitlines()[-1] == str(folder / "deep/dog.wav")
    found = enclap("search", "library", "--like", folder / "rain.wav", "--format", "csv")
    assert [Path(row["path"]).name for row in csv.DictReader(io.StringIO(found.stdout))] == ["dog.wav"]
    found = enclap("search", "library", "--duplicates")
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize(
    ("typed", "code", "fault"),
    [
        (("index", "nowhere", "--output", "library"), 2, "nowhere: no such folder"),
        (("search", "nowhere", "dog"), 2, "nowhere: no library; make one with `enclap index"),
        (("search", "nowhere"), 2, "give one of WORDS, --like FILE and --duplicates"),
        (("search", "nowhere", "dog", "--duplicates"), 2, "give one of WORDS"),
        (("search", "nowhere", "--duplicates", "--format", "m3u"), 2, "which m3u cannot hold"),
        (("search", "nowhere", "dog", "--since", "soon"), 2, "--since soon: not a day"),
        (("search", "nowhere", ""), 2, "the query holds no words"),
        (("search", "nowhere", "dog " * 10_000), 2, "the query has 10000 words"),
        (("tag", str(FIRE), "--labels", " , "), 2, "holds no label"),
        (("tag", "nowhere.wav"), 1, "nowhere.wav: no such file"),
    ],
)
def test_a_mistake_is_told_in_one_line(enclap: Run, typed: tuple[str, ...], code: int, fault: str) -> None:
    done = enclap(*typed)
    assert done.returncode == code and fault in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_recordings_are_tagged_with_times(enclap: Run) -> None:
    done = enclap("tag", FIRE, "--format", "json", "--labels", "fire crackling,dog barking", "--threshold", "0")
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)["results"]
    scores = {tag["label"]: tag["score"] for tag in result["tags"]}
    assert scores["fire crackling"] > scores["dog barking"]
    assert {(tag["start"], tag["end"]) for tag in result["tags"]} == {(0.0, result["duration"])}


def test_labels_do_not_depend_on_each_other() -> None:
    """A label's probability is the same whatever else is asked for, and whatever the order."""
    engine = load_engine(find_model("mini"), threads=1)
    vector = engine.embed_text(["A dog barks."])[0]
    wanted = ("dog", "rain", "dog barking")
    several = dict(zip(wanted, LabelSet(engine, wanted).scores(vector), strict=True))
    alone = LabelSet(engine, ["rain"]).scores(vector)[0]
    everything = LabelSet(engine)
    known = dict(zip(everything.labels, everything.scores(vector), strict=True))
    assert several["rain"] == pytest.approx(alone, abs=1e-4)
    assert several["dog barking"] == pytest.approx(known["dog barking"], abs=1e-4)
    assert "dog barking" in {tag.label for tag in everything.tags(vector, 0.5)}


def test_labels_come_from_words_or_a_file(tmp_path: Path) -> None:
    assert read_labels("dog, rain ,,dog") == ["dog", "rain"]
    (tmp_path / "labels.txt").write_text("a dog, far away\n\nrain\n")
    assert read_labels(str(tmp_path / "labels.txt")) == ["a dog, far away", "rain"]
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    for typed in ("", str(tmp_path / "bytes"), "x" * 300):
        with pytest.raises(UsageError):
            read_labels(typed)


def test_spans_of_one_label_that_touch_are_one() -> None:
    spans = [
        TagSpan(0.0, 10.0, "dog", 0.4),
        TagSpan(10.0, 20.0, "dog", 0.9),
        TagSpan(10.0, 20.0, "rain", 0.5),
        TagSpan(30.0, 40.0, "dog", 0.6),
    ]
    joined = [TagSpan(0.0, 20.0, "dog", 0.9), TagSpan(10.0, 20.0, "rain", 0.5), TagSpan(30.0, 40.0, "dog", 0.6)]
    assert join_spans(spans) == joined == join_spans(spans[::-1])


def test_tags_follow_the_sound(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "two.wav", "dog", "rain", seconds=10.0)
    captioner = tone_captioner(tmp_path / "model")
    from enclap.output.inputs import InputFile

    [found] = tag_recordings(captioner, [InputFile(str(path), path.name)], ["dog", "rain"], 0.02)
    spans = {span.label: (span.start, span.end) for span in getattr(found, "spans", ())}
    assert spans == {"dog": (0.0, 10.0), "rain": (10.0, 20.0)}
    with pytest.raises(ModelError, match="--text-tower"):
        tag_recordings(Captioner(EchoEngine(), "echo"), [], None, 0.5)
