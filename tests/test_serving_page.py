"""The page: its parts as HTML, its recordings, what it shows while one is captioned, the key, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import re
import tomllib
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from enclap.captioner import Captioner
from enclap.decoding.options import DecodingOptions
from enclap.errors import AudioEmpty
from enclap.output.formats import FORMATS
from enclap.serving import page_recordings
from enclap.serving.failures import answer_failures
from enclap.serving.page_parts import (
    caption_row,
    downloads_html,
    is_vague,
    pictures_html,
    player_html,
    progress_html,
    table_html,
)
from enclap.serving.page_pictures import PEAKS, Outline, outline_of, peaks_of, spectrogram_png
from enclap.serving.page_recordings import RECORDINGS, LiveFile, LiveSound, PageRecordings
from enclap.serving.page_routes import EXAMPLES, MOST_ROWS, page_routes
from enclap.serving.page_views import View, caption_views
from enclap.serving.problems import RequestRefused
from enclap.serving.settings import ServeSettings
from enclap.types import Block, Candidate, Caption
from fakes import EchoEngine
from servers import PATIENCE, GatedEngine, Running, running
from sounds import noise, write_audio

LOADING = 110.0  # seconds that Gradio may take to load on a machine that is busy
KEY, OTHER_KEY = "k" * 20, "o" * 20
RATE = 16_000
SURE = Caption(0.0, 10.0, "A dog barks.", 0.9, candidates=(Candidate((0, 2), "A dog barks.", 0.9),))
UNSURE = Caption(10.0, 20.0, "Music plays.", 0.05, candidates=(Candidate((0, 2), "A <b>bell</b> rings.", 0.05),))


def loaded(server: Running) -> Running:
    """The server, once its page is there."""
    assert server.client.get("/login", timeout=LOADING).status_code == 200
    server.client.get("/config", timeout=LOADING)
    return server


@pytest.fixture(scope="module")
def page() -> Iterator[Running]:
    """A server with the page that asks for no key."""
    with running(Captioner(EchoEngine(), "echo"), with_page=True) as server:
        yield loaded(server)


@pytest.fixture(scope="module")
def locked_page() -> Iterator[Running]:
    """A server with the page that knows two keys."""
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=(KEY, OTHER_KEY)), with_page=True) as server:
        server.client.get("/config", headers={"Authorization": f"Bearer {KEY}"}, timeout=LOADING)
        yield loaded(server)


@pytest.mark.parametrize("samples", [1, 1000, 1024, 5000, 700_000, 3_000_001])
def test_peaks_are_those_of_equal_parts(samples: int) -> None:
    waveform = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    pieces = np.array_split(waveform, 7) if samples > 7 else [waveform]
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    peaks, end = peaks_of(Block(piece, int(start)) for piece, start in zip(pieces, starts, strict=False))
    step = 1024
    while -(-samples // step) > PEAKS:
        step *= 2
    assert peaks == pytest.approx([np.abs(waveform[at : at + step]).max() for at in range(0, samples, step)])
    assert end == samples


def test_a_gap_in_the_sound_is_a_gap_in_the_waveform() -> None:
    sound = np.full(4096, 0.5, np.float32)
    peaks, end = peaks_of([Block(sound, 4096), Block(sound, 3 * 4096)])
    assert end == 4 * 4096 and peaks == [0.0] * 4 + [0.5] * 4 + [0.0] * 4 + [0.5] * 4


def test_a_spectrogram_is_light_where_a_tone_is(tmp_path: Path) -> None:
    seconds = np.arange(4 * RATE) / RATE
    tone = np.where(seconds < 2, np.sin(2 * np.pi * 1000 * seconds), 0.1 * np.sin(2 * np.pi * 100 * seconds))
    path = write_audio(tmp_path / "tone.wav", (0.5 * tone[:, None]).astype(np.float32), RATE)
    limits = ServeSettings().read_limits
    outline = outline_of(str(path), limits)
    assert outline.seconds == pytest.approx(4.0) and list(outline.marks) == ["100 Hz", "1 kHz"]
    light = np.asarray(Image.open(io.BytesIO(spectrogram_png(str(path), limits, outline.seconds))).convert("L"))[::-1]
    bands, columns = light.shape
    first, second = (int(np.median(np.argmax(light[:, part], axis=0))) for part in (slice(50, 550), slice(650, 1150)))
    assert (bands, columns) == (64, 1200)
    assert first == pytest.approx(outline.marks["1 kHz"] * bands, abs=1.5)
    assert second == pytest.approx(outline.marks["100 Hz"] * bands, abs=1.5)


def test_a_name_cannot_write_into_the_page() -> None:
    name = 'a"><script>alert(1)</script>.mp4'
    outline = Outline([0.5], 1.0, {"1 kHz": 0.5})
    for html in (
        player_html(f"/file={name}", name),
        pictures_html(outline, name),
        caption_row(UNSURE),
        table_html([UNSURE]),
        downloads_html(name),
    ):
        assert "<script" not in html and "<b>" not in html
        HTMLParser().feed(html)
    assert "<video" in player_html("/file", name) and "<audio" in player_html("/file", "a.wav")


def test_vague_answers_and_scores_are_shown_as_such() -> None:
    assert is_vague(UNSURE) and not is_vague(SURE)
    assert "unsure" in caption_row(UNSURE) and 'value="0.0500"' in caption_row(UNSURE)
    assert "unsure" not in caption_row(SURE) and "<details>" not in caption_row(SURE)
    likelihood = Caption(0.0, 1.0, "A", -3.0, candidates=(Candidate((0,), "A", -3.0), Candidate((1,), "B", -4.0)))
    assert "<meter" not in caption_row(likelihood) and "-3.00" in caption_row(likelihood)


def test_progress_has_a_bar_only_where_the_length_is_believable() -> None:
    assert 'max="60.0" value="20.0"' in progress_html(20.0, 60.0)
    for declared in (None, 10.0):
        assert "<progress" not in progress_html(20.0, declared) and "0:20.0" in progress_html(20.0, declared)


class NoOwner:
    """What stands in for the gate: nobody has a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {}).update(owner=None, request_id="")
        await self._app(scope, receive, send)


