"""Features of a data set: the route that captioning uses, runs that are killed, clips that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cli import Run
from enclap.captioner import Captioner
from enclap.data.datasets.open import open_checked
from enclap.data.feature_store import FeatureStore
from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError, InputError
from enclap.extraction import extract
from enclap.extraction.extract import extract_features
from sounds import noise, write_audio

PROGRAM = """
import sys, time
from pathlib import Path
from enclap.captioner import Captioner
from enclap.data.datasets.open import open_checked
from enclap.extraction import extract
extract.CLIPS_PER_SHARD = 4
dataset, _ = open_checked([sys.argv[1]])
extract.extract_features(dataset, Captioner.from_pretrained(sys.argv[3]), Path(sys.argv[2]))
"""


def data_set(folder: Path, count: int, rate: int = 16_000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["path,caption_1,caption_2,split\n"]
    for number in range(count):
        write_audio(folder / f"{number}.wav", noise(0.5 + 0.1 * (number % 4), rate, seed=number), rate)
        rows.append(f"{number}.wav,Sound {number}.,Another {number}.,{'train' if number % 5 else 'test'}\n")
    (folder / "data.csv").write_text("".join(rows), encoding="utf-8")
    return folder / "data.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("data"), 11)


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "CLIPS_PER_SHARD", 4)


def test_captions_from_features_are_those_from_audio(table: Path, tiny_model: Path, tmp_path: Path) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    write_audio(table.parent / "long.wav", noise(13.5, seed=3), 16_000)  # longer than the model's 297 frames
    long = table.parent / "long.csv"
    long.write_text("path,caption\nlong.wav,A long one.\n3.wav,A short one.\n", encoding="utf-8")
    dataset, _ = open_checked([str(long)])
    extract_features(dataset, captioner, tmp_path / "features")
    store = FeatureStore(tmp_path / "features")
    assert len(store[0].features.codes) == round(13.5 * 25) > captioner.engine.max_frames
    for clip, wanted in zip(store, dataset, strict=True):
        found = captioner.engine.generate([clip.features], DecodingOptions())[0][0]
        shown = captioner.caption(str(wanted.source), window=0).captions[0]
        assert shown.candidates[0].token_ids == found.token_ids


def test_a_row_holds_all_that_training_needs(table: Path, tiny_model: Path, tmp_path: Path) -> None:
    dataset, _ = open_checked([str(table)])
    result = extract_features(dataset, Captioner.from_pretrained(tiny_model), tmp_path / "features")
    assert (result.done, result.failures) == (11, 0)
    store = FeatureStore(tmp_path / "features")
    for number, clip in enumerate(store):
        assert (clip.name, clip.split) == (f"{number}.wav", "train" if number % 5 else "test")
        assert clip.captions == (f"Sound {number}.", f"Another {number}.") and clip.audio == dataset.hashes[clip.name]
        assert (
            clip.seconds == pytest.approx(0.5 + 0.1 * (number % 4)) and clip.features.codes.max() < store.header.entries
        )
        assert clip.features.embedding is not None
        assert np.linalg.norm(clip.features.embedding) == pytest.approx(1.0, abs=1e-5)
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "features" / "00000.parquet")}
    assert types["codes"] == "list<element: uint16>" and "float" in types["embedding"]


def test_runs_that_are_killed_lose_nothing_and_repeat_nothing(table: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Killed as soon as one more shard is there, again and again until the work is done."""
    arguments = [sys.executable, "-c", PROGRAM, str(table)]
    whole = tmp_path / "whole"
    subprocess.run([*arguments, str(whole), str(tiny_model)], check=True, capture_output=True)
    parts = tmp_path / "parts"
    for wanted in (1, 2):
        with subprocess.Popen([*arguments, str(parts), str(tiny_model)], stderr=subprocess.PIPE) as process:
            while process.poll() is None and len(list(parts.glob("0*.parquet"))) < wanted:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.parquet")}
    subprocess.run([*arguments, str(parts), str(tiny_model)], check=True, capture_output=True)
    assert rows(parts) == rows(whole) and len(rows(parts)) == 11
    assert kept and all((parts / name).stat().st_mtime_ns == changed for name, changed in kept.items())
    assert not [path for path in parts.iterdir() if "partial" in path.name and not path.name.startswith(".")]


