"""`enclap serve` as a process: what it refuses, when it listens, how it ends, HTTPS."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from cli import Run
from enclap.cli.serve import MODEL_NICENESS
from servers import PATIENCE
from sounds import noise, write_audio

READY = re.compile(r"enclap: tiny is ready on (https?://127\.0\.0\.1:\d+); Ctrl-C stops it")
Process = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def start(enclap_command: list[str], tiny_model: Path, tmp_path: Path) -> Callable[..., object]:
    """A server with more options, and its address."""

    @contextmanager
    def started(*options: str) -> Iterator[Process]:
        command = [*enclap_command, "serve", "--port", "0", "--model", str(tiny_model), "--no-page"]
        command += ["--state-dir", str(tmp_path / "state"), *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                line = process.stderr.readline()
                match = READY.match(line)
                assert match is not None, line + process.stderr.read()
                yield process, match[1]
            finally:
                process.kill()

    return started


@pytest.mark.slow
def test_it_listens_answers_and_ends_well_when_told_to(start: Callable[..., object], tmp_path: Path) -> None:
    path = write_audio(tmp_path / "secret-name.wav", noise(0.5), 16_000)
    with start("--log-requests") as (process, url):  # type: ignore[attr-defined]
        if sys.platform == "linux":  # a busy model delays no answer
            threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
            priorities = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
            answering = priorities[process.pid]
            assert list(priorities.values()).count(min(19, answering + MODEL_NICENESS)) >= 2
        with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            assert client.get("/readyz").json() == {"status": "ready", "model": "tiny"}
            name = {"files": {"file": (path.name, path.read_bytes())}, "params": {"window": "0.5"}}
            assert client.post("/v1/captions", headers={"X-Request-Id": "mine"}, **name).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert '"route": "/readyz", "status": 200' in told and "Traceback" not in told
    assert '"request_id": "mine", "method": "POST", "route": "/v1/captions", "status": 200' in told
    assert "secret-name" not in told and "0.5" not in told.split('"mine"')[0]


@pytest.mark.slow
def test_ctrl_c_ends_it_as_it_ends_every_command(start: Callable[..., object]) -> None:
    with start() as (process, _):  # type: ignore[attr-defined]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert told == "enclap: interrupted\n"


@pytest.mark.slow
@pytest.mark.parametrize(("grace", "seconds", "is_finished"), [("100", 10.0, True), ("0", 120.0, False)])
def test_a_stop_waits_for_what_runs_and_refuses_the_new(
    start: Callable[..., object], tmp_path: Path, grace: str, seconds: float, is_finished: bool
) -> None:
    path = write_audio(tmp_path / "long.wav", noise(seconds), 16_000)
    with start("--grace", grace) as (process, url):  # type: ignore[attr-defined]
        with httpx2.Client(base_url=url, timeout=100, trust_env=False) as client:
            content = {"files": {"file": path.read_bytes()}, "data": {"window": "0.1", "stream": "true"}}
            with client.stream("POST", "/v1/captions", **content) as answer:
                lines = answer.iter_lines()
                assert next(lines) == "event: caption"
                process.send_signal(signal.SIGTERM)
                try:
                    rest = list(lines)
                except httpx2.RemoteProtocolError:
                    rest = []
        assert ("event: done" in rest) is is_finished
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/healthz", trust_env=False)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in told, told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_server_loses_no_job_and_does_no_window_twice(start: Callable[..., object], tmp_path: Path) -> None:
    path = write_audio(tmp_path / "long.wav", noise(4.0), 16_000)
    content = {"files": {"file": path.read_bytes()}, "data": {"window": "0.1"}}
    before: dict[str, list[object]] = {}
    with start() as (process, url):  # type: ignore[attr-defined]
        with httpx2.Client(base_url=url, timeout=100, trust_env=False) as client:
            ids = [client.post("/v1/jobs", **content).json()["id"] for _ in range(10)]
            while not any(before.values()):
                before = {id: client.get(f"/v1/jobs/{id}").json()["captions"] for id in ids}
        process.send_signal(signal.SIGKILL)
        process.wait()
    with (
        start() as (_, url),  # type: ignore[attr-defined]
        httpx2.Client(base_url=url, timeout=100, trust_env=False) as client,
    ):
        for id in ids:
            while (job := client.get(f"/v1/jobs/{id}").json())["state"] not in {"done", "failed"}:
                time.sleep(0.05)
            assert job["state"] == "done" and job["captions"][: len(before[id])] == before[id]
            starts = [caption["start"] for caption in job["captions"]]
            assert starts == sorted(set(starts)) and len(starts) == 40
        figures = client.get("/metrics").text
    [done] = re.findall(r"^enclap_windows_total (\S+)", figures, re.MULTILINE)
    kept = sum(map(len, before.values()))
    assert float(done) <= 10 * 40 - kept, "what was kept is not captioned again"


@pytest.mark.slow
def test_it_speaks_https_with_a_certificate(start: Callable[..., object], tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    keys = tmp_path / "keys.txt"
    keys.write_text("k" * 20)
    options = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--api-key-file", str(keys), "--page"]
    with start(*options) as (_, url):  # type: ignore[attr-defined]
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate))
        with httpx2.Client(base_url=url, verify=trusting, timeout=PATIENCE, trust_env=False) as client:
            answer = client.post("/login", data={"key": "k" * 20}, headers={"Origin": url})
            assert answer.status_code == 303
            assert {"Secure", "HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
            assert client.get("/v1/models").status_code == 200, "the session opens the other routes too"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url, timeout=PATIENCE, trust_env=False)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--host", "0.0.0.0"], "--api-key-file"),
        (["--api-key-file", "missing"], "the keys cannot be read"),
        (["--max-upload", "lots"], "--max-upload lots"),
        (["--ssl-certfile", "missing"], "no such file"),
        (["--model-alias", "whisper-1=other"], "--model-alias"),
        (["--callback-prefix", "app.example"], "--callback-prefix app.example"),
    ],
)
def test_wrong_options_are_told_in_one_line(enclap: Run, options: list[str], shown: str) -> None:
    done = enclap("serve", *options)
    assert done.returncode == 2
    assert shown in done.stderr and done.stderr.count("\n") == 1
