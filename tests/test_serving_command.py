"""`enclap serve` as a process: what it refuses, when it listens, how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cli import Run
from servers import PATIENCE

READY = re.compile(r"enclap: tiny is ready on (http://127\.0\.0\.1:\d+); Ctrl-C stops it")


@pytest.fixture
def process(enclap_command: list[str], tiny_model: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [*enclap_command, "serve", "--port", "0", "--model", str(tiny_model), "--log-requests"]
    command += ["--state-dir", str(tmp_path / "state")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            match = READY.match(process.stderr.readline())
            assert match is not None
            yield process, match[1]
        finally:
            process.kill()


@pytest.mark.slow
def test_it_listens_answers_and_ends_well_when_told_to(process: tuple[subprocess.Popen[str], str]) -> None:
    running, url = process
    answer = httpx2.get(f"{url}/readyz", timeout=PATIENCE, trust_env=False)
    assert answer.json() == {"status": "ready", "model": "tiny"}
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert '"route": "/readyz", "status": 200' in told and "Traceback" not in told


@pytest.mark.slow
def test_ctrl_c_ends_it_as_it_ends_every_command(process: tuple[subprocess.Popen[str], str]) -> None:
    running, _ = process
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert told == "enclap: interrupted\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--host", "0.0.0.0"], "--api-key-file"),
        (["--api-key-file", "missing"], "the keys cannot be read"),
        (["--max-upload", "lots"], "--max-upload lots"),
        (["--ssl-certfile", "missing"], "no such file"),
        (["--model-alias", "whisper-1=other"], "--model-alias"),
    ],
)
def test_wrong_options_are_told_in_one_line(enclap: Run, options: list[str], shown: str) -> None:
    done = enclap("serve", *options)
    assert done.returncode == 2
    assert shown in done.stderr and done.stderr.count("\n") == 1