async def pieces_of(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 50_000):
        yield content[at : at + 50_000]


async def collected(server: Running, recordings: PageRecordings, id: str, **options: Any) -> list[View]:
    """A view as it was when it was shown: the number of its captions and itself, which is the last."""
    options = {"window": 1.0, "candidates": 1, **options}
    return [view async for view in caption_views(server.service, recordings, id, None, **options)]


def views(server: Running, path: Path, **options: Any) -> list[View]:
    async def collect() -> list[View]:
        recordings = PageRecordings(server.service.settings)
        recording = await recordings.receive(path.name, None, pieces_of(path.read_bytes()))
        return await collected(server, recordings, recording.id, **options)

    return asyncio.run(collect())


def test_views_end_with_the_captions_of_the_captioner(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(3.0), RATE)
    with running(Captioner(EchoEngine(), "echo")) as server:
        found = views(server, path)
        assert len(found) == 5
        assert tuple(found[-1].captions) == server.service.captioner.caption(path, None, 1.0).captions
        assert found[-1].outline and found[-1].is_done and server.service.active == 0
        assert found[-1].message == "dog.wav: 0:03.0, 3 captions"
        assert found[-1].rows == [caption_row(caption) for caption in found[-1].captions]


def test_a_caption_costs_the_page_the_same_after_an_hour_as_after_a_minute() -> None:
    view = View(address="/page/recordings/id", outline=Outline([0.5] * PEAKS, 3600.0, {}), declared=3600.0)

    def cost_of_one_more() -> int:
        before = view.outputs()
        view.captions.append(replace(SURE, start=10.0 * len(view.captions), end=10.0 * len(view.captions) + 10.0))
        view.rows.append(caption_row(view.captions[-1]))
        return sum(len(str(new)) for old, new in zip(before, view.outputs(), strict=True) if new != old)

    costs = [cost_of_one_more() for _ in range(360)]
    assert max(costs) - min(costs) <= 10, "digits alone"


