"""The page as a person uses it, in Chromium: files, the microphone, films, the keyboard, faults, an hour of sound."""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsers import NAME, PATIENCE, Visitor, chromium, recorded_tasks
from enclap.captioner import Captioner
from enclap.serving.page_parts import COLUMNS
from enclap.serving.page_recordings import RECORDINGS
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from servers import GatedEngine, Running, running
from sounds import noise, tone, write_audio, write_timed, write_wav

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

RATE = 16_000
RECORDED = float(os.environ.get("ENCLAP_RECORD_SECONDS", "12"))
"""Seconds of the long recording; ten minutes take ten minutes, so 600 is for a run by hand."""
HOUR_PATIENCE = 600_000.0  # milliseconds, for what the server has to do for an hour of sound
LONGEST_TASK = 100.0
"""Milliseconds of processor time; it was 15 when this was written, on a machine that was busy."""
MOST_CHANGES = 8
"""Nodes and attributes that change for each caption, whichever it is; it was 3."""
COUNT_CHANGES = """() => {
    window.changes = 0;
    const count = (records) => {
        for (const record of records) window.changes += 1 + record.addedNodes.length + record.removedNodes.length;
    };
    const kinds = { subtree: true, childList: true, attributes: true, characterData: true };
    new MutationObserver(count).observe(document.documentElement, kinds);
}"""
CAPTION = ".enclap-captions .caption"
DONE = ".enclap-downloads"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone hears a tone."""
    heard = write_wav(
        tmp_path_factory.mktemp("heard") / "tone.wav", np.round(2**15 * tone(30.0, 48_000)).astype(np.int16), 48_000
    )
    microphone = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(*microphone, f"--use-file-for-fake-audio-capture={heard}") as opened:
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(allowed_hosts=(NAME,)), with_page=True) as server:
        server.client.get("/config", timeout=PATIENCE / 1000)
        yield server


def film(path: Path, seconds: float) -> Path:
    sound = noise(seconds, rate=48_000)
    return write_timed(path, [[(0.0, sound)]], 48_000, video="libvpx", seconds_of_video=seconds)


def drop(visitor: Visitor, path: Path) -> None:
    visitor.view.set_input_files("#enclap-file", path)


def wait_for_captions(visitor: Visitor, count: int) -> None:
    visitor.view.wait_for_function(f"document.querySelectorAll('{CAPTION}').length === {count}")


def record(visitor: Visitor, seconds: float) -> None:
    visitor.view.get_by_role("button", name="Record").click()
    visitor.view.wait_for_function(
        f"parseInt(document.querySelector('#enclap-clock').textContent.split(':')[0]) * 60"
        f" + parseInt(document.querySelector('#enclap-clock').textContent.split(':')[1]) >= {seconds:.0f}",
        timeout=1000 * seconds + 60_000,
    )
    visitor.view.get_by_role("button", name="Stop").click()


def assert_clean(visitor: Visitor) -> None:
    assert (visitor.hosts, visitor.faults) == ({"127.0.0.1"}, [])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_a_person_drops_a_file_and_finds_everything(
    browser: Any, server: Running, tmp_path: Path, scheme: str, width: int
) -> None:
    path = write_audio(tmp_path / "dog.wav", noise(25.0), RATE)
    visitor = Visitor(browser, server.url, width, scheme)
    view = visitor.view
    view.wait_for_selector("#enclap-input")
    assert visitor.violations() == []
    drop(visitor, path)
    view.wait_for_selector(DONE)
    wait_for_captions(visitor, 3)
    assert view.locator(".enclap-captions meter").count() == 0, "log-likelihoods are no bars"
    view.locator(CAPTION).nth(1).click()
    view.wait_for_selector(".enclap-captions li:nth-child(2) [data-plays]")
    assert 10.0 <= view.evaluate("document.querySelector('#enclap-player audio').currentTime") < 17.5
    assert view.evaluate("document.querySelector('#enclap-wave').style.getPropertyValue('--lit-from')") == "40%"
    box = view.locator("#enclap-wave").bounding_box()
    view.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 10)
    view.wait_for_selector(".enclap-captions li:nth-child(3) [data-plays]")
    view.locator("summary", has_text="Spectrogram").click()
    view.wait_for_function("document.querySelector('#enclap-spectrogram img')?.naturalWidth === 1200")
    view.locator(".enclap-captions summary").first.click()
    assert view.locator(".enclap-captions ul li").count() == 9
    view.locator("summary", has_text="As a table").click()
    assert view.locator("#enclap-table tbody tr").count() == 3
    assert tuple(view.locator("#enclap-table th").all_inner_texts()) == COLUMNS
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="Copy the table").click()
    view.get_by_text("Copied.").wait_for()
    assert view.evaluate("navigator.clipboard.readText()").splitlines()[1].split("\t")[:2] == ["0.0", "10.0"]
    with view.expect_download() as download:
        view.get_by_role("link", name="srt").click()
    assert download.value.suggested_filename == "dog.srt"
    assert Path(download.value.path()).read_text().startswith("1\n00:00:00,000 --> 00:00:10,000\n")
    assert visitor.violations() == []
    visitor.picture(f"file-{scheme}")
    assert_clean(visitor)


def test_captions_that_come_leave_focus_and_what_is_unfolded(browser: Any, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "long.wav", noise(125.0), RATE)
    engine = GatedEngine()
    with running(Captioner(engine, "echo"), with_page=True) as server:
        server.client.get("/config", timeout=PATIENCE / 1000)
        visitor = Visitor(browser, server.url)
        view = visitor.view
        drop(visitor, path)
        engine.permits.release()
        view.locator(CAPTION).first.wait_for()
        before = view.locator(CAPTION).count()
        assert before < 13
        view.get_by_text("captioned").or_(view.locator(".enclap-progress progress")).first.wait_for()
        view.locator(".enclap-captions summary").first.click()
        view.locator(CAPTION).first.focus()
        engine.let_all_through()
        view.wait_for_selector(DONE)
        wait_for_captions(visitor, 13)
        assert view.locator(".enclap-captions details[open]").count() == 1
        assert view.evaluate("document.activeElement.dataset.start") == "0.000"
        view.keyboard.press("Tab")
        view.keyboard.press("Tab")
        view.keyboard.press("Enter")
        view.wait_for_selector(".enclap-captions li:nth-child(2) [data-plays]")
        assert_clean(visitor)


def test_a_film_has_subtitles_over_its_picture(browser: Any, server: Running, tmp_path: Path) -> None:
    path = film(tmp_path / "film.webm", 25.0)
    visitor = Visitor(browser, server.url)
    view = visitor.view
    drop(visitor, path)
    view.wait_for_selector(DONE)
    view.wait_for_function("document.querySelector('video')?.textTracks[0]?.cues.length === 3")
    view.locator(CAPTION).nth(2).click()
    view.wait_for_function("document.querySelector('video').textTracks[0].activeCues.length === 1")
    shown = view.evaluate("document.querySelector('video').textTracks[0].activeCues[0].text")
    assert shown == view.locator(".sentence").nth(2).inner_text()
    assert view.evaluate("document.querySelector('video').textTracks[0].mode") == "showing"
    view.evaluate("(film => { film.pause(); film.currentTime = 12; })(document.querySelector('video'))")
    view.wait_for_selector(".enclap-captions li:nth-child(2) [data-plays]")
    visitor.picture("film")
    drop(visitor, film(tmp_path / "other.webm", 5.0))
    view.get_by_text("other.webm: 0:05.0").wait_for()
    view.wait_for_function("document.querySelector('video')?.textTracks[0]?.cues.length === 1")
    assert_clean(visitor)


@pytest.mark.parametrize("slowed", [1, 4])
def test_a_person_records_and_captions_come_meanwhile(browser: Any, server: Running, slowed: int) -> None:
    visitor = Visitor(browser, server.url, permissions=["microphone"])
    view = visitor.view
    view.wait_for_selector("#enclap-input")
    visitor.slow_down(slowed)
    address: list[str] = []
    view.on("request", lambda request: address.append(request.url) if request.method == "PATCH" else None)
    view.get_by_role("button", name="Record").click()
    view.locator(CAPTION).first.wait_for()
    assert view.get_by_role("button", name="Stop").is_visible()
    assert view.evaluate("document.querySelector('#enclap-level').value") > 0.3
    assert visitor.violations() == []
    visitor.picture("recording")
    view.wait_for_timeout(1000 * (RECORDED if slowed == 1 else 5.0))
    view.get_by_role("button", name="Stop").click()
    view.wait_for_selector(DONE)
    visitor.slow_down(1)
    content = server.client.get(address[0].removeprefix(server.url).partition("?")[0] + "/sound").content
    with wave.open(io.BytesIO(content)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
    seconds = len(samples) / rate
    minutes, rest = view.locator("#enclap-clock").text_content().split(":")
    assert int(seconds) == 60 * int(minutes) + int(rest), "all that the browser heard is there"
    assert slowed > 1 or seconds >= RECORDED / 4, "a browser without a processor to itself hears less than there is"
    wait_for_captions(visitor, int(np.ceil(seconds / 5 - 0.02)))
    spectrum = np.abs(np.fft.rfft(samples[rate : 4 * rate]))
    assert np.argmax(spectrum) / 3 == pytest.approx(440, abs=2), "the tone that the microphone hears"
    assert_clean(visitor)


def test_faults_are_told_in_words_and_recording_goes_on_after_each(
    browser: Any, server: Running, tmp_path: Path
) -> None:
    broken = tmp_path / "note.wav"
    broken.write_bytes(b"no sound")
    whole = write_audio(tmp_path / "dog.wav", noise(12.0), RATE)
    visitor = Visitor(browser, server.url, 390, permissions=["microphone"])
    view = visitor.view
    drop(visitor, broken)
    view.get_by_role("alert").filter(has_text="note.wav: not a sound file").wait_for()
    visitor.picture("fault")
    for _ in range(2):  # again after a recording
        record(visitor, 2)
        view.get_by_text("Recording.wav: 0:0").wait_for()
        view.get_by_role("button", name="Record").wait_for()
        drop(visitor, whole)
        view.get_by_text("dog.wav: 0:12.0, 2 captions").wait_for()
    view.get_by_role("button", name="Record").click()
    view.wait_for_selector("#enclap-recording:not([hidden])")
    drop(visitor, whole)  # while it records
    view.get_by_text("dog.wav: 0:12.0, 2 captions").wait_for()
    view.get_by_role("button", name="Record").wait_for()
    view.locator("button", has_text="Settings").click()
    view.get_by_role("button", name="Caption again").click()
    view.get_by_text("dog.wav: 0:12.0, 2 captions").wait_for()
    assert visitor.violations() == []
    visitor.picture("settings")
    assert server.service.active == 0
    assert_clean(visitor)


@pytest.mark.parametrize(
    ("error", "told"), [("NotAllowedError", "was not allowed"), ("NotFoundError", "No microphone was found")]
)
def test_a_microphone_that_cannot_be_used(browser: Any, server: Running, error: str, told: str) -> None:
    visitor = Visitor(browser, server.url)
    refused = (
        f"() => {{ navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{error}')); }}"
    )
    visitor.view.evaluate(refused)
    visitor.view.get_by_role("button", name="Record").click()
    visitor.view.get_by_role("alert").filter(has_text=told).wait_for()
    assert visitor.view.get_by_role("button", name="Record").is_enabled()


def test_what_is_no_file_or_too_large_is_told_before_it_is_sent(browser: Any, server: Running, tmp_path: Path) -> None:
    visitor = Visitor(browser, server.url)
    view = visitor.view
    view.wait_for_selector("#enclap-input")
    view.evaluate("document.querySelector('#enclap-input').dataset.most")
    view.evaluate("""() => {
        const file = new File(["a"], "film.mkv");
        Object.defineProperty(file, "size", { value: 600 * 2 ** 20 });
        const event = new Event("drop", { bubbles: true, cancelable: true });
        Object.defineProperty(event, "dataTransfer", { value: { types: ["Files"], items: [], files: [file] } });
        document.body.dispatchEvent(event);
    }""")
    view.get_by_role("alert").filter(has_text="film.mkv has 600 MB; this server takes 512 MB at most").wait_for()


def test_without_https_the_page_says_why_there_is_no_microphone(browser: Any, server: Running) -> None:
    visitor = Visitor(browser, f"http://{NAME}:{server.port}")
    assert visitor.view.get_by_role("button", name="Record").is_disabled()
    assert visitor.view.get_by_text("The microphone works over HTTPS").is_visible()
    visitor.view.get_by_role("button", name="Siren").click()
    visitor.view.wait_for_selector(DONE)
    assert visitor.hosts == {NAME}


def test_an_hour_can_be_captioned_played_and_seen(browser: Any, server: Running, tmp_path: Path) -> None:
    minute = np.round(2**15 * noise(60.0, rate=8000)).clip(-(2**15), 2**15 - 1).astype(np.int16)
    path = write_wav(tmp_path / "hour.wav", np.tile(minute, (60, 1)), 8000)
    visitor = Visitor(browser, server.url)
    view = visitor.view
    view.wait_for_selector("#enclap-input")
    view.evaluate(COUNT_CHANGES)
    with recorded_tasks(browser, view, tmp_path / "trace.json") as tasks:
        drop(visitor, path)
        view.wait_for_selector(DONE, timeout=HOUR_PATIENCE)
        wait_for_captions(visitor, 360)
    assert max(tasks) < LONGEST_TASK, "the page answers meanwhile"
    assert view.evaluate("changes") <= 360 * MOST_CHANGES, "a caption changes itself and the progress alone"
    assert view.locator("#enclap-wave path").count() == 1
    view.locator(CAPTION).nth(300).click()
    view.wait_for_selector(".enclap-captions li:nth-child(301) [data-plays]")
    view.locator("summary", has_text="Spectrogram").click()
    drawn = "document.querySelector('#enclap-spectrogram img')?.naturalWidth === 1200"
    view.wait_for_function(drawn, timeout=HOUR_PATIENCE)
    assert f"{RECORDINGS}/" in view.evaluate("document.querySelector('#enclap-player audio').currentSrc")
    visitor.picture("hour")
    assert_clean(visitor)