@pytest.mark.usefixtures("small_shards")
def test_decoding_several_clips_at_a_time_changes_nothing(table: Path, tiny_model: Path, tmp_path: Path) -> None:
    dataset, _ = open_checked([str(table)])
    captioner = Captioner.from_pretrained(tiny_model)
    assert captioner.engine.recordings_together == 1
    extract_features(dataset, captioner, tmp_path / "one")
    captioner.engine.recordings_together = 3
    threads = threading.active_count()
    extract_features(dataset, captioner, tmp_path / "three")
    (tmp_path / "three" / "00001.parquet").unlink()  # as if it had been killed there
    extract_features(dataset, captioner, tmp_path / "three")
    assert rows(tmp_path / "three") == rows(tmp_path / "one") and len(rows(tmp_path / "one")) == 11
    assert threading.active_count() == threads


@pytest.mark.usefixtures("small_shards")
def test_clips_that_fail_are_listed_and_strict_stops(tiny_model: Path, tmp_path: Path) -> None:
    table = data_set(tmp_path / "data", 6)
    broken = tmp_path / "data" / "2.wav"
    samples = np.full(16_000, 1e30, dtype=np.float32)  # the first samples are sound, what follows is none
    samples[:12_000] = 0.1 * np.sin(np.arange(12_000))
    write_audio(broken, samples[:, None], 16_000)
    silent = np.zeros((16_000, 1), dtype=np.float32)
    write_audio(tmp_path / "data" / "5.wav", silent, 16_000)
    captioner = Captioner.from_pretrained(tiny_model)
    dataset, _ = open_checked([str(table)])
    with pytest.raises(InputError):
        extract_features(dataset, captioner, tmp_path / "strict", strict=True)
    result = extract_features(dataset, captioner, tmp_path / "features")
    lines = [json.loads(line) for line in (tmp_path / "features" / "failures.jsonl").read_text().splitlines()]
    failed = {line["name"]: line["line"] for line in lines}
    assert "5.wav" in failed and failed["5.wav"] == 7 and result.failures == len(failed)
    assert {str(row["name"]) for row in rows(tmp_path / "features")} == {f"{n}.wav" for n in range(6)} - set(failed)
    (tmp_path / "features" / "failures.jsonl").unlink()
    assert extract_features(dataset, captioner, tmp_path / "features").failures == len(failed)
    assert len((tmp_path / "features" / "failures.jsonl").read_text().splitlines()) == len(failed)


def test_another_model_or_other_clips_are_refused(table: Path, tiny_model: Path, tmp_path: Path) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    dataset, _ = open_checked([str(table)])
    extract_features(dataset, captioner, tmp_path / "features")
    other = data_set(tmp_path / "data", 3)
    with pytest.raises(DataError, match="features of other clips; choose another output"):
        extract_features(open_checked([str(other)])[0], captioner, tmp_path / "features")
    with pytest.raises(DataError, match="features of another model; choose another output"):
        extract_features(dataset, Captioner.from_pretrained("mini"), tmp_path / "features")


def test_the_command(enclap: Run, table: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = enclap("extract", str(table), "--output", "features", "--model", str(tiny_model))
    assert (done.returncode, done.stdout) == (0, "") and "11 of 11 clips" in done.stderr
    assert len(FeatureStore(tmp_path / "features")) == 11
    faulty = tmp_path / "faulty.csv"
    faulty.write_text("path,caption\n1.wav,A dog.\ngone.wav,Rain.\n", encoding="utf-8")
    command = ["extract", str(faulty), "--audio", str(table.parent), "--model", str(tiny_model), "--output", "other"]
    done = enclap(*command)
    assert done.returncode == 3 and done.stderr == f"enclap: {faulty}: line 3: no file 'gone.wav'\n"
    done = enclap(*command, "--skip-faulty")
    assert done.returncode == 1 and "1 clips left out; see other/failures.jsonl" in done.stderr
    line = json.loads((tmp_path / "other" / "failures.jsonl").read_text())
    assert line == {"table": str(faulty), "line": 3, "error": "no file 'gone.wav'"}