def test_new_rows_are_fetched_in_bounded_answers_and_those_of_an_older_run_are_gone(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(6.0), RATE)

    async def ask(server: Running) -> None:
        recordings = PageRecordings(server.service.settings)
        recording = await recordings.receive("dog.wav", None, pieces_of(path.read_bytes()))
        runs = [(await collected(server, recordings, recording.id, window=0.1))[-1] for _ in range(2)]
        application = FastAPI(middleware=[Middleware(NoOwner)])
        answer_failures(application)
        application.include_router(page_routes(server.service, recordings))
        transport = httpx2.ASGITransport(application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def rows(run: str, first: int) -> httpx2.Response:
                query: dict[str, Any] = {"run": run, "first": first}
                return await client.get(f"{RECORDINGS}/{recording.id}/rows", params=query)

            fetched: list[str] = []
            while new := (await rows(runs[1].run, len(fetched))).json()["rows"]:
                assert len(new) <= MOST_ROWS
                fetched += new
            assert fetched == runs[1].rows and len(fetched) == 60
            assert (await rows(runs[0].run, 0)).json()["error"]["code"] == "captioned_again"
            assert (await rows(runs[1].run, -1)).status_code == 400

    with running(Captioner(EchoEngine(), "echo")) as server:
        asyncio.run(ask(server))


def test_faults_are_shown_in_words_and_leave_the_queue(tmp_path: Path) -> None:
    path = tmp_path / "note.wav"
    path.write_bytes(b"no sound")
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(queue=1)) as server:
        for options, told in (({}, "note.wav: not a sound file"), ({"window": 0.01}, "window of 0.01 s")):
            last = views(server, path, **options)[-1]
            assert last.is_error and told in last.message and str(tmp_path) not in last.message
        for id, told in (("", "Drop a sound"), ("gone", "no longer here")):
            last = asyncio.run(collected(server, PageRecordings(ServeSettings()), id))[-1]
            assert told in last.message
        server.service.enter()
        assert "the most that this server takes" in views(server, path)[-1].message
        server.service.leave()
        assert server.service.active == 0


def test_who_stops_looking_leaves_the_queue(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(3.0), RATE)
    engine = GatedEngine()

    async def look(server: Running) -> None:
        recordings = PageRecordings(server.service.settings)
        recording = await recordings.receive("dog.wav", None, pieces_of(path.read_bytes()))
        shown = caption_views(server.service, recordings, recording.id, None, 1.0, 1)
        await anext(shown)
        assert server.service.active == 1
        await shown.aclose()

    with running(Captioner(engine, "echo")) as server:
        asyncio.run(look(server))
        assert server.service.active == 0
        engine.let_all_through()


def sound_of(seconds: float) -> bytes:
    return np.round(noise(seconds)[:, 0] * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()


def test_what_is_recorded_is_captioned_while_it_comes_and_as_its_file_is(tmp_path: Path) -> None:
    content, piece = sound_of(3.0), 2 * RATE // 4  # a quarter of a second

    async def record(server: Running) -> tuple[list[int], View, bytes]:
        recordings = PageRecordings(server.service.settings)
        recording = recordings.begin("Recording.wav", None, RATE)
        counts: list[int] = []
        shown = caption_views(server.service, recordings, recording.id, None, 1.0, 1)
        view = await anext(shown)
        for at in range(0, len(content), piece):
            assert await recordings.append(recording, at, content[at : at + piece]) == at + piece
            if (at + piece) % (4 * piece) == 0:  # a whole second: its caption comes before the next one
                await asyncio.wait_for(anext(shown), PATIENCE)
                counts.append(len(view.captions))
                assert view.is_live and not view.outputs()[2], "there is nothing to play yet"
        recording.end()
        last = [view async for view in shown][-1]
        return counts, last, recording.path.read_bytes()

    with running(Captioner(EchoEngine(), "echo")) as server:
        counts, last, file = asyncio.run(record(server))
        assert counts == [1, 2, 3] and last.is_done and last.outline is not None
        assert tuple(last.captions) == server.service.captioner.caption(file, None, 1.0).captions
    with wave.open(io.BytesIO(file)) as finished:
        assert (finished.getframerate(), finished.getnframes()) == (RATE, 3 * RATE)
        assert finished.readframes(3 * RATE) == content


def live(tmp_path: Path, **settings: Any) -> LiveSound:
    return LiveSound(tmp_path / "live", RATE, ServeSettings(**settings).read_limits)


def test_sound_that_is_sent_again_is_passed_over_and_what_is_missing_is_refused(tmp_path: Path) -> None:
    sound, content = live(tmp_path), sound_of(0.5)
    assert sound.append(0, content[:6000]) == 6000
    assert sound.append(0, content[:6000]) == 6000
    assert sound.append(4000, content[4000:]) == len(content)
    for at, piece in ((len(content) + 2, b"ab"), (len(content), b"a"), (-2, b"ab")):
        with pytest.raises(RequestRefused, match="missing"):
            sound.append(at, piece)
    sound.end()
    assert (tmp_path / "live").read_bytes()[44:] == content
    with pytest.raises(RequestRefused, match="has ended"):
        sound.append(len(content), b"ab")


@pytest.mark.parametrize("settings", [{"max_seconds": 1.0}, {"max_upload": 2 * RATE + 44}])
def test_a_recording_that_grows_too_long_ends_and_keeps_what_it_has(tmp_path: Path, settings: dict[str, Any]) -> None:
    sound = live(tmp_path, **settings)
    sound.append(0, sound_of(1.0))
    with pytest.raises(RequestRefused, match="has 1 s at most"):
        sound.append(2 * RATE, b"ab")
    assert sound.has_ended and sound.wait_for(2 * RATE) == RATE


def test_a_microphone_that_falls_silent_for_long_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_recordings, "UNHEARD_SECONDS", 0.2)
    sound = live(tmp_path)
    sound.append(0, sound_of(1.5))
    captioner = Captioner(EchoEngine(), "echo")
    file = LiveFile(sound.path.open("rb"), "Recording.wav", sound)
    windows = [window for window, _ in file.windows(captioner, 1.0, ServeSettings().read_limits)]
    assert [(window.start, window.end) for window in windows] == [(0.0, 1.0), (1.0, 1.5)] and sound.has_ended
    file.close()
    nothing = LiveSound(tmp_path / "nothing", RATE, ServeSettings().read_limits)
    nothing.end()
    empty = LiveFile(nothing.path.open("rb"), "Recording.wav", nothing)
    with pytest.raises(AudioEmpty, match="no sound came"):
        next(empty.windows(captioner, 1.0, ServeSettings().read_limits))
    empty.close()


