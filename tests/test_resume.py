"""A run that was cut off goes on with --resume, and in the end nobody can tell; what changed is done again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import Run, written
from enclap.errors import EnvironmentFault
from enclap.output.plan import RESUME_LOG_OF_FOLDER
from enclap.output.resume import model_fingerprint, recording_key
from enclap.output.resume_log import HEAD, ResumeLog
from enclap.types import Candidate, Caption, CaptionResult
from sounds import noise, write_audio

COUNT = 20
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
def ledger_at(path: Path) -> Iterator[ResumeLog]:
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
    ledger = cut / "out" / RESUME_LOG_OF_FOLDER if folder else cut / ".all.txt.done.jsonl"
    for lines in (3, 12):  # cut off twice
        process = subprocess.Popen([*command, "--resume"], cwd=tmp_path)
        kill_when(process, lambda lines=lines: ledger.exists() and ledger.read_bytes().count(b'"key"') >= lines)
    with ledger.open("ab") as file:
        file.write(b'{"key": "half a li')  # as a power failure may leave it
    (ledger.parent / ".all.txt.4711.partial").write_text("what a killed run leaves")
    done = enclap(*arguments, f"{cut}/{output}", "--resume")
    assert done.returncode == 0
    assert " done before; 0 failed" in done.stderr
    strip = {name: content for name, content in contents(cut).items() if not name.endswith("done.jsonl")}
    assert {name for name in strip if name.endswith(".partial")} <= {"out/.all.txt.4711.partial"}
    strip.pop("out/.all.txt.4711.partial", None)  # not one of this output's names
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
    assert "enclap: 2 files captioned" in (told := summary("--resume")) and f"; {COUNT - 1} done before" in told
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
        told = enclap("caption", "set", "-o", "all.csv", "--resume", "--model", folder).stderr
        assert words in told
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
    _, told = first.communicate(timeout=60)
    assert first.returncode == 0, told
    assert len(written(tmp_path / "out")) == COUNT + 1


def test_a_result_comes_back_from_the_ledger_to_the_last_digit(tmp_path: Path) -> None:
    candidates = (Candidate((0, 7, 2), "é\u2028\x07", -1 / 3), Candidate((0, 2), "", -1e-300))
    loud = Caption(0.0, 1 / 7, "é\u2028\x07", -1 / 3, candidates=candidates)
    captions = (loud, Caption(1 / 7, 2.0, "Silence.", None, silence=True))
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    key = recording_key(str(path), "settings")
    assert key is not None
    with ledger_at(tmp_path / "ledger") as ledger:
        ledger.record(key.name, CaptionResult("a.wav", 2.0, captions))
        assert ledger.find(key.name, "b.wav") == CaptionResult("b.wav", 2.0, captions)
    with ledger_at(tmp_path / "ledger") as ledger:
        assert ledger.find(key.name, "b.wav") == CaptionResult("b.wav", 2.0, captions)
    assert recording_key(str(path), "other") != key != recording_key(str(path.rename(tmp_path / "a.mp3")), "settings")


@pytest.mark.parametrize("content", [b"my own notes\n", b'{"enclap": "ledger", "version": 2}\n'])
def test_a_file_in_the_place_of_the_ledger_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(content)
    with pytest.raises(EnvironmentFault, match="move it"), ledger_at(path):
        pytest.fail("it was taken for ours")
    assert path.read_bytes() == content
    for cut in range(len(HEAD) + 1):  # but the beginning of one is taken up
        path.write_bytes(HEAD[:cut])
        with ledger_at(path) as ledger:
            assert ledger.is_empty
        assert path.read_bytes() == HEAD
