"""A run that was cut off goes on with --resume, and in the end nobody can tell; what changed is done again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import Run, written
from enclap.errors import EnvironmentFault
from enclap.output.plan import RESUME_LOG_OF_FOLDER
from enclap.output.resume import model_fingerprint, recording_key
from enclap.output.resume_log import HEAD, ResumeLog, line_of
from enclap.types import Candidate, Caption, CaptionResult
from sounds import noise, write_audio

COUNT = 20
NOBODY = 2**22 + 1  # no process has this number: Linux's largest is 2**22
ALL = "text,json,jsonl,csv,tsv"


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Twenty short recordings, some of two windows."""
    folder = tmp_path / "set"
    (folder / "more").mkdir(parents=True)
    for number in range(COUNT):
        place = folder / "more" if number % 3 else folder
        write_audio(place / f"{number:02d}.wav", noise(11.0 if number % 10 == 0 else 0.2, 8000, seed=number), 8000)
    return folder


@contextmanager
def log_at(path: Path) -> Iterator[ResumeLog]:
    with path.open("a+b", buffering=0) as file, path.open("rb") as reader:
        yield ResumeLog(path, file, reader)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in written(folder)}


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"


@pytest.mark.slow
@pytest.mark.parametrize("folder", [True, False])
def test_killed_and_resumed_equals_uninterrupted(
    enclap: Run, enclap_command: list[str], collection: Path, tmp_path: Path, folder: bool
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for place in (whole, cut):
        place.mkdir()
    arguments = ["caption", "set", "--format", ALL + (",srt" if folder else ""), "--candidates", "2", "--output"]
    output = "out/" if folder else "all"
    assert enclap(*arguments, f"{whole}/{output}").returncode == 0
    command = [*enclap_command, *arguments, f"{cut}/{output}"]
    log = cut / "out" / RESUME_LOG_OF_FOLDER if folder else cut / ".all.txt.done.jsonl"
    for lines in (3, 12):  # cut off twice
        process = subprocess.Popen([*command, "--resume"], cwd=tmp_path)
        kill_when(process, lambda lines=lines: log.exists() and log.read_bytes().count(b'"key"') >= lines)
    with log.open("ab") as file:
        file.write(b'{"key": "half a li')  # as a power failure may leave it
    (log.parent / f".all.txt.{NOBODY}.partial").write_text("what a killed run leaves")
    done = enclap(*arguments, f"{cut}/{output}", "--resume")
    assert done.returncode == 0
    assert " done before; 0 failed" in done.stderr
    strip = {name: content for name, content in contents(cut).items() if not name.endswith("done.jsonl")}
    assert {name for name in strip if name.endswith(".partial")} <= {f"out/.all.txt.{NOBODY}.partial"}
    strip.pop(f"out/.all.txt.{NOBODY}.partial", None)  # not one of this output's names
    assert strip == {name: data for name, data in contents(whole).items() if not name.endswith("done.jsonl")}


def test_only_what_is_new_or_changed_is_done_again(enclap: Run, collection: Path, tmp_path: Path) -> None:
    def summary(*more: str) -> str:
        done = enclap("caption", "set", "--output", "out/", "--format", "json", *more)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert summary().startswith(f"enclap: {COUNT} files captioned")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    assert "enclap: 0 files captioned, 0 hours" in summary("--resume")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    (collection / "00.wav").rename(collection / "renamed.wav")  # the same sound under another name
    write_audio(collection / "03.wav", noise(1.0, 8000, seed=99), 8000)
    write_audio(collection / "new.wav", noise(1.0, 8000, seed=98), 8000)
    assert "enclap: 2 files captioned" in (shown := summary("--resume")) and f"; {COUNT - 1} done before" in shown
    assert (tmp_path / "out" / "renamed.json").exists()
    assert f"enclap: {COUNT + 1} files captioned" in summary("--resume", "--window", "5")
    assert f"enclap: {COUNT + 1} files captioned" in summary("--resume", "--candidates", "2")
    assert "enclap: 0 files captioned" in summary("--resume", "--format", "json,csv")  # written from the record
    assert (tmp_path / "out" / "new.csv").exists()


def test_another_model_does_it_again(enclap: Run, tiny_model: Path, collection: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    first = model_fingerprint(other)
    assert first == model_fingerprint(other)
    path = other / "generation_config.json"
    path.write_text(path.read_text().replace('"max_length": 30', '"max_length": 20'))
    assert model_fingerprint(other) != first
    for folder, words in (
        (tiny_model, f"{COUNT} files captioned"),
        (tiny_model, f"; {COUNT} done before"),
        (other, f"{COUNT} files captioned"),
    ):
        shown = enclap("caption", "set", "-o", "all.csv", "--resume", "--model", folder).stderr
        assert words in shown
    os.utime(other / "onnx" / "decoder.onnx")
    assert model_fingerprint(other) != model_fingerprint(tiny_model)


def test_failures_are_tried_again_and_said_again(enclap: Run, collection: Path, tmp_path: Path) -> None:
    (collection / "broken.wav").write_text("no sound")
    for words in (f"{COUNT} files captioned", f"; {COUNT} done before; 1 failed"):
        done = enclap("caption", "set", "-o", "all.csv", "--resume")
        assert (done.returncode, done.stderr.count("broken.wav")) == (1, 1)
        assert words in done.stderr
    write_audio(collection / "broken.wav", noise(1.0, 8000), 8000)
    assert "1 file captioned" in enclap("caption", "set", "-o", "all.csv", "--resume").stderr


def test_what_a_person_has_changed_is_kept(enclap: Run, collection: Path, tmp_path: Path) -> None:
    assert enclap("caption", "set", "-o", "out/").returncode == 0
    (tmp_path / "out" / "00.txt").write_text("corrected by hand")
    done = enclap("caption", "set", "-o", "out/", "--resume", "--window", "5")
    assert done.returncode == 0
    assert "out/00.txt: changed by someone else; kept" in done.stderr
    assert (tmp_path / "out" / "00.txt").read_text() == "corrected by hand"
    assert enclap("caption", "set", "-o", "out/", "--resume", "--overwrite").returncode == 0
    assert (tmp_path / "out" / "00.txt").read_text() != "corrected by hand"
    assert enclap("caption", "set", "-o", "all.csv").returncode == 0
    (tmp_path / "all.csv").write_text("corrected by hand")
    assert enclap("caption", "set", "-o", "all.csv", "--resume").returncode == 2


def test_one_recording_leaves_no_record_beside_it(enclap: Run, recording: Callable[..., Path], tmp_path: Path) -> None:
    assert enclap("caption", recording(), "-o", "one.txt").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.wav", "one.txt"]


def test_resume_needs_an_output(enclap: Run, recording: Callable[..., Path]) -> None:
    done = enclap("caption", recording(), "--resume")
    assert (done.returncode, "add --output" in done.stderr) == (2, True)


def test_a_second_run_on_one_output_is_refused(
    enclap: Run, enclap_command: list[str], collection: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    command = [*enclap_command, "caption", str(pipe), "set", "-o", "out/"]
    first = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / RESUME_LOG_OF_FOLDER).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = enclap("caption", "set", "-o", "out/", "--overwrite")
    assert (second.returncode, second.stderr) == (
        3,
        "enclap: out: another enclap is writing there; wait, or name another output\n",
    )
    pipe.write_bytes((collection / "00.wav").read_bytes())
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert len(written(tmp_path / "out")) == COUNT + 1


def test_a_result_comes_back_from_the_log_to_the_last_digit(tmp_path: Path) -> None:
    candidates = (Candidate((0, 7, 2), "é\u2028\x07", -1 / 3), Candidate((0, 2), "", -1e-300))
    loud = Caption(0.0, 1 / 7, "é\u2028\x07", -1 / 3, candidates=candidates)
    captions = (loud, Caption(1 / 7, 2.0, "Silence.", None, silence=True))
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    key = recording_key(str(path), "settings")
    assert key is not None
    with log_at(tmp_path / "log") as log:
        log.record(key.name, CaptionResult("a.wav", 2.0, captions))
        assert log.find(key.name, "b.wav") == CaptionResult("b.wav", 2.0, captions)
    with log_at(tmp_path / "log") as log:
        assert log.find(key.name, "b.wav") == CaptionResult("b.wav", 2.0, captions)
    assert recording_key(str(path), "other") != key != recording_key(str(path.rename(tmp_path / "a.mp3")), "settings")


CANDIDATES = (Candidate((0, 2), "A dog.", -0.5),)
RESULT = CaptionResult("a.wav", 1.0, (Caption(0.0, 1.0, "A dog.", -0.5, candidates=CANDIDATES),))
TABLE = {name: value for name, value in asdict(RESULT).items() if name != "path"}
NUMBERED = json.loads(json.dumps(TABLE).replace('"A dog."', "7"))
WHOLE = line_of({"key": "0", "result": TABLE})
DAMAGED = {
    "NULs": bytes(len(WHOLE)) + b"\n",
    "NULs of UTF-32's length": bytes(344) + b"\n",
    "half NULs": WHOLE[:50] + bytes(len(WHOLE) - 51) + b"\n",
    "garbage": bytes(range(11, 256)) + b"\n",
    "no object": b"[1, 2]\n",
    "number": b"5\n",
    "deep": b"[" * 100_000 + b"\n",
    "huge number": b'{"key": 1' + b"0" * 5000 + b"}\n",
    "no fields": b"{}\n",
    "key is a number": line_of({"key": 7, "result": TABLE}),
    "result is a list": line_of({"key": "0", "result": []}),
    "result without captions": line_of({"key": "0", "result": {"duration": 1.0}}),
    "captions of another kind": line_of({"key": "0", "result": {"duration": 1.0, "captions": [1]}}),
    "text is a number": line_of({"key": "0", "result": NUMBERED}),
    "another text": WHOLE.replace(b"A dog", b"A cog"),
    "no checksum": json.dumps({"key": "0", "result": TABLE}).encode() + b"\n",
    "infinite": WHOLE.replace(b"-0.5", b"-1e999"),
    "not a number": WHOLE.replace(b"-0.5", b"NaN"),
    "another program's": line_of({"file": 7, "sha256": None}),
    "Windows line": b"\xff\xfe{\x00\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_passed_over_and_the_others_count(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    others = line_of({"key": "1", "result": TABLE}) + line_of({"file": "a.txt", "sha256": "5"})
    (tmp_path / "log").write_bytes(HEAD + DAMAGED[damage] + others)
    with caplog.at_level(logging.WARNING, "enclap"), log_at(tmp_path / "log") as log:
        assert (log.find("0", "a.wav"), log.find("1", "a.wav"), log.written("a.txt")) == (None, RESULT, "5")
        log.record("0", RESULT)
        assert log.find("0", "a.wav") == RESULT
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/log: damaged in 1 of its lines; what they recorded is done again"
    ]
    with caplog.at_level(logging.WARNING, "enclap"), log_at(tmp_path / "log") as log:
        assert log.find("0", "a.wav") == log.find("1", "a.wav") == RESULT
    assert len(caplog.records) == 1  # it is said once


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 400).map(bytes)))
def test_whatever_is_overwritten_nothing_wrong_is_read(offset: int, damage: bytes) -> None:
    """A record is found as it was or not at all; only the first line says that the file is not ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        with log_at(path) as log:
            for number in range(4):
                log.record(str(number), RESULT)
                log.announce(f"{number}.txt", str(number))
        content = bytearray(path.read_bytes())
        start = len(HEAD) + offset % (len(content) - len(HEAD))
        content[start : start + len(damage)] = damage
        path.write_bytes(content)
        with log_at(path) as log:
            assert all(log.find(str(number), "a.wav") in (None, RESULT) for number in range(4))
            log.record("new", RESULT)
        with log_at(path) as log:
            assert log.find("new", "a.wav") == RESULT


@pytest.mark.parametrize("output", ["all.csv", "out/"])
def test_after_a_power_cut_a_run_is_resumed(enclap: Run, tmp_path: Path, output: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        write_audio(folder / f"{number}.wav", noise(0.2, 8000, seed=number), 8000)
    arguments = ("caption", "set", "-f", "csv", "-o", output)
    assert enclap(*arguments).returncode == 0
    whole = contents(tmp_path) if output == "all.csv" else contents(tmp_path / "out")
    log = tmp_path / ".all.csv.done.jsonl" if output == "all.csv" else tmp_path / "out" / RESUME_LOG_OF_FOLDER
    kept = log.read_bytes()
    lines = kept.splitlines(keepends=True)
    found = next(number for number, line in enumerate(lines) if b'"key"' in line)
    for more, damaged, words in (
        ("--resume", [*lines[:found], bytes(len(lines[found]) - 1) + b"\n", *lines[found + 1 :]], "; 3 done before"),
        ("--overwrite", [*lines[:found], bytes(len(lines[found]) - 1) + b"\n", *lines[found + 1 :]], "4 files"),
        ("--overwrite", [bytes(len(kept))], "4 files captioned"),
        ("--resume --overwrite", [*lines[:-1], lines[-1][:-9], bytes(9)], "; 4 done before"),
    ):
        log.write_bytes(b"".join(damaged))
        done = enclap(*arguments, *more.split())
        assert done.returncode == 0 and words in done.stderr, done.stderr
        after = contents(tmp_path) if output == "all.csv" else contents(tmp_path / "out")
        assert {name: after[name] for name in whole if not name.endswith("jsonl")} == {
            name: content for name, content in whole.items() if not name.endswith("jsonl")
        }
        assert enclap(*arguments, "--resume").stderr.startswith("enclap: 0 files captioned")


@pytest.mark.parametrize("content", [bytes(35), bytes(5000)])
def test_a_log_of_nothing_but_nuls_is_begun_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_bytes(content)
    with log_at(tmp_path / "log") as log:
        log.record("0", RESULT)
    with log_at(tmp_path / "log") as log:
        assert log.find("0", "a.wav") == RESULT
    assert ["begun anew" in record.getMessage() for record in caplog.records if record.name == "enclap"] == [True]


@pytest.mark.parametrize(
    "content",
    [
        b"my own notes\n",
        b'{"enclap": "ledger", "version": 2}\n',
        b"PK\3\4" + bytes(99),
        b"\0" * 40 + b"x",
        b"x" * 10**6,
    ],
    ids=["notes", "another version", "an archive", "NULs and more", "one long line"],
)
def test_a_file_with_the_name_of_a_log_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(EnvironmentFault, match="move it"), log_at(path):
        pytest.fail("it was taken for ours")
    assert path.read_bytes() == content
    for cut in range(len(HEAD) + 1):  # but the beginning of one is taken up
        path.write_bytes(HEAD[:cut])
        with log_at(path) as log:
            assert log.is_empty
        assert path.read_bytes() == HEAD