def held(work: Callable[[PageRecordings], Any], **settings: Any) -> Any:
    async def begin() -> Any:
        return await work(PageRecordings(ServeSettings(**settings)))

    return asyncio.run(begin())


def test_recordings_are_bounded_replaced_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_recordings, "QUOTA", 150_000)
    monkeypatch.setattr(page_recordings, "LINGER_SECONDS", 0.05)

    async def fill(recordings: PageRecordings) -> None:
        first = await recordings.receive("a", None, pieces_of(bytes(100_000)))
        with pytest.raises(RequestRefused, match="no room"):
            await recordings.receive("b", None, pieces_of(bytes(100_000)))
        assert [path.name for path in first.path.parent.iterdir()] == [first.id], "a refused one leaves nothing"
        recordings.forget(first.id, "somebody else")
        assert recordings.find(first.id, None) is first
        recordings.forget(first.id, None)
        monkeypatch.setattr(page_recordings, "KEPT_SECONDS", 0.05)
        second = await recordings.receive("b", None, pieces_of(bytes(100_000)))
        speaking = recordings.begin("Recording.wav", None, RATE)
        await asyncio.sleep(0.3)
        assert recordings.find(speaking.id, None) is speaking, "kept while it is being made"
        speaking.end()
        await asyncio.sleep(0.3)
        for id in (first.id, second.id, speaking.id):
            with pytest.raises(RequestRefused, match="no longer here"):
                recordings.find(id, None)
        assert list(first.path.parent.iterdir()) == []

    held(fill)


def sent(server: Running, content: bytes, name: str = "dog.wav", key: str | None = None, **query: str) -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = server.post(RECORDINGS, content=content, params={"name": name, **query}, headers=headers)
    assert answer.status_code == 201, answer.text
    return f"{RECORDINGS}/{answer.json()['id']}"


