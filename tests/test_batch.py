"""`enclap batch` on local processes: shards hold what `enclap caption` says, once each, whatever happens on the way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli import Run
from enclap.batch.devices import worker_devices
from enclap.batch.listing import Listing, write_listing
from enclap.batch.local import Job, run_shards
from enclap.batch.run import Totals, caption_corpus
from enclap.batch.shards import ShardReport
from enclap.batch.sources import Item, find_items
from enclap.batch.work import COLUMNS, Captioning, ModelRun, chosen_columns
from enclap.captioner import Captioner
from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError, EnvironmentFault, InputError, UsageError
from enclap.files import locked
from sounds import noise, write_audio

OPTIONS = DecodingOptions(beams=2)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Nine recordings in a folder: short, long, silent, in a folder below, empty, and no sound at all."""
    folder = tmp_path / "corpus"
    (folder / "below").mkdir(parents=True)
    for number in range(5):
        write_audio(folder / f"{number}.wav", noise(0.3 + 0.2 * number, seed=number), 16_000)
    write_audio(folder / "below" / "long.flac", noise(2.2, seed=9), 16_000)
    write_audio(folder / "silent.wav", np.zeros((8_000, 1), dtype=np.float32), 16_000)
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no sound")
    return folder


def here(job: Job, listing: Listing, shards: Sequence[int]) -> Generator[ShardReport, None, None]:
    """The runner of a single process, this one."""
    return run_shards(job, job.work.load(job.model), listing, iter(shards))


