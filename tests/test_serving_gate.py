"""Who is let in: keys, hosts, origins and rates, on every route that there is."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enclap.captioner import Captioner
from enclap.errors import UsageError
from enclap.serving import connections
from enclap.serving.access import (
    KeyRing,
    RateLimit,
    check_exposure,
    host_is_allowed,
    is_loopback,
    origin_is_allowed,
)
from enclap.serving.settings import ServeSettings, parse_aliases, parse_size, read_keys
from fakes import EchoEngine
from servers import PATIENCE, GatedEngine, Running, running
from sounds import noise, write_audio

KEY, OTHER_KEY = "k" * 20, "o" * 20
OPEN = {"/healthz", "/readyz"}


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    settings = ServeSettings(
        keys=(KEY, OTHER_KEY), cors_origins=("https://app.example",), allowed_hosts=("sounds.example",)
    )
    with running(Captioner(EchoEngine(), "echo"), settings) as server:
        yield server


def routes(server: Running) -> list[tuple[str, str]]:
    """Every method and path of the OpenAPI document, and what is not in it."""
    document = server.client.get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    return [*found, ("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/gradio_api/info"), ("POST", "/mcp")]


def test_every_route_asks_for_a_key(locked: Running) -> None:
    assert len(routes(locked)) >= 6
    for method, path in routes(locked):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {KEY}"},
            {"Cookie": "enclap_session=x"},
        ):
            status = locked.client.request(method, path, headers=headers).status_code
            assert (status == 401) == (path not in OPEN), (method, path, status)
        status = locked.client.request(method, path, headers={"Authorization": f"Bearer {OTHER_KEY}"}).status_code
        assert status not in {401, 403}, (method, path)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Host": ""}])
def test_every_route_refuses_a_rebound_name(locked: Running, headers: dict[str, str]) -> None:
    for method, path in routes(locked):
        answer = locked.client.request(method, path, headers={"Authorization": f"Bearer {KEY}", **headers})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://"]
)
def test_every_route_refuses_pages_of_other_sites(locked: Running, origin: str) -> None:
    for method, path in routes(locked):
        answer = locked.client.request(method, path, headers={"Authorization": f"Bearer {KEY}", "Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_a_listed_site_may_call_and_is_told_so(locked: Running) -> None:
    origin = {"Origin": "https://app.example"}
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = locked.client.options("/v1/captions", headers=origin | preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    answer = locked.client.get("/metrics", headers=origin | {"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://app.example"
    assert locked.client.get("/metrics", headers=origin).status_code == 401


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1", "[::1]:80", "192.168.1.5:8000", "sounds.example", "Sounds.Example:1"]
)
def test_addresses_and_listed_names_are_right(host: str) -> None:
    assert host_is_allowed(host, ("sounds.example",))


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "localhost@evil.example", "a b", "[::1", "x:y", "localhost/x"],
)
def test_other_names_are_not(host: str) -> None:
    assert not host_is_allowed(host, ("sounds.example",))


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("https://sounds.example", "sounds.example", True),
        ("https://sounds.example", "sounds.example:443", True),
        ("http://LOCALHOST:8000", "localhost:8000", True),
        ("http://localhost:8001", "localhost:8000", False),
        ("http://127.0.0.1:8000", "localhost:8000", False),
        ("http://evil@localhost:8000", "localhost:8000", False),
        ("ftp://localhost:8000", "localhost:8000", False),
        ("localhost:8000", "localhost:8000", False),
    ],
)
def test_an_origin_is_the_same_site_or_not(origin: str, host: str, allowed: bool) -> None:
    assert origin_is_allowed(origin, host, ()) is allowed


def test_a_request_id_is_kept_or_made(locked: Running) -> None:
    def shown(given: str) -> str:
        return str(locked.client.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"])

    assert shown("mine-1.2_3") == "mine-1.2_3"
    assert shown("a b") != "a b" and len(shown("x" * 65)) == 32


def test_a_rate_holds_for_each_key() -> None:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=(KEY, OTHER_KEY), rate=3)) as server:
        mine, theirs = ({"Authorization": f"Bearer {key}"} for key in (KEY, OTHER_KEY))
        statuses = [server.client.get("/metrics", headers=mine).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert 1 <= int(server.client.get("/metrics", headers=mine).headers["retry-after"]) <= 20
        assert server.client.get("/metrics", headers=theirs).status_code == 200
        assert server.client.get("/healthz").status_code == 200


def test_a_rate_comes_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("enclap.serving.access.time.monotonic", lambda: now[0])
    limit = RateLimit(60)
    assert [limit.wait("a") for _ in range(61)] == [0] * 60 + [1]
    now[0] = 2.0
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 1]


def test_a_session_opens_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("enclap.serving.access.time.monotonic", lambda: now[0])
    keys = KeyRing((KEY,))
    assert keys.open_session("wrong") is None
    token = keys.open_session(KEY)
    assert token is not None and keys.owner(None, token) == keys.owner(f"Bearer {KEY}", None)
    now[0] = 13 * 3600.0
    assert keys.owner(None, token) is None


def test_a_page_of_another_site_can_neither_send_a_form_nor_open_a_session(locked: Running) -> None:
    """What a browser sends without asking first: a form, with the visitor's cookie and the foreign Origin."""
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = locked.client.post("/v1/jobs", files={"file": ("a.wav", b"x")}, headers=foreign)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert locked.client.post("/login", data={"key": KEY}, headers=foreign).status_code == 403


