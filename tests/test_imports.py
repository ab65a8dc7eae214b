"""What a command loads: nobody pays for what they do not use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sounds import noise, write_audio

PROGRAM = """
import sys
from enclap.cli.main import main
sys.argv = ["enclap", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code
print(code, *sorted(sys.modules), file=sys.stderr)
"""
TRAINING = {"torch", "transformers", "accelerate", "safetensors", "pyarrow", "yaml", "onnx", "scipy"}
MODEL = {"av", "onnxruntime", "tokenizers", "soxr", "huggingface_hub"}


def loaded(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    code, *names = done.stderr.splitlines()[-1].split()
    return int(code), set(names)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["caption", "--help"], ["models", "list"], ["caption", "missing.wav"]]
)
def test_light_commands_load_no_model_and_no_numpy(arguments: list[str]) -> None:
    code, names = loaded(*arguments)
    assert code == (1 if "missing.wav" in arguments else 0)
    light = {"huggingface_hub"} if "list" in arguments else set()  # its constants, which name the cache
    assert not names & (TRAINING | MODEL | {"httpx", "httpx2", "requests"}) - light
    if "caption" not in arguments or "--help" in arguments:
        assert "numpy" not in names


def test_the_public_names_are_there() -> None:
    import enclap

    assert all(getattr(enclap, name) for name in enclap.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        enclap.nothing  # noqa: B018


def test_importing_the_package_loads_next_to_nothing() -> None:
    script = "import sys, enclap; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not set(names.split()) & (TRAINING | MODEL | {"numpy", "pydantic", "typer"})


def test_no_library_begins_to_report_what_is_captioned(tmp_path: Path) -> None:
    """onnxruntime keeps a number of this machine in the home folder once it means to report."""
    sound = write_audio(tmp_path / "dog.wav", noise(1.0), 16_000)
    home = tmp_path / "home"
    home.mkdir()
    off = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"}  # each of them silences it too
    environment = {name: value for name, value in os.environ.items() if name not in off} | {"HOME": str(home)}
    command = [sys.executable, "-m", "enclap", "caption", str(sound)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = [path.name for path in home.rglob("*") if path.is_file()]
    assert not {"deviceid", "onnxruntime.db"} & set(kept)