def test_a_recording_comes_back_in_parts_and_never_as_a_page(page: Running, tmp_path: Path) -> None:
    content = write_audio(tmp_path / "dog.wav", noise(1.0), RATE).read_bytes()
    address = sent(page, content)
    part = page.client.get(f"{address}/sound", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")
    assert part.headers["content-type"].startswith("audio/")
    picture = page.client.get(f"{address}/spectrogram", params={"seconds": 1.0})
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    for name in ("a.html", "a.svg", "a", "é\n.xhtml"):
        headers = page.client.get(f"{sent(page, b'<script>alert(1)</script>', name)}/sound").headers
        assert headers["content-type"] == "application/octet-stream", name
        assert "sandbox" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    sent(page, content, replaces=address.rpartition("/")[2])
    assert page.client.get(f"{address}/sound").status_code == 404


def test_captions_are_taken_away_in_the_bytes_of_the_command_line(page: Running, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(3.0), RATE)

    async def whole(recordings: PageRecordings, server: Running) -> Any:
        recording = await recordings.receive("dog.wav", None, pieces_of(path.read_bytes()))
        await collected(server, recordings, recording.id, candidates=3)
        return recording.result

    address = sent(page, path.read_bytes())
    early = page.client.get(f"{address}/captions", params={"format": "srt"})
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_done")
    result = asyncio.run(whole(PageRecordings(page.service.settings), page))
    options = DecodingOptions(beams=4, candidates=3)
    expected = page.service.captioner.caption(path, options, 1.0)
    for style, form in FORMATS.items():
        given, wanted = (b"".join(form.encoded([item], "echo")) for item in (result, replace(expected, path="dog.wav")))
        assert given == wanted, style


def test_another_key_finds_no_recording_and_no_key_nothing(locked_page: Running, tmp_path: Path) -> None:
    content = write_audio(tmp_path / "dog.wav", noise(1.0), RATE).read_bytes()
    address = sent(locked_page, content, key=KEY)
    for key, status in ((KEY, 200), (OTHER_KEY, 404), ("x", 401)):
        headers = {"Authorization": f"Bearer {key}"}
        assert locked_page.client.get(f"{address}/sound", headers=headers).status_code == status
    assert locked_page.post(RECORDINGS, content=content).status_code == 401


def test_the_microphone_over_http(page: Running, tmp_path: Path) -> None:
    begun = page.post(f"{RECORDINGS}/live", params={"rate": RATE})
    address = f"{RECORDINGS}/{begun.json()['id']}"
    content = sound_of(1.0)
    answer = page.client.patch(address, params={"at": 0}, content=content)
    assert answer.json() == {"bytes": len(content)}
    last = page.client.patch(address, params={"at": len(content), "last": True}, content=b"")
    assert last.json() == {"bytes": len(content)}
    ended = page.client.patch(address, params={"at": len(content)}, content=b"ab")
    assert (ended.status_code, ended.json()["error"]["code"]) == (409, "recording_ended")
    assert page.client.get(f"{address}/sound").content[44:] == content
    for rate in (0, 10**9):
        assert page.post(f"{RECORDINGS}/live", params={"rate": rate}).status_code == 400
    much = page.client.patch(address, params={"at": 0}, content=bytes(9 * 2**20))
    assert much.status_code == 413


def test_the_wheel_takes_the_examples_of_the_page_along() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {name for name in taken if name.startswith("examples/")} == {f"examples/{name}" for name in EXAMPLES}
    assert all(taken[f"examples/{name}"] == f"enclap/serving/examples/{name}" for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_come_with_the_package_and_are_captioned(page: Running, name: str) -> None:
    address = sent(page, b"", example=name)
    assert page.service.captioner.caption(page.client.get(f"{address}/sound").content).captions
    refused = page.post(RECORDINGS, params={"example": f"../{name}"})
    assert refused.status_code == 404 and "there are" in refused.json()["error"]["message"]


def test_the_page_asks_for_the_key(locked_page: Running) -> None:
    browser = {"Accept": "text/html"}
    asked = locked_page.client.get("/", headers=browser)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login")
    assert "password" in locked_page.client.get("/login", headers=browser).text
    wrong = locked_page.client.post("/login", data={"key": "wrong"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    for path in ("/gradio_api/info", "/config", "/gradio_api/queue/join", "/gradio_api/upload"):
        assert locked_page.client.get(path).status_code == 401, path
    for origin in ("https://evil.example", "null"):
        assert locked_page.client.post("/login", data={"key": KEY}, headers={"Origin": origin}).status_code == 403
    opened = locked_page.client.post("/login", data={"key": KEY})
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and KEY not in cookie
    shown = locked_page.client.get("/", headers=browser)
    assert shown.status_code == 200 and "gradio" in shown.text


def test_the_page_names_no_other_host_and_no_path_of_the_server(page: Running, tmp_path: Path) -> None:
    texts = [page.client.get(path).text for path in ("/", "/config", "/gradio_api/info")]
    texts.append(page.post(RECORDINGS, content=b"no sound").text)
    sources = re.findall(r"""(?:src|href|url)\s*[=(:]\s*["']?(https?://[^"')\s>]+)""", texts[0])
    assert [source for source in sources if httpx2.URL(source).host != "127.0.0.1"] == []
    assert all("enclap-page-" not in text and "site-packages" not in text for text in texts)


@pytest.mark.parametrize("prefix", ["", "/gradio_api"])
def test_routes_of_gradio_that_take_tell_or_fetch_files_are_closed(page: Running, tmp_path: Path, prefix: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (f"/file={secret}", f"/proxy=http://127.0.0.1:{page.port}/healthz", "/upload_progress?upload_id=1"):
        answer = page.client.get(prefix + path)
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found", path
    answer = page.post(f"{prefix}/upload", files={"files": ("a.wav", b"abc")})
    assert answer.status_code == 404