@pytest.mark.parametrize("strips", [True, False])
def test_a_proxy_may_add_a_prefix(strips: bool, tmp_path: Path) -> None:
    """Whether it strips the prefix or passes it on, requests arrive, and answers name the path that clients see."""
    path = write_audio(tmp_path / "a.wav", noise(0.5), 16_000)
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=(KEY,), root_path="/sounds")) as server:
        seen = "" if strips else "/sounds"
        client = {"headers": {"Authorization": f"Bearer {KEY}"}}
        assert server.client.get(f"{seen}/healthz").status_code == 200
        assert server.client.get(f"{seen}/v1/models").status_code == 401
        made = server.post(f"{seen}/v1/jobs", files={"file": path.read_bytes()}, **client)
        assert made.headers["location"] == f"/sounds/v1/jobs/{made.json()['id']}"
        assert server.post(f"{seen}/v1/captions", files={"file": path.read_bytes()}, **client).status_code == 200
        assert server.post(f"{seen}/mcp", json={}, **client).status_code in {400, 406, 415}
        assert server.client.put(f"{seen}/v1/jobs", **client).headers["allow"] == "GET, POST"
        document = server.client.get(f"{seen}/openapi.json", **client).json()
        assert document["servers"] == [{"url": "/sounds"}]


def test_all_that_is_received_stays_below_the_quota(tmp_path: Path) -> None:
    """Uploads of any route count together, while they come; those of waiting jobs count too."""
    content = write_audio(tmp_path / "a.wav", noise(1.0), 16_000).read_bytes()
    head = (
        "POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with running(Captioner(EchoEngine(), "echo"), quota=2 * len(content)) as server:
        post = partial(server.post, content=content, headers={"Content-Type": "audio/wav"})
        assert post().status_code == 200 and post("/v1/jobs").status_code == 202
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as slow:
            slow.sendall(head.encode() + b"%x\r\n" % len(content) + content)
            end = time.monotonic() + PATIENCE
            while (refused := post(content=content + content[: len(content) // 2])).status_code != 429:
                assert time.monotonic() < end
            assert refused.json()["error"]["code"] == "quota_exceeded" and "retry-after" in refused.headers
            slow.sendall(b"\r\n%x\r\n" % (2 * len(content)) + 2 * content)
            assert slow.recv(65_536).startswith(b"HTTP/1.1 429")
        assert post().status_code == 200, "what was received is counted no longer"


def test_a_request_that_breaks_http_ends_nothing(locked: Running) -> None:
    for junk in (
        b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST /v1/captions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", locked.port), timeout=PATIENCE) as connection:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    assert locked.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("host", "is_safe"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("sounds.example", False)],
)
def test_other_machines_need_a_key_or_a_word(host: str, is_safe: bool) -> None:
    assert is_loopback(host) is is_safe
    check_exposure(host, has_keys=True, allow_anonymous=False)
    check_exposure(host, has_keys=False, allow_anonymous=True)
    if is_safe:
        check_exposure(host, has_keys=False, allow_anonymous=False)
    else:
        with pytest.raises(UsageError, match="--api-key-file"):
            check_exposure(host, has_keys=False, allow_anonymous=False)


@pytest.mark.parametrize(("text", "size"), [("512MB", 512 * 2**20), ("1.5 g", 3 * 2**29), ("10", 10), ("2k", 2048)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text, "--max-upload") == size


WRONG: list[Any] = [
    lambda path: parse_size("big", "--max-upload"),
    lambda path: parse_size("0", "--max-upload"),
    lambda path: read_keys(path / "missing"),
    lambda path: read_keys(_written(path / "empty", "# none\n\n")),
    lambda path: read_keys(_written(path / "short", "abc\n")),
    lambda path: parse_aliases(["whisper-1=other"], "mini"),
    lambda path: parse_aliases(["whisper-1"], "mini"),
]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_told(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        wrong(tmp_path)


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    assert read_keys(_written(tmp_path / "keys", f"# mine\n{KEY}\n\n  {OTHER_KEY}  \n")) == (KEY, OTHER_KEY)


def test_a_connection_that_brings_no_whole_head_is_closed_and_one_that_is_answered_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    engine = GatedEngine()
    with running(Captioner(engine, "gated")) as server:

        def connected(*pieces: bytes) -> socket.socket:
            client = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            for piece in pieces:
                client.sendall(piece)
            return client

        answered = connected(asked)
        assert b"200 OK" in answered.recv(10_000)
        answered.sendall(asked[:20])
        for client in (connected(), connected(asked[:30]), answered):
            with client:
                while rest := client.recv(10_000):  # until it is closed
                    assert b"HTTP" not in rest
        body = write_audio(tmp_path / "dog.wav", noise(1.0), 16_000).read_bytes()
        head = (
            f"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: {len(body)}"
        )
        with connected(f"{head}\r\n\r\n".encode(), body[:1000]) as patient:
            time.sleep(1.0)  # longer than a head may take
            patient.sendall(body[1000:])
            assert engine.entered.acquire(timeout=PATIENCE) and engine.entered.acquire(timeout=PATIENCE)
            time.sleep(1.0)
            engine.let_all_through()
            assert patient.recv(10_000).startswith(b"HTTP/1.1 200")
