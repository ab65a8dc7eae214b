"""Fixtures that every test file may use: recordings made on the spot, and the folder of shared data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import Run
from sounds import noise, write_audio

SHARED = Path(__file__).resolve().parents[2] / "shared"

PROGRAM = """
import sys
from enclap.cli.main import main
if "caption" in sys.argv and "--model" not in sys.argv:
    sys.argv += ["--model", {model!r}]
main()
"""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared beside the clone; a test that needs it fails where it is missing."""
    if not SHARED.is_dir():
        pytest.fail(f"{SHARED} is missing: run `make test` for the tests that need no shared data")
    return SHARED


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of seeded noise: recording("dog.wav", seconds=1.0, rate=16000, channels=1)."""

    def make(name: str = "noise.wav", *, seconds: float = 1.0, rate: int = 16_000, channels: int = 1) -> Path:
        return write_audio(tmp_path / name, noise(seconds, rate, channels), rate)

    return make


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny model folder with random weights, built once a session; copy it before changing anything."""
    from tiny import tiny_model_folder

    return tiny_model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder with random weights."""
    from tiny import tiny_model_folder

    return tiny_model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def enclap_command(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that behaves as `enclap` does, with the tiny model as its default."""
    program = tmp_path_factory.mktemp("bin") / "program.py"
    program.write_text(PROGRAM.format(model=str(tiny_model)))
    return [sys.executable, str(program)]


@pytest.fixture
def enclap(enclap_command: list[str], tmp_path: Path) -> Run:
    """Runs `enclap` in a process whose current folder is tmp_path."""

    def run(*arguments: str | Path | bytes, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*enclap_command, *arguments], input=stdin, capture_output=True, cwd=tmp_path, timeout=100
        )
        output, errors = done.stdout.decode(), done.stderr.decode()  # strictly: all that is written is UTF-8
        return subprocess.CompletedProcess(done.args, done.returncode, output, errors)

    return run
