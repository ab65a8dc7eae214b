"""What the program says of itself: its help runs as printed, its completion completes, its versions are right."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cli import Run
from enclap.version import __version__
from sounds import noise, write_audio

EXAMPLE = re.compile(r"^ +enclap (caption .*)$", re.MULTILINE)
WIDTH = 80


def test_every_example_of_the_help_runs_as_printed(enclap: Run, tmp_path: Path) -> None:
    for name in ("doorbell.mp3", "walk.m4a", "recordings/dog.wav", "recordings/deep/cat.wav", "more/film.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_audio(tmp_path / name, noise(0.5, 48_000), 48_000)
    examples = EXAMPLE.findall(enclap("caption", "--help").stdout)
    assert len(examples) >= 5
    for example in examples:
        done = enclap(*shlex.split(example))
        assert done.returncode == 0, f"{example}\n{done.stderr}"
    for name in ("walk.srt", "captions/dog.txt", "captions/deep/cat.json", "captions.csv"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_help_fits_a_terminal_and_names_every_format(enclap: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from enclap.output.formats import FORMATS

    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for arguments in (["--help"], ["caption", "--help"], ["models", "--help"]):
        lines = enclap(*arguments).stdout.splitlines()
        assert max(map(len, lines)) <= WIDTH
    shown = enclap("caption", "--help").stdout
    assert all(re.search(rf"\b{style}\b", shown) for style in FORMATS)


def test_the_help_names_the_engines_limit_of_threads() -> None:
    from enclap.cli import caption_options
    from enclap.engines import MOST_THREADS

    assert caption_options.MOST_THREADS == MOST_THREADS


def test_version_names_model_and_engines(enclap: Run) -> None:
    lines = enclap("--version").stdout.splitlines()
    assert lines[0] == f"enclap {__version__}"
    assert any(re.fullmatch(r"model mini [0-9a-f]{12}", line) for line in lines)
    assert f"engine onnxruntime {version('onnxruntime')}" in lines


COMPLETIONS = [
    ("enclap cap", "caption"),
    ("enclap caption --form", "--format"),
    ("enclap caption --format text,js", "text,jsonl"),
    ("enclap caption --engine o", "onnx"),
]


@pytest.mark.parametrize(("line", "expected"), COMPLETIONS)
def test_the_shell_completes_commands_options_and_choices(
    enclap: Run, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setenv("_ENCLAP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert expected in enclap().stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_shown(enclap: Run, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_ENCLAP_COMPLETE", f"source_{shell}")
    assert "_ENCLAP_COMPLETE" in enclap().stdout


def test_installing_completion_is_offered() -> None:
    program = [sys.executable, "-m", "enclap.cli.main", "--help"]
    assert "--install-completion" in subprocess.run(program, capture_output=True, text=True, check=True).stdout
