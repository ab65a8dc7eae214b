"""The page: its parts as HTML, what it shows while a recording is captioned, the key, and all of it in a browser."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from enclap.captioner import Captioner
from enclap.serving import page
from enclap.serving.page_parts import PEAKS, captions_html, downloads_html, is_vague, peaks_of, player_html
from enclap.serving.settings import ServeSettings
from enclap.types import Candidate, Caption
from fakes import EchoEngine
from servers import PATIENCE, Running, running
from sounds import noise, write_audio

KEY = "k" * 20
SURE = Caption(0.0, 10.0, "A dog barks.", 0.9, candidates=(Candidate((0, 2), "A dog barks.", 0.9),))
UNSURE = Caption(10.0, 20.0, "Music plays.", 0.05, candidates=(Candidate((0, 2), "A <b>bell</b> rings.", 0.05),))


@pytest.mark.parametrize("samples", [1, 1000, 1024, 5000, 700_000, 3_000_001])
def test_peaks_are_those_of_equal_parts(samples: int) -> None:
    waveform = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    peaks = peaks_of(np.array_split(waveform, 7) if samples > 7 else [waveform])
    step = 1024
    while -(-samples // step) > PEAKS:
        step *= 2
    assert peaks == pytest.approx([np.abs(waveform[at : at + step]).max() for at in range(0, samples, step)])


def test_a_name_cannot_write_into_the_page() -> None:
    name = 'a"><script>alert(1)</script>.mp4'
    for html in (
        player_html(f"/file={name}", name, [0.5]),
        captions_html([UNSURE]),
        downloads_html(name, [UNSURE], "mini"),
    ):
        assert "<script" not in html and "<b>" not in html
        HTMLParser().feed(html)
    assert "<video" in player_html("/file", name, None) and "<audio" in player_html("/file", "a.wav", None)


def test_vague_answers_are_shown_as_such() -> None:
    assert is_vague(UNSURE) and not is_vague(SURE)
    html = captions_html([SURE, UNSURE])
    assert html.count("unsure") == 1 and html.count("<details>") == 1 and html.count("data-start") == 2


def views(server: Running, path: Path | None, **options: Any) -> list[page.View]:
    async def collect() -> list[page.View]:
        return [view async for view in page.caption_views(server.service, path and str(path), **options)]

    return asyncio.run(collect())


def test_views_end_with_the_captions_of_the_captioner(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(3.0), 16_000)
    with running(Captioner(EchoEngine(), "echo")) as server:
        found = views(server, path, window=1.0, candidates=1)
        assert len(found) == 5
        assert tuple(found[-1].captions) == server.service.captioner.caption(path, None, 1.0).captions
        assert found[-1].peaks and found[-1].model == "echo" and server.service.active == 0


def test_faults_are_shown_in_words_and_leave_the_queue(tmp_path: Path) -> None:
    path = tmp_path / "note.wav"
    path.write_bytes(b"no sound")
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(queue=1)) as server:
        for source, options, told in (
            (path, {"window": 1.0, "candidates": 1}, "note.wav: not a sound file"),
            (path, {"window": 0.01, "candidates": 1}, "window of 0.01 s"),
        ):
            last = views(server, source, **options)[-1]
            assert last.is_error and told in last.message and str(tmp_path) not in last.message
        assert "Drop a file" in views(server, None, window=1.0, candidates=1)[-1].message
        server.service.enter()
        assert "the most that this server takes" in views(server, path, window=1.0, candidates=1)[-1].message
        server.service.leave()
        assert server.service.active == 0


def test_the_page_asks_for_the_key() -> None:
    browser = {"Accept": "text/html"}
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=(KEY,)), with_page=True) as server:
        asked = server.client.get("/", headers=browser)
        assert (asked.status_code, asked.headers["location"]) == (303, "/login")
        assert "password" in server.client.get("/login", headers=browser).text
        wrong = server.client.post("/login", data={"key": "wrong"})
        assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
        for path in ("/gradio_api/info", "/config", "/gradio_api/queue/join", "/gradio_api/upload"):
            assert server.client.get(path).status_code == 401, path
        for origin in ("https://evil.example", "null"):
            assert server.client.post("/login", data={"key": KEY}, headers={"Origin": origin}).status_code == 403
        opened = server.client.post("/login", data={"key": KEY})
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and KEY not in cookie
        shown = server.client.get("/", headers=browser)
        assert shown.status_code == 200 and "gradio" in shown.text


def test_the_page_names_no_other_host() -> None:
    with running(Captioner(EchoEngine(), "echo"), with_page=True) as server:
        text = server.client.get("/").text
        sources = re.findall(r"""(?:src|href|url)\s*[=(:]\s*["']?(https?://[^"')\s>]+)""", text)
        assert [source for source in sources if httpx2.URL(source).host != "127.0.0.1"] == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        fake = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=fake)
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_a_person_drops_a_file_and_jumps_to_a_caption(chromium: Any, tmp_path: Path, scheme: str, width: int) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(25.0), 16_000)
    with running(Captioner(EchoEngine(), "echo"), with_page=True) as server:
        view = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
        hosts: set[str] = set()
        faults: list[str] = []
        view.on("request", lambda request: hosts.add(httpx2.URL(request.url).host))
        view.on("pageerror", lambda error: faults.append(str(error)))
        view.goto(server.url)
        view.set_input_files("#upload input[type=file]", path)
        view.wait_for_selector(".enclap-downloads", timeout=PATIENCE * 1000)
        assert view.locator(".enclap-captions li").count() == 3
        view.wait_for_selector("#enclap-wave svg", state="attached")
        view.locator(".enclap-captions button").nth(1).click()
        view.wait_for_selector(".enclap-captions li:nth-child(2) [data-plays]")
        assert 10.0 <= view.evaluate("document.querySelector('#enclap-player audio').currentTime") < 17.5
        assert view.locator("[data-plays] .sentence").inner_text() == view.locator(".sentence").nth(1).inner_text()
        assert view.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
        with view.expect_download() as download:
            view.get_by_role("link", name="srt").click()
        assert download.value.suggested_filename == "dog.srt"
        assert Path(download.value.path()).read_text().startswith("1\n00:00:00,000 --> 00:00:10,000\n")
        if folder := os.environ.get("ENCLAP_SCREENSHOTS"):
            view.screenshot(path=Path(folder) / f"{scheme}.png", full_page=True)
        assert (hosts, faults) == ({"127.0.0.1"}, [])


@pytest.mark.browser
def test_a_person_sees_why_a_file_cannot_be_captioned_then_records(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "note.wav"
    path.write_bytes(b"no sound")
    with running(Captioner(EchoEngine(), "echo"), with_page=True) as server:
        view = chromium.new_context(permissions=["microphone"]).new_page()
        view.goto(server.url)
        view.set_input_files("#upload input[type=file]", path)
        alert = view.get_by_role("alert").filter(has_text="note.wav: not a sound file")
        alert.wait_for(timeout=PATIENCE * 1000)
        for _ in range(2):  # and again after the first
            view.locator("#microphone").get_by_role("button", name="Record").first.click()
            view.wait_for_timeout(1500)
            view.locator("#microphone").get_by_role("button", name="Stop").first.click()
            view.wait_for_selector(".enclap-captions li", timeout=PATIENCE * 1000)
            view.locator("#microphone").get_by_role("button", name="Clear").first.click()
            view.wait_for_selector(".enclap-captions li", state="detached")
