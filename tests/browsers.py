"""Chromium without a window, for tests of pages."""

from __future__ import annotations

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
