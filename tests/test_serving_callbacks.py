"""Callbacks: only to what the operator lists, until they are answered, across restarts, and never the captions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from enclap.captioner import Captioner
from enclap.errors import UsageError
from enclap.serving import callbacks
from enclap.serving.callbacks import callback_is_allowed, parse_prefixes
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from servers import PATIENCE, GatedEngine, Running, running
from sounds import noise, write_audio

PREFIX = "https://app.example/hooks"


class Receiver:
    """A server on loopback that keeps what it is told; statuses: of its next answers, then 204."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.heard.append((self.path, json.loads(body)))
                status = receiver.statuses.pop(0) if receiver.statuses else 204
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def settings(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> ServeSettings:
    monkeypatch.setattr(callbacks, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(callbacks, "WAIT_SECONDS", (0.05, 0.05))
    return ServeSettings(callback_prefixes=(f"{receiver.url}/hooks",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "secret-name.wav", noise(1.0), 16_000)


def submit(server: Running, content: bytes, callback: str, status: int = 202) -> dict[str, Any]:
    answer = server.post("/v1/jobs", files={"file": ("secret-name.wav", content)}, data={"callback": callback})
    assert answer.status_code == status, answer.text
    table: dict[str, Any] = answer.json()
    return table


def settled(server: Running, id: str) -> str:
    end = time.monotonic() + PATIENCE
    while True:
        callback = server.client.get(f"/v1/jobs/{id}").json()["callback"]
        if callback["state"] != "pending":
            return str(callback["state"])
        assert time.monotonic() < end, callback
        time.sleep(0.02)


def test_the_end_of_a_job_is_told_without_a_word_of_it(receiver: Receiver, settings: ServeSettings, path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo"), settings) as server:
        done = submit(server, path.read_bytes(), f"{receiver.url}/hooks/a?token=1")["id"]
        failed = submit(server, b"no sound", f"{receiver.url}/hooks")["id"]
        assert [settled(server, id) for id in (done, failed)] == ["delivered", "delivered"]
    expected = [("/hooks/a?token=1", {"id": done, "state": "done"}), ("/hooks", {"id": failed, "state": "failed"})]
    assert sorted(receiver.heard, key=str) == sorted(expected, key=str)


def test_it_is_tried_again_until_it_is_answered(receiver: Receiver, settings: ServeSettings, path: Path) -> None:
    receiver.statuses = [500, 307]
    with running(Captioner(EchoEngine(), "echo"), settings) as server:
        assert settled(server, submit(server, path.read_bytes(), f"{receiver.url}/hooks/a")["id"]) == "delivered"
    assert [heard for heard, _ in receiver.heard] == ["/hooks/a"] * 3, "a redirect is not followed"


def test_it_is_given_up_in_the_end(receiver: Receiver, settings: ServeSettings, path: Path) -> None:
    receiver.statuses = [500] * 9
    with running(Captioner(EchoEngine(), "echo"), settings) as server:
        assert settled(server, submit(server, path.read_bytes(), f"{receiver.url}/hooks/a")["id"]) == "failed"
    assert len(receiver.heard) == 3


def test_a_server_that_starts_again_sends_what_is_left(
    receiver: Receiver, settings: ServeSettings, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.statuses = [503]
    monkeypatch.setattr(callbacks, "WAIT_SECONDS", (1.0, 1.0))
    with running(Captioner(EchoEngine(), "echo"), settings, tmp_path / "state") as server:
        id = submit(server, path.read_bytes(), f"{receiver.url}/hooks/a")["id"]
        end = time.monotonic() + PATIENCE
        while not receiver.heard:
            assert time.monotonic() < end
            time.sleep(0.01)
    with running(Captioner(EchoEngine(), "echo"), settings, tmp_path / "state") as server:
        assert settled(server, id) == "delivered"
    assert [table for _, table in receiver.heard] == [{"id": id, "state": "done"}] * 2


def test_what_is_listed_no_more_is_told_nothing(
    receiver: Receiver, settings: ServeSettings, path: Path, tmp_path: Path
) -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "same"), settings, tmp_path / "state") as server:
        id = submit(server, path.read_bytes(), f"{receiver.url}/hooks/a")["id"]
        threading.Timer(0.3, engine.let_all_through).start()
    with running(Captioner(EchoEngine(), "same"), ServeSettings(), tmp_path / "state") as server:
        assert settled(server, id) == "failed"
    assert receiver.heard == []


def test_other_addresses_make_no_job(receiver: Receiver, settings: ServeSettings, path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo"), settings) as server:
        for callback in ("https://evil.example/hooks", f"{receiver.url}/other", "file:///etc/passwd", "x"):
            table = submit(server, path.read_bytes(), callback, 400)
            assert table["error"]["code"] == "callback_not_allowed"
        assert server.client.get("/v1/jobs").json() == {"jobs": []}
    with running(Captioner(EchoEngine(), "echo")) as server:
        submit(server, path.read_bytes(), f"{receiver.url}/hooks", 400)


@pytest.mark.parametrize(
    "url", [PREFIX, f"{PREFIX}/", f"{PREFIX}/a/b?x=1&y=../..", "HTTPS://App.Example:443/hooks", f"{PREFIX}?x"]
)
def test_what_lies_below_a_prefix_is_allowed(url: str) -> None:
    assert callback_is_allowed(url, ("http://other.example", PREFIX))


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example/hooks",
        "https://app.example:8443/hooks",
        "https://app.example/",
        "https://app.example/hooks-of-others",
        "https://app.example/Hooks",
        "https://app.example.evil.example/hooks",
        "https://evil.example/hooks",
        "https://app.example@evil.example/hooks",
        "https://evil.example\\@app.example/hooks",
        "https://app.example\t/hooks",
        "https://app.example/hooks/../admin",
        "https://app.example/hooks/%2e%2E/admin",
        "https://app.example/hooks/.%2e/admin",
        "https://app.example/hooks/..;/admin",
        "https://app.example/hooks%2f..%2fadmin",
        "https://app.example/hooks/%252e%252e/admin",
        "https://app.example/hooks//evil.example",
        "https://app.example/hooks/a\\..\\b",
        "https://app.example/hooks#x",
        "https://app.example/hooks/a b",
        "https://app.example/hooks/a\r\nX: y",
        "https://app.example:99999/hooks",
        "https://app.example:x/hooks",
        "https://ápp.example/hooks",
        "//app.example/hooks",
        "file:///hooks",
        "",
    ],
)
def test_what_does_not_lie_below_it_is_refused(url: str) -> None:
    assert not callback_is_allowed(url, (PREFIX,))


def test_a_prefix_of_a_host_alone_holds_all_of_it_and_no_other_host() -> None:
    assert callback_is_allowed("https://app.example/a", ("https://app.example",))
    assert callback_is_allowed("https://app.example", ("https://app.example/",))
    assert not callback_is_allowed("https://app.example.evil.example/a", ("https://app.example",))


@pytest.mark.parametrize("prefix", ["", "*", "app.example", "https://", "ftp://a.example", "https://a.example/x?y"])
def test_a_prefix_that_is_no_address_is_told(prefix: str) -> None:
    with pytest.raises(UsageError, match="--callback-prefix"):
        parse_prefixes([prefix])
