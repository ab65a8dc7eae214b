"""Chromium without a window, for tests of pages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

NAME = "sounds.example"  # leads to this machine, and is no secure context
PATIENCE = 180_000.0  # milliseconds, on a machine that is busy


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A browser that reaches nothing but this machine."""
    from playwright.sync_api import sync_playwright

    rules = f"MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    given = ["--no-sandbox", f"--host-resolver-rules={rules}", *arguments]
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=given)
        yield browser
        browser.close()


@contextmanager
def recorded_tasks(browser: Any, view: Any, path: Path) -> Iterator[list[float]]:
    """Milliseconds of processor time that each task of the page's main thread took; filled when the block ends.

    Time by the clock would tell of other programs too. path: for the browser's own notes.
    """
    found: list[float] = []
    browser.start_tracing(page=view, path=path, categories=["toplevel"])
    try:
        yield found
    finally:
        browser.stop_tracing()
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    found += [
        event.get("tdur", 0) / 1000
        for event in events
        if event["ph"] == "X" and event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in main
    ]


class Visitor:
    """A person at a window of their own; `hosts` that the page asked, `faults` of its scripts."""

    def __init__(self, browser: Any, url: str, width: int = 1200, scheme: str = "light", **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        self.context.set_default_timeout(PATIENCE)
        self.view = self.context.new_page()
        self.width = width
        self.hosts: set[str] = set()
        self.faults: list[str] = []
        self.view.on("request", lambda request: self.hosts.add(httpx2.URL(request.url).host))
        self.view.on("pageerror", lambda error: self.faults.append(str(error)))
        self.view.goto(url)

    def slow_down(self, times: int) -> None:
        """The page's scripts take so many times as long from now on."""
        self.context.new_cdp_session(self.view).send("Emulation.setCPUThrottlingRate", {"rate": times})

    def picture(self, name: str) -> None:
        """Nothing is cut off at the side; with ENCLAP_SCREENSHOTS set to a folder, a picture to look at."""
        assert self.view.evaluate("document.documentElement.scrollWidth") <= self.width, "nothing is cut off"
        if folder := os.environ.get("ENCLAP_SCREENSHOTS"):
            self.view.screenshot(path=Path(folder) / f"{name}-{self.width}.png", full_page=True)

    def violations(self) -> list[str]:
        """What axe-core finds fault with: the rule, and the parts of the page that break it."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.view).response["violations"]
        return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in found]
