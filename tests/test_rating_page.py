"""The rating page: what it shows and keeps, who is let in, and two people who rate in a browser."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

import browsers
from enclap.evaluation.captioning.tables import ClipCaptions
from enclap.rating.answers import ANSWERS, AnswerStore
from enclap.rating.page import DONE, INCOMPLETE, Position, RatingPage
from enclap.rating.scales import SCALE_NAMES
from enclap.rating.server import COOKIE, build_app
from enclap.rating.study import Study, choose_clips, open_study
from ratings import CLIPS, FIRST, HUMAN, SECOND, study_files
from servers import PATIENCE

RATERS = 2
CAPTIONS = 11  # four clips with captions of two systems and a person; two systems share one


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study_files(tmp_path)
    systems = {
        name: [ClipCaptions(clip, (text,)) for clip, text in zip(CLIPS, texts, strict=True)]
        for name, texts in (("first", FIRST), ("other", SECOND))
    }
    references = [ClipCaptions(clip, (text,)) for clip, text in zip(CLIPS, HUMAN, strict=True)]
    clips = choose_clips(systems, references, 100, 0)
    return open_study(tmp_path / "ratings", clips, tmp_path / "sounds", 0, RATERS)


@pytest.fixture
def answers(study: Study, tmp_path: Path) -> Iterator[AnswerStore]:
    with closing(AnswerStore(tmp_path / "ratings" / ANSWERS)) as store:
        yield store


def given(*values: int | None) -> dict[str, int | None]:
    return dict(zip(SCALE_NAMES, values, strict=True))


def test_a_rater_goes_from_caption_to_caption_and_finds_earlier_answers(study: Study, answers: AnswerStore) -> None:
    page = RatingPage("/token", study, answers)
    assert page.begin(1) == Position(0)
    assert page.saved(1, 0, given(2, None, None)).count("Saved: 1 of 3") == 1
    assert page.go_on(1, 0, given(2, None, 4)) == Position(0, INCOMPLETE, is_error=True)
    assert page.shown(1, Position(0))[4:7] == (2, None, 4), "what is incomplete is kept too"
    assert page.go_on(1, 0, given(2, 3, 4)) == Position(1)
    assert page.begin(1) == Position(1) and page.begin(2) == Position(0)
    assert page.go_back(1, 1, given(1, None, None)) == Position(0)
    assert page.go_back(1, 0, given(2, 3, 4)) == Position(0)
    for place in range(1, CAPTIONS):
        last = page.go_on(1, place, given(1, 1, 1))
    assert last == Position(CAPTIONS - 1, DONE) == page.begin(1)
    assert "11 of 11 rated" in page.shown(1, last)[1]
    assert page.go_on(2, CAPTIONS - 1, given(1, 1, 1)) == Position(0), "the last one answered, the first is next"


def test_what_is_shown_tells_no_system_and_no_file(study: Study, answers: AnswerStore) -> None:
    page = RatingPage("/token", study, answers)
    texts = []
    for place in range(CAPTIONS):
        shown = [str(part) for part in page.shown(1, Position(place))]
        assert not re.search(r"first|other|human|\.wav", "".join(shown))
        texts += re.findall(r"<blockquote[^>]*>(.*)</blockquote>", shown[3])
    assert sorted(texts) == sorted(item.text for clip in study.clips for item in clip.items)
    assert all(text[0].isupper() and text.endswith(".") for text in texts)


@pytest.mark.parametrize(("place", "values"), [(-1, (1, 1, 1)), (CAPTIONS, (1, 1, 1)), (0, (5, 1, 1)), (0, (0, 1, 1))])
def test_what_no_page_sends_is_not_kept(
    study: Study, answers: AnswerStore, place: int, values: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="that"):
        RatingPage("/token", study, answers).keep(1, place, given(*values))
    assert answers.all() == []


def test_nobody_gets_in_without_link_and_code(study: Study, answers: AnswerStore) -> None:
    root = f"/{study.token}"
    with TestClient(build_app(study, answers), follow_redirects=False) as client:
        for path in ("/", "/login", "/favicon.ico", f"{root}x/", f"/x{root}/", "/gradio_api/info", "/audio/0"):
            assert client.get(path).status_code == 404, path
        asked = client.get(f"{root}/", headers={"Accept": "text/html"})
        assert (asked.status_code, asked.headers["location"]) == (303, f"{root}/login")
        assert asked.headers["referrer-policy"] == "no-referrer"
        for path in ("/audio/0", "/config", "/gradio_api/info", "/gradio_api/queue/join"):
            assert client.get(root + path).status_code == 401, path
        for code in ("", "x" * 10, study.codes[0][:-1], "é"):
            wrong = client.post(f"{root}/login", data={"key": code})
            assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
        typed = f" {study.codes[1][:4].lower()}-{study.codes[1][4:]} "
        opened = client.post(f"{root}/login", data={"key": typed})
        assert (opened.status_code, opened.headers["location"]) == (303, f"{root}/")
        cookie = opened.headers["set-cookie"].lower()
        assert (
            "httponly" in cookie and "samesite=lax" in cookie and f"path={root}" in cookie.replace(root.lower(), root)
        )
        client.cookies.set(COOKIE, study.codes[1])
        assert client.get(f"{root}/", headers={"Accept": "text/html"}).status_code == 200
        part = client.get(f"{root}/audio/0", headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"RIFF")
        assert [client.get(f"{root}/audio/{number}").status_code for number in (4, -1)] == [404, 404]


def test_the_page_names_no_other_host(study: Study, answers: AnswerStore) -> None:
    with TestClient(build_app(study, answers), cookies={COOKIE: study.codes[0]}) as client:
        text = client.get(f"/{study.token}/").text
    sources = re.findall(r"""(?:src|href|url)\s*[=(:]\s*["']?(https?://[^"')\s>]+)""", text)
    assert [source for source in sources if httpx2.URL(source).host != "testserver"] == []


@dataclass
class Serving:
    """`enclap rate` in a process of its own: its page and the raters' codes."""

    process: subprocess.Popen[str]
    url: str
    codes: list[str]


@contextmanager
def serving(folder: Path, arguments: list[str], port: int = 0) -> Iterator[Serving]:
    command = [sys.executable, "-m", "enclap", "rate", *arguments, "--raters", str(RATERS), "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            codes = [process.stdout.readline().partition(": ")[2].strip() for _ in range(RATERS)]
            yield Serving(process, url, codes)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browsers.chromium() as opened:
        yield opened


class Rater:
    """A person at a browser of their own."""

    def __init__(self, chromium: Any, url: str, code: str, width: int, scheme: str) -> None:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(3 * PATIENCE * 1000)
        self.view = context.new_page()
        self.width = width
        self.hosts: set[str] = set()
        self.faults: list[str] = []
        self.view.on("request", lambda request: self.hosts.add(httpx2.URL(request.url).host))
        self.view.on("pageerror", lambda error: self.faults.append(str(error)))
        self.view.goto(url)
        self.view.fill("#key", code)
        self.view.get_by_role("button", name="Begin").click()
        self.place()

    def place(self) -> int:
        return int(self.view.locator(".rate-caption").get_attribute("data-place"))

    def wait_for_place(self, place: int) -> None:
        self.view.wait_for_selector(f'.rate-caption[data-place="{place}"]')

    def press(self, *keys: str) -> None:
        """Press keys; after a digit wait until the answer is said to be kept."""
        for key in keys:
            before = self.answered()
            self.view.keyboard.press(key)
            if key.isdigit():
                self.view.get_by_text(f"Saved: {min(3, before + 1)} of 3").wait_for()

    def answered(self) -> int:
        return int(self.view.locator(".rate-scale input:checked").count())

    def picture(self, name: str) -> None:
        assert self.view.evaluate("document.documentElement.scrollWidth") <= self.width, "nothing is cut off"
        if folder := os.environ.get("ENCLAP_SCREENSHOTS"):
            self.view.screenshot(path=Path(folder) / f"rate-{name}-{self.width}.png", full_page=True)


@pytest.mark.browser
@pytest.mark.timeout(400)
def test_two_people_rate_with_a_reload_and_a_killed_server_and_nothing_is_lost(chromium: Any, tmp_path: Path) -> None:
    arguments = study_files(tmp_path)
    with serving(tmp_path, arguments) as server:
        port = int(httpx2.URL(server.url).port or 0)
        first = Rater(chromium, server.url, server.codes[0], 1280, "light")
        second = Rater(chromium, server.url, server.codes[1], 400, "dark")
        first.picture("begin")
        first.press("2", "3", "4")
        first.picture("answered")
        first.view.keyboard.press("Enter")
        first.wait_for_place(1)
        assert first.answered() == 0
        first.press("1")
        first.view.keyboard.press("Enter")
        first.view.get_by_role("alert").filter(has_text=INCOMPLETE).wait_for()
        for scale, label in zip(SCALE_NAMES, ("4 good English", "1 nothing of it", "3 most"), strict=True):
            second.view.locator(f"#rate-{scale}").get_by_label(label).click()
        second.view.get_by_text("Saved: 3 of 3").wait_for()
        second.picture("answered")
        second.view.locator("#rate-next").click()
        second.wait_for_place(1)
        first.view.reload()  # in the middle: where the first answer is missing
        first.wait_for_place(1)
        first.view.wait_for_function("document.querySelectorAll('.rate-scale input:checked').length === 1")
        for key in ("g", "3"):  # an answer that was given before is changed
            first.view.keyboard.press(key)
        first.view.get_by_text("Saved: 1 of 3").wait_for()
        first.view.keyboard.press("Backspace")
        first.wait_for_place(0)
        first.view.wait_for_function("document.querySelectorAll('.rate-scale input:checked').length === 3")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with closing(sqlite3.connect(tmp_path / "ratings" / ANSWERS)) as database:
        rows = database.execute("SELECT rater, scale, value FROM answers ORDER BY rater, clip, item, scale").fetchall()
    assert len(rows) == 3 + 1 + 3 and (1, "grammaticality", 3) in rows
    with serving(tmp_path, arguments, port) as server:
        for rater, place in ((first, 1), (second, 1)):
            rater.view.reload()
            rater.wait_for_place(place)
        first.view.wait_for_function("document.querySelectorAll('.rate-scale input:checked').length === 1")
        first.press("2", "2")
        for place in range(2, CAPTIONS):
            first.view.keyboard.press("Enter")
            first.wait_for_place(place)
            first.press("4", "4", "4")
        first.view.keyboard.press("Enter")
        first.view.get_by_text(DONE).wait_for()
        first.picture("done")
        first.view.keyboard.press("Space")
        first.view.wait_for_function("!document.querySelector('#enclap-player audio').paused")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
    with closing(AnswerStore(tmp_path / "ratings" / ANSWERS)) as store:
        kept = store.of_rater(1), store.of_rater(2)
    assert len(kept[0]) == CAPTIONS and all(len(values) == 3 for values in kept[0].values())
    assert list(kept[1].values()) == [given(4, 1, 3)]
    for rater in (first, second):
        assert (rater.hosts, rater.faults) == ({"127.0.0.1"}, [])