def run(sources: object, output: Path, model: Path, **changes: Any) -> Totals:
    """A run in this process, in shards of two, windows of a second."""
    columns = chosen_columns(changes.pop("columns", None))
    work = Captioning(changes.pop("options", OPTIONS), changes.pop("window", 1.0), columns)
    settings = {"shard_size": 2, "runner": here, **changes}
    return caption_corpus([str(sources)], output, work, ModelRun(str(model), threads=1), **settings)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all shards, in order."""
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def without_scores(captions: list[dict[str, Any]]) -> tuple[list[Any], list[float]]:
    """Captions without their scores, and the scores apart, whose last digit depends on what shares a batch."""
    scores = [entry["score"] or 0.0 for caption in captions for entry in (caption, *caption["candidates"])]
    plain = [
        {**caption, "score": None, "candidates": [entry["text"] for entry in caption["candidates"]]}
        for caption in captions
    ]
    return plain, scores


def require_same(captions: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    (plain, scores), (other_plain, other_scores) = without_scores(captions), without_scores(others)
    assert plain == other_plain
    np.testing.assert_allclose(scores, other_scores, atol=1.01e-4)


def require_equal(folder: Path, other: Path) -> None:
    """Two outputs hold the same rows in the same order; the last digit of scores may differ, as in any two runs."""
    found, expected = rows(folder), rows(other)
    strip = lambda row: {**row, "captions": None, "embedding": None}  # noqa: E731
    assert [strip(row) for row in found] == [strip(row) for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        require_same(row["captions"] or [], wanted["captions"] or [])
        for vector, same in zip(row.get("embedding") or [], wanted.get("embedding") or [], strict=True):
            assert (vector is None) == (same is None)
            np.testing.assert_allclose(vector or [], same or [], atol=1e-5)


def changed(folder: Path) -> dict[str, int]:
    """When each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def test_shards_joined_are_what_enclap_caption_says(
    enclap: Run, corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = enclap("caption", corpus, "--format", "jsonl", "--window", "1", "--beams", "2")
    expected = {entry["path"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    command = ["batch", str(corpus), "--window", "1", "--beams", "2", "--model", str(tiny_model)]
    ran = enclap(*command, "--output", "out", "--shard-size", "2", "--workers", "2", "--threads", "1")
    assert ran.returncode == done.returncode == 1
    found = rows(tmp_path / "out")
    assert len(found) == 9 and {row["id"] for row in found if not row["error"]} == set(expected)
    for row in found:
        if row["error"] is None:
            entry = expected[row["id"]]
            assert row["duration"] == entry["duration"] and len(row["sha256"]) == 64
            require_same(row["captions"], entry["captions"])
    errors = {Path(row["id"]).name: row["error"] for row in found if row["error"]}
    assert errors["empty.wav"].startswith("AudioUnreadable: ") and set(errors) == {"empty.wav", "text.mp3"}
    by_kind, summary = ran.stderr.splitlines()[-2:]
    assert by_kind.startswith("enclap: AudioUnreadable: 2, such as ")
    assert summary.startswith("enclap: 9 of 9 files, ") and summary.endswith("2 failed (AudioUnreadable 2)")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] | {"hours": 0} == {"files": 9, "captioned": 7, "failed": 2, "hours": 0, "shards": 5}
    assert manifest["finished"] >= manifest["started"] and manifest["failures"] == {"AudioUnreadable": 2}
    visible = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert visible == {"manifest.json", *(f"part-{number:05d}.parquet" for number in range(5))}


def test_one_process_equals_workers_and_embeddings_are_the_encoders(
    corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "one", tiny_model, columns=",".join(COLUMNS))
    run(corpus, tmp_path / "large", tiny_model, columns=",".join(COLUMNS), shard_size=100)
    found = rows(tmp_path / "one")
    require_equal(tmp_path / "one", tmp_path / "large")
    captioner = Captioner.from_pretrained(tiny_model)
    for row in found:
        if row["error"] is None:
            windows = [window for window, _ in captioner.windows(row["uri"], 1.0)]
            assert len(row["embedding"]) == len(windows) == len(row["captions"])
            for window, vector, caption in zip(windows, row["embedding"], row["captions"], strict=True):
                assert (vector is None) == caption["silence"]
                if vector is not None:
                    np.testing.assert_allclose(vector, captioner.engine.extract([window])[0].embedding, atol=1e-6)


def test_finished_shards_are_not_done_again_and_damaged_ones_are(
    corpus: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    run(corpus, output, tiny_model)
    before = changed(output)
    shutil.copytree(output, tmp_path / "whole")
    totals = run(corpus, output, tiny_model)
    assert (totals.files, totals.earlier, totals.failed) == (9, 9, 2) and changed(output) == before
    (output / "part-00001.parquet").unlink()
    damaged = output / "part-00002.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    run(corpus, output, tiny_model)
    assert "part-00002.parquet: damaged; its recordings are captioned again" in caplog.text
    after = changed(output)
    require_equal(output, tmp_path / "whole")
    assert {name for name in after if after[name] != before[name]} == {"part-00001.parquet", "part-00002.parquet"}


def test_what_is_new_gone_or_changed_is_all_that_is_done(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(corpus, output, tiny_model)
    before = changed(output)
    write_audio(corpus / "00.wav", noise(0.5, seed=20), 16_000)  # new, before all others in the folder
    write_audio(corpus / "1.wav", noise(0.6, seed=21), 16_000)  # changed
    (corpus / "3.wav").unlink()  # gone
    run(corpus, output, tiny_model)
    run(corpus, tmp_path / "fresh", tiny_model)
    found = {row["id"]: row for row in rows(output)}
    assert len(found) == len(rows(output)) == 9
    for row in rows(tmp_path / "fresh"):
        other = found.pop(row["id"])
        assert (row["sha256"], row["duration"], row["error"]) == (other["sha256"], other["duration"], other["error"])
        require_same(row["captions"] or [], other["captions"] or [])
    assert not found
    after = changed(output)
    assert sum(after.get(name) == moment for name, moment in before.items()) >= 2


def test_another_run_or_strangers_in_the_output_are_refused(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(corpus, output, tiny_model)
    for changes, what in (
        ({"options": DecodingOptions(beams=3)}, "captions made with other options"),
        ({"window": 2.0}, "captions made with other options"),
        ({"shard_size": 3}, "shards of another size"),
        ({"columns": "id,captions"}, "other columns"),
    ):
        with pytest.raises(DataError, match=f"holds {what}.*; choose another output folder"):
            run(corpus, output, tiny_model, **changes)
    with pytest.raises(DataError, match="holds captions of another source"):
        run(corpus / "below", output, tiny_model)
    with locked(output / ".lock", "out"), pytest.raises(EnvironmentFault, match="another enclap is writing there"):
        run(corpus, output, tiny_model)
    (output / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        run(corpus, output, tiny_model)
    (output / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"holds part-00000\.parquet and no manifest\.json; choose another"):
        run(corpus, output, tiny_model)


def test_strict_stops_at_the_first_failure(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(empty\.wav|text\.mp3): "):
        run(corpus, tmp_path / "out", tiny_model, strict=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["finished"] is None


def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    original = pq.write_table

    def write(table: pa.Table, path: Path, **settings: Any) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(str(path))
        original(table, path, **settings)

    monkeypatch.setattr(pq, "write_table", write)
    with pytest.raises(EnvironmentFault, match=r"part-00002\.parquet: cannot be written: No space left on device"):
        run(corpus, tmp_path / "out", tiny_model)
    monkeypatch.setattr(pq, "write_table", original)
    totals = run(corpus, tmp_path / "out", tiny_model)
    run(corpus, tmp_path / "whole", tiny_model)
    assert totals.earlier == 4
    require_equal(tmp_path / "out", tmp_path / "whole")
    assert not [path for path in (tmp_path / "out").iterdir() if "partial" in path.name]


def children(process: int) -> list[int]:
    """The workers that a driver has started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def is_gone(process: int) -> bool:
    """Whether a process has ended, collected by its parent or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_after_a_kill_everything_is_there_once(
    victim: str, tiny_model: Path, tmp_path: Path, enclap_command: list[str]
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(40):
        write_audio(folder / f"{number:02d}.wav", noise(2.0 + 0.1 * (number % 5), seed=number), 16_000)
    output = tmp_path / "out"
    command = [*enclap_command, "batch", str(folder), "--output", str(output), "--shard-size", "2", "--threads", "1"]
    command += ["--model", str(tiny_model), "--beams", "2", "--window", "0.2", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        workers: list[int] = []
        while len(list(output.glob("part-*.parquet"))) < 2 and process.poll() is None:
            workers = workers or children(process.pid)
            time.sleep(0.002)
        kept = changed(output)
        os.kill(process.pid if victim == "driver" else workers[0], signal.SIGKILL)
    if victim == "worker":
        assert process.wait(300) == 0
    if victim == "driver":
        subprocess.run(command, check=True, capture_output=True)
    run(folder, tmp_path / "whole", tiny_model, window=0.2)
    require_equal(output, tmp_path / "whole")
    assert len(rows(output)) == 40
    assert 2 <= len(kept) < 20 and all(changed(output)[name] == moment for name, moment in kept.items())
    deadline = time.monotonic() + 30
    while not all(map(is_gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(is_gone, workers))


def test_a_list_of_missing_files_is_a_summary_of_one_line(enclap: Run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"gone/{number}.wav\n" for number in range(3000)))
    done = enclap("batch", "list.txt", "--output", "out", "--model", str(tiny_model), "--shard-size", "500")
    first, second = done.stderr.splitlines()[-2:]
    assert done.returncode == 1 and first == "enclap: AudioNotFound: 3000, such as gone/0.wav: no such file"
    assert "3000 failed (AudioNotFound 3000)" in second and len(rows(tmp_path / "out")) == 3000


def test_lists_name_the_same_recordings(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    names = [f"corpus/{number}.wav" for number in range(4)]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n\n" + names[0] + "\n")  # one of them twice
    (tmp_path / "list.csv").write_text("id,file_name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)))
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    pq.write_table(pa.table({"uri": [str(tmp_path / name) for name in names]}), tmp_path / "list.parquet")
    expected = None
    for ending in ("txt", "csv", "jsonl", "parquet"):
        run(tmp_path / f"list.{ending}", tmp_path / ending, tiny_model)
        found = [(row["sha256"], row["captions"]) for row in rows(tmp_path / ending)]
        expected = expected or found
        assert found == expected and len(found) == 4
    assert [row["id"] for row in rows(tmp_path / "csv")] == ["0", "1", "2", "3"]
    (tmp_path / "bad.csv").write_text("name,other\n1,2\n")
    with pytest.raises(DataError, match=r"bad\.csv: needs a column uri, path.*; it has name, other"):
        list(find_items([str(tmp_path / "bad.csv")]))
    (tmp_path / "odd.csv").write_text('path\n"a.wav"\nb.wav,c\n')
    assert [item.fault and "2 cells" in item.fault for item in find_items([str(tmp_path / "odd.csv")])] == [None, True]


def test_archives_addresses_and_data_sets(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    names = [corpus / f"{number}.wav" for number in range(3)]
    with tarfile.open(tmp_path / "sounds.tar", "w") as archive:
        for name in names:
            archive.add(name, name.name)
        note = tarfile.TarInfo("0.txt")
        note.size = 6
        archive.addfile(note, io.BytesIO(b"A dog."))
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe(f"/bucket/{name.name}", name.read_bytes())
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"audio": [str(name) for name in names]})
    table.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "saved"))
    run(f"{corpus}/[0-2].wav", tmp_path / "glob", tiny_model)
    expected = [(row["sha256"], row["captions"]) for row in rows(tmp_path / "glob")]
    (tmp_path / "list.txt").write_text("memory://bucket/0.wav\nmemory://bucket/gone.wav\nmemory://bucket/1.wav\n")
    for source in (tmp_path / "sounds.tar", "memory://bucket", "memory://bucket/*.wav", tmp_path / "saved"):
        output = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        run(source, output, tiny_model)
        assert [(row["sha256"], row["captions"]) for row in rows(output)] == expected, source
    assert run(tmp_path / "list.txt", tmp_path / "addresses", tiny_model).failures == {"AudioNotFound": 1}
    with pytest.raises(DataError, match="nowhere: no files there"):
        list(find_items(["memory://nowhere"]))


def test_a_listing_keeps_shards_and_names_nothing_twice(tmp_path: Path) -> None:
    def items(names: str) -> list[Item]:
        return [Item(name, name) for name in names]

    def shards(listing: Listing) -> list[str]:
        return ["".join(item.id for item in listing.items(shard)) for shard in range(len(listing))]

    assert shards(write_listing(tmp_path / "list", items("abcabdef"), 3)) == ["abc", "def"]
    assert shards(write_listing(tmp_path / "list", items("xabcdef"), 3)) == ["abc", "def", "x"]
    assert shards(write_listing(tmp_path / "list", items("yacdefx"), 3)) == ["ac", "def", "x", "y"]
    assert shards(write_listing(tmp_path / "list", items("yz"), 3)) == ["", "", "", "y", "z"]
    assert shards(Listing(tmp_path / "list")) == ["", "", "", "y", "z"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list"]


def test_devices_and_workers_go_together() -> None:
    assert worker_devices("cpu,cpu", None, 1) == (["cpu", "cpu"], 1)
    assert worker_devices("cuda:0,3", 2, 2)[0] == ["cuda:0", "cuda:3"]
    assert worker_devices("cpu", 3, None)[0] == ["cpu"] * 3
    for device, workers, message in (
        ("cuda:0,0", None, "each must be named, and once"),
        ("cuda:0,1", 3, "has 2 workers, not 3"),
        ("tpu", None, "is none of auto"),
    ):
        with pytest.raises(UsageError, match=message):
            worker_devices(device, workers, None)


def test_a_dry_run_says_files_hours_and_time(enclap: Run, corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = enclap("batch", corpus, "--output", "out", "--dry-run", "--model", str(tiny_model), "--threads", "1")
    first, second, third = done.stdout.splitlines()
    assert first.startswith("9 files, ") and second == "2 of 9 files cannot be read"
    assert third.startswith("about ") and "times real time" in third and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone"], 3, "enclap: gone: no such file"),
        (["."], 3, "no sound files and no .tar archives in this folder"),
        (["s3://bucket/list.csv"], 3, "lists are read from this machine; copy it here first"),
        ([".", "--columns", "id,colour"], 2, "--columns colour: not a column"),
        ([".", "--dashboard"], 2, "--dashboard is Ray's"),
    ],
)
def test_mistakes_get_one_line(enclap: Run, arguments: list[str], code: int, message: str) -> None:
    done = enclap("batch", *arguments, "--output", "out")
    assert done.returncode == code and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_several_devices_caption_as_one(corpus: Path, enclap: Run, tiny_model: Path, tmp_path: Path) -> None:
    command = ["batch", str(corpus), "--model", str(tiny_model), "--window", "1", "--beams", "2", "--shard-size", "2"]
    assert enclap(*command, "--output", "two", "--device", "cpu,cpu", "--threads", "1").returncode == 1
    run(corpus, tmp_path / "one", tiny_model)
    require_equal(tmp_path / "two", tmp_path / "one")
