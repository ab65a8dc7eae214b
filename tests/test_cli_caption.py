"""`enclap caption` from the outside: what it writes where, and how it ends. Runs a tiny random model in processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import Run, on_terminal, receive_ctrl_c, written
from sounds import noise, write_audio


def test_a_file_gives_a_line(enclap: Run, recording: Callable[..., Path]) -> None:
    done = enclap("caption", recording())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{recording()}: ")
    assert done.stdout.count("\n") == 1


def test_same_file_same_caption_whatever_is_beside_it(enclap: Run, recording: Callable[..., Path]) -> None:
    paths = [recording("a.wav", seconds=3.0), recording("b.wav", seconds=23.0), recording("c.wav", seconds=0.01)]
    alone = [json.loads(enclap("caption", path, "--format", "jsonl").stdout) for path in paths]
    together = enclap("caption", *paths, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in together] == alone


def test_folders_globs_and_standard_input(enclap: Run, recording: Callable[..., Path], tmp_path: Path) -> None:
    inside = tmp_path / "set" / "deep"
    inside.mkdir(parents=True)
    for name in ("b.wav", "a.flac", "notes.txt", ".hidden.wav"):
        write_audio(inside / name, noise(0.2), 16_000, **({"codec": "flac"} if "flac" in name else {})) if (
            name != "notes.txt"
        ) else (inside / name).write_text("not sound")
    folder = enclap("caption", tmp_path / "set", "--format", "json")
    names = [Path(result["path"]).name for result in json.loads(folder.stdout)["results"]]
    assert (folder.returncode, names) == (0, ["a.flac", "b.wav"])
    matched = enclap("caption", str(tmp_path / "set" / "**" / "*.wav"), "--format", "json")
    assert [Path(result["path"]).name for result in json.loads(matched.stdout)["results"]] == ["b.wav"]
    piped = enclap("caption", "-", "--format", "json", stdin=recording().read_bytes())
    assert json.loads(piped.stdout)["results"][0]["path"] == "-"


def test_windows_beams_and_candidates_arrive(enclap: Run, recording: Callable[..., Path]) -> None:
    arguments = ("--window", "2", "--candidates", "6", "--format", "json")
    (result,) = json.loads(enclap("caption", recording(seconds=5.0), *arguments).stdout)["results"]
    assert [caption["end"] for caption in result["captions"]] == [2.0, 3.5, 5.0]
    assert all(len(caption["candidates"]) == 6 for caption in result["captions"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--window", "99"], "reads at most"),
        (["--window", "nan"], "reads at most"),
        (["--beams", "2", "--candidates", "3"], "needs --beams 3"),
        (["--beams", "0"], "--beams"),
        (["--format", "pdf"], "pdf"),
        (["--output", "missing/captions.txt"], "does not exist"),
        (["--nonsense"], "--nonsense"),
        (["--threads", "100000"], "--threads"),
        (["--threads", "0"], "--threads"),
        (["--rank", "clap"], "--rank"),
    ],
)
def test_wrong_usage_ends_with_two(
    enclap: Run, recording: Callable[..., Path], arguments: list[str], words: str
) -> None:
    done = enclap("caption", recording(), *arguments)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_subtitles_of_several_recordings_need_a_folder(
    enclap: Run, recording: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [recording("dog.wav"), recording("dog.flac"), recording("cat.wav")]
    refused = enclap("caption", *paths, "--format", "srt")
    assert refused.returncode == 2
    assert "--output FOLDER" in refused.stderr
    folder = tmp_path / "subtitles"
    assert enclap("caption", *paths, "--format", "srt", "--output", f"{folder}/").returncode == 0
    assert written(folder) == ["cat.srt", "dog.flac.srt", "dog.srt"]
    assert (folder / "cat.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:01,000\n")


def test_an_output_file_appears_whole_or_not_at_all(
    enclap: Run, recording: Callable[..., Path], tmp_path: Path
) -> None:
    target = tmp_path / "out" / "captions.json"
    target.parent.mkdir()
    assert enclap("caption", recording(), "--format", "json", "-o", target).stdout == ""
    before = target.read_text()
    assert json.loads(before)["schema"] == 1
    broken = recording("b.wav")
    failed = enclap("caption", broken, "--window", "99", "-o", target)
    assert (failed.returncode, target.read_text()) == (2, before)
    assert [path.name for path in target.parent.iterdir()] == ["captions.json"]


def test_version_and_models(enclap: Run) -> None:
    assert enclap("--version").stdout.startswith("enclap ")
    assert enclap("models", "list").returncode == 0


def test_a_closed_pipe_is_quiet(enclap_command: list[str], recording: Callable[..., Path]) -> None:
    paths = [str(recording(f"{number}.wav", seconds=0.1)) for number in range(20)]
    line = " ".join([*enclap_command, "caption", *paths, "|", "head", "-1"])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_ctrl_c_is_one_line(enclap_command: list[str], tmp_path: Path) -> None:
    long = write_audio(tmp_path / "long.wav", noise(600.0, 8000), 8000)
    target = tmp_path / "captions.txt"
    process = subprocess.Popen(
        [*enclap_command, "caption", str(long), "--output", str(target)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=receive_ctrl_c,
    )
    partial = ".captions.txt.*.partial"
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(partial)) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "enclap: interrupted\n")
    assert not target.exists()
    assert not list(tmp_path.glob(partial))


def test_progress_is_shown_on_a_terminal_only(enclap_command: list[str], tmp_path: Path) -> None:
    paths = [str(write_audio(tmp_path / f"{n}.wav", noise(90.0, 8000), 8000)) for n in range(8)]
    done = on_terminal([*enclap_command, "caption", *paths])
    assert done.returncode == 0
    assert done.stdout.count(".wav") == 8
    assert "\x1b" not in done.stdout
    assert "Traceback" not in done.stderr
    assert "captioning" in done.stderr and "8 files captioned" in done.stderr


def test_the_package_can_be_run_as_a_module(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "enclap", *arguments], capture_output=True, text=True, cwd=tmp_path
        )

    done = run("--version")
    assert (done.returncode, done.stdout[:7]) == (0, "enclap ")
    assert run("caption", "--help").stdout.startswith("Usage: enclap caption ")
    done = run("caption", "gone.wav")
    assert (done.returncode, done.stderr) == (1, "enclap: gone.wav: no such file\n")
