"""Captions over HTTP: the bytes of the command line, whatever runs beside; limits and refusals; clients that vanish."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest

from cli import Run
from enclap.captioner import Captioner, caption_plainly
from enclap.decoding.options import DecodingOptions
from enclap.output.formats import FORMATS, as_table
from enclap.serving import gate
from enclap.serving.captions import FormatName
from enclap.serving.settings import ServeSettings
from enclap.serving.window_queue import EndOfRecording
from fakes import EchoEngine
from servers import PATIENCE, GatedEngine, Running, running
from sounds import noise, write_audio

WINDOW = 0.5  # seconds: the tiny model reads 6


@pytest.fixture(scope="module")
def captioner(tiny_model: Path) -> Captioner:
    return Captioner.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def server(captioner: Captioner) -> Iterator[Running]:
    with running(captioner) as server:
        yield server


@pytest.fixture
def echo() -> Iterator[Running]:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(max_upload=200_000, max_seconds=3, queue=2)) as server:
        yield server


@pytest.fixture
def gated() -> Iterator[tuple[Running, GatedEngine]]:
    engine = GatedEngine()
    with running(Captioner(engine, "gated"), ServeSettings(queue=2)) as server:
        engine.entered.acquire()
        try:
            yield server, engine
        finally:
            engine.let_all_through()


def upload(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path.name, path.read_bytes())) for path in paths]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("style", FORMATS)
def test_a_format_has_the_bytes_of_the_command_line(
    style: str, server: Running, enclap: Run, recording: Callable[..., Path]
) -> None:
    path = recording("dog.wav", seconds=1.7)
    shown = enclap("caption", path.name, "--format", style, "--window", str(WINDOW), "--candidates", "2").stdout
    options = {"window": str(WINDOW), "candidates": "2", "format": style}
    answer = server.post(files=upload(path), data=options)
    assert answer.status_code == 200, answer.text
    assert answer.content.decode() == shown
    raw = server.client.post(
        "/v1/captions",
        params=options | {"filename": "dog.wav"},
        content=path.read_bytes(),
        headers={"Content-Type": "audio/wav"},
    )
    assert raw.content == answer.content


def test_several_recordings_have_the_bytes_of_the_command_line(
    server: Running, enclap: Run, recording: Callable[..., Path]
) -> None:
    paths = [recording(f"{number}.wav", seconds=0.4 * number) for number in (1, 2, 3)]
    shown = enclap("caption", *[path.name for path in paths], "--format", "json", "--window", str(WINDOW)).stdout
    assert server.post(files=upload(*paths), data={"window": str(WINDOW)}).content.decode() == shown


def test_captions_do_not_depend_on_what_runs_beside(server: Running, captioner: Captioner, tmp_path: Path) -> None:
    seconds = [0.3, 0.5, 1.2, 0.5, 2.1, 0.7, 1.0, 0.3]
    paths = [write_audio(tmp_path / f"{n}.wav", noise(s, seed=n), 16_000) for n, s in enumerate(seconds)]
    wide = DecodingOptions(beams=5, candidates=5)
    expected = [
        as_table(caption_plainly(captioner, path, wide if number % 2 else None, WINDOW))["captions"]
        for number, path in enumerate(paths)
    ]

    def asked(number: int) -> object:
        options = {"window": str(WINDOW), "candidates": "5" if number % 2 else "1"}
        return server.post(files=upload(paths[number]), data=options).json()["results"][0]["captions"]

    with ThreadPoolExecutor(len(paths)) as pool:
        for _ in range(2):
            assert list(pool.map(asked, range(len(paths)))) == expected


def test_events_come_while_the_recording_is_captioned(
    gated: tuple[Running, GatedEngine], recording: Callable[..., Path]
) -> None:
    server, engine = gated
    path = recording(seconds=5.0)
    options = {"window": "0.1", "stream": "true"}
    with server.client.stream("POST", "/v1/captions", files=upload(path), data=options) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        engine.permits.release()
        first = [next(lines) for _ in range(2)]
        assert first[0] == "event: caption"
        assert json.loads(first[1].removeprefix("data: "))["declared"] == 5.0
        assert sum(engine.batches) < 50, "the first caption came before all windows were read by the model"
        engine.let_all_through()
        found = events("\n".join([*first, *lines]))
    names = [name for name, _ in found]
    assert names == ["caption"] * 50 + ["recording", "done"]
    spans = [(table["start"], table["end"]) for name, table in found if name == "caption"]
    assert spans[0][0] == 0.0 and all(before[1] == after[0] for before, after in itertools.pairwise(spans))


def test_events_hold_what_the_whole_answer_holds(server: Running, recording: Callable[..., Path]) -> None:
    path = recording(seconds=1.7)
    whole = server.post(files=upload(path), data={"window": str(WINDOW)}).json()["results"][0]
    found = events(server.post(files=upload(path), data={"window": str(WINDOW), "stream": "true"}).text)
    captions = [table for name, table in found if name == "caption"]
    shown = [{key: table[key] for key in whole["captions"][0]} for table in captions]
    assert shown == whole["captions"]
    assert found[-2] == ("recording", {"file": 0, "path": path.name, "duration": whole["duration"]})


def test_a_fault_in_the_middle_of_a_stream_is_its_last_event(echo: Running, tmp_path: Path) -> None:
    path = tmp_path / "damaged.wav"
    write_audio(path, noise(1.0), 16_000)
    answer = echo.post(files=[*upload(path), ("file", ("b.wav", b"no sound"))], data={"stream": "true"})
    name, table = events(answer.text)[-1]
    assert name == "error"
    assert table["error"]["code"] == "audio_unreadable" and "b.wav" in table["error"]["message"]


def wav(seconds: float) -> bytes:
    samples = (noise(seconds) * 32_767).astype("<i2").tobytes()
    size = len(samples)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", size
    )
    return head + samples


def form(content: bytes = wav(0.5), name: str = "a.wav", **options: str) -> dict[str, Any]:
    return {"files": [("file", (name, content))], "data": options}


def body(content: Any, kind: str) -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": kind}}


FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "not audio": (form(b"abc"), 422, "audio_unreadable"),
    "empty": (form(b""), 422, "audio_unreadable"),
    "cut header": (form(wav(0.5)[:20]), 422, "audio_unreadable"),
    "playlist": (form(b"#EXTM3U\nhttp://127.0.0.1:9/a.wav\n", "a.m3u8"), 422, "audio_refused"),
    "too long": (form(wav(4.0)), 422, "audio_refused"),
    "too large": (form(bytes(200_001)), 413, "too_large"),
    "window too short": (form(window="0.01"), 400, "usage_error"),
    "window no number": (form(window="nan"), 400, "invalid_option"),
    "candidates": (form(candidates="65"), 400, "invalid_option"),
    "rerank": (form(rerank="clap"), 400, "rerank_not_available"),
    "format": (form(format="xml"), 400, "invalid_option"),
    "unknown option": (form(beam="3"), 400, "invalid_option"),
    "subtitles of two": (
        {"files": form()["files"] * 2, "data": {"format": "srt"}},
        400,
        "invalid_option",
    ),
    "another part": ({"files": [("other", ("a.wav", wav(0.5)))]}, 400, "unknown_field"),
    "no part": ({"files": [("file", (None, b"text"))]}, 400, "file_missing"),
    "a URL": ({"json": {"url": "http://127.0.0.1/a.wav"}}, 415, "unsupported_media_type"),
    "nothing": ({}, 415, "unsupported_media_type"),
    "malformed": (body(b"--y\r\nfoo", "multipart/form-data; boundary=x"), 400, "malformed_form"),
    "no boundary": (body(b"x", "multipart/form-data"), 400, "malformed_form"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_have_their_status_and_one_shape(name: str, echo: Running) -> None:
    content, status, code = FAULTS[name]
    answer = echo.post(**content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    check_problem(answer)


def check_problem(answer: httpx2.Response) -> None:
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "type", "param", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text and "/tmp" not in answer.text and "site-packages" not in answer.text


def test_an_upload_that_hides_its_size_is_stopped_at_the_limit(echo: Running) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield bytes(10_000)

    answer = echo.post(**body(pieces(), "audio/wav"))
    assert answer.status_code == 413
    check_problem(answer)
    assert sent < 10_000, "the rest was not read"


def test_a_fault_of_the_server_says_nothing_but_that(echo: Running, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    echo.service.captioner.engine.generate = fail  # type: ignore[method-assign]
    answer = echo.post(**form())
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text and "secret" in caplog.text
    check_problem(answer)


def test_a_window_that_the_model_cannot_take_spoils_no_other(captioner: Captioner) -> None:
    engine = EchoEngine()
    whole = engine.extract

    def extract(windows: Any) -> Any:
        if any(len(window.waveform.samples) == 12_000 for window in windows):
            raise RuntimeError("poison")
        return whole(windows)

    with running(Captioner(engine, "echo")) as server:
        engine.extract = extract  # type: ignore[method-assign]
        with ThreadPoolExecutor(6) as pool:
            answers = pool.map(lambda seconds: server.post(**form(wav(seconds))).status_code, [0.5, 0.75] * 3)
            assert list(answers) == [200, 500] * 3


def test_a_full_queue_refuses_at_once_and_serves_later(gated: tuple[Running, GatedEngine]) -> None:
    server, engine = gated
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(server.post, **form()) for _ in range(2)]
        wait_until(lambda: not server.service.has_room)
        began = time.monotonic()
        refused = server.post(**form(bytes(3_000_000)))
        assert time.monotonic() - began < 1.0
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        check_problem(refused)
        assert server.client.get("/healthz").status_code == 200
        engine.let_all_through()
        assert [answer.result().status_code for answer in taken] == [200, 200]
    assert server.post(**form()).status_code == 200


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_client_that_vanishes_stops_its_work(gated: tuple[Running, GatedEngine], stream: str) -> None:
    server, engine = gated
    content = wav(60.0)
    head = f"POST /v1/captions?window=0.1&stream={stream} HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        engine.entered.acquire(timeout=PATIENCE)
    wait_until(lambda: server.service.active == 0)
    engine.let_all_through()
    assert server.post(**form()).status_code == 200
    assert sum(engine.batches) < 60, "at most the batches that were begun, of 600 windows"


def test_a_slow_upload_is_ended_and_keeps_nobody(echo: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "IDLE_SECONDS", 0.5)
    head = "POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: 1000\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", echo.port), timeout=PATIENCE) for _ in range(5)]
    for connection in slow:
        connection.sendall(head.encode() + b"a little")
    assert echo.post(**form()).status_code == 200
    for connection in slow:
        with connection:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 408")


def test_a_client_that_reads_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "IDLE_SECONDS", 0.5)
    content = wav(300.0)
    head = "POST /v1/captions?window=0.1&candidates=64&stream=true HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: audio/wav\r\nContent-Length: {len(content)}\r\n\r\n"
    with running(Captioner(EchoEngine(), "echo")) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head.encode() + content)
        wait_until(lambda: server.service.active == 1)
        wait_until(lambda: server.service.active == 0)
        assert connection.recv(100).startswith(b"HTTP/1.1 200"), "it was answered, and did not read"
        assert 'route="/v1/captions",status="200"' in server.client.get("/metrics").text
        received = sum(len(piece) for piece in iter(lambda: connection.recv(2**20), b""))
    assert received < 300 * 10 * 1000, "the rest was not sent"


def test_a_client_that_vanishes_while_it_sends_is_no_fault(echo: Running, caplog: pytest.LogCaptureFixture) -> None:
    head = "POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", echo.port)) as connection:
        connection.sendall(head.encode() + b"a little")
    gone = 'enclap_requests_total{method="POST",route="/v1/captions",status="499"} 1.0'
    wait_until(lambda: gone in echo.client.get("/metrics").text)
    assert not caplog.records


def test_a_wrong_method_is_told_the_right_ones(echo: Running) -> None:
    for path, allowed in (("/v1/jobs", "GET, POST"), ("/v1/jobs/x", "DELETE, GET"), ("/healthz", "GET")):
        answer = echo.client.put(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        check_problem(answer)


def test_requests_share_batches(gated: tuple[Running, GatedEngine]) -> None:
    server, engine = gated

    def both_are_read() -> bool:  # the first batch waits at the gate, all other windows and both ends in the queue
        streams = list(server.service.worker.windows._streams)
        return len(streams) == 2 and all(
            stream.pending and isinstance(stream.pending[-1], EndOfRecording) for stream in streams
        )

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.post, **form(wav(0.5), window="0.1"))
        second = pool.submit(server.post, **form(wav(0.6), window="0.1"))
        wait_until(both_are_read)
        engine.let_all_through()
        assert first.result().status_code == second.result().status_code == 200
    assert sum(engine.batches) == 1 + 5 + 6
    assert len(engine.batches) <= 1 + 4, "eleven windows in batches of up to four"


def test_the_server_offers_every_format() -> None:
    assert set(get_args(FormatName)) == set(FORMATS)


def test_figures_are_told(echo: Running) -> None:
    assert echo.post(**form(wav(1.0))).status_code == 200
    shown = echo.client.get("/metrics").text
    assert 'enclap_requests_total{method="POST",route="/v1/captions",status="200"} 1.0' in shown
    assert "enclap_audio_seconds_total 1.0" in shown
    assert "enclap_active_requests 0.0" in shown
    assert 'enclap_request_seconds_bucket{le="+Inf",route="/v1/captions"} 1.0' in shown
    assert "enclap_windows_total 1.0" in shown and 'enclap_model_seconds_total{stage="search"}' in shown
    assert "enclap_jobs 0.0" in shown and "enclap_refusal_seconds_count 0.0" in shown


def test_a_server_that_stops_answers_what_it_has_taken() -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "gated")) as server:
        engine.entered.acquire()
        results = []
        post = partial(httpx2.post, f"{server.url}/v1/captions", timeout=PATIENCE, trust_env=False)
        thread = threading.Thread(target=lambda: results.append(post(**form()).status_code))
        thread.start()
        engine.entered.acquire(timeout=PATIENCE)
        threading.Timer(0.5, engine.let_all_through).start()
    thread.join()
    assert results == [200]
