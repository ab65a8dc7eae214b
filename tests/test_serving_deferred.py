"""Parts that load late: requests wait for them, and one that cannot be loaded ends nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from enclap.captioner import Captioner
from enclap.serving import http
from fakes import EchoEngine
from servers import running


def test_a_part_that_cannot_be_loaded_is_told_and_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(http, "tools_app", fail)
    with running(Captioner(EchoEngine(), "echo")) as server:
        answer = server.post("/mcp", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_available")
        assert "library" not in answer.text
        assert server.client.get("/readyz").status_code == 200


def test_requests_wait_for_a_part_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()
    build = http.tools_app

    def late(*arguments: object) -> object:
        assert loaded.wait(30.0)
        return build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(http, "tools_app", late)
    with running(Captioner(EchoEngine(), "echo")) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, "/mcp", json={})
        assert server.client.get("/readyz").status_code == 200
        assert not asked.done()
        loaded.set()
        assert asked.result().status_code in {400, 406, 415}
