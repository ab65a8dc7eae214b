"""Fixtures that every test file may use: recordings made on the spot, and the folder of shared data."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from cli import Done, Run
from enclap.cli.main import main
from hubserver import Hub, serving
from sounds import noise, write_audio

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""PyTorch's threads, here and in the processes that tests start: the files of tests run side by side."""
for variable, value in {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}.items():
    os.environ.setdefault(variable, value)  # with AVX-512, k-means finds other clusters than the golden losses

SHARED = Path(__file__).resolve().parents[2] / "shared"

PROGRAM = """
import sys
from enclap.cli.main import main
if "caption" in sys.argv and "--model" not in sys.argv:
    sys.argv += ["--model", {model!r}]
if __name__ == "__main__":  # not in workers, which import the program again
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
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny model folder with random weights, built once a session; copy it before changing anything.

    Where PyTorch is missing it is a copy of $ENCLAP_TINY_MODEL.
    """
    path = tmp_path_factory.mktemp("model") / "tiny"
    if built := os.environ.get("ENCLAP_TINY_MODEL"):
        return Path(shutil.copytree(built, path))
    from tiny import tiny_model_folder

    return tiny_model_folder(path)


@pytest.fixture(scope="session")
def enclap_command(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that behaves as `enclap` does, with the tiny model as its default."""
    program = tmp_path_factory.mktemp("bin") / "program.py"
    program.write_text(PROGRAM.format(model=str(tiny_model)))
    return [sys.executable, str(program)]


@pytest.fixture
def enclap(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `enclap` inside this process, with the tiny model as its default and tmp_path as its current folder."""

    def run(*arguments: str | Path | bytes, stdin: bytes = b"") -> Done:
        typed = [os.fsdecode(argument) for argument in arguments]
        if "caption" in typed and "--model" not in typed:
            typed += ["--model", str(tiny_model)]
        output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        monkeypatch.setattr(sys, "argv", ["enclap", *typed])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as end:
            main()
        output.flush(), errors.flush()
        return Done(int(end.value.code or 0), output.buffer.getvalue().decode(), errors.buffer.getvalue().decode())

    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process's huggingface_hub talks to, with an empty cache."""
    from huggingface_hub import constants

    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/", 3)[3]
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.address}/{template}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "home" / "assets"))
        yield server


@pytest.fixture
def quick_graphs(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies the tiny model's graphs where the converter would export them anew from the same weights, in seconds."""
    from enclap.convert import convert

    monkeypatch.setattr(convert, "export_folder", lambda folder: shutil.copytree(tiny_model / "onnx", folder / "onnx"))
