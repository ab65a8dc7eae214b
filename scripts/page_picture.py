"""Takes the picture of the page in docs/images: `enclap serve` with mini, in Chromium, with the long example sound.

Needs the extra `dev` and Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "page.png"
WIDTH, HEIGHT = 960, 1000
COLOURS = 128  # of the picture: enough for it to look the same, at a third of the size
PATIENCE = 600_000  # milliseconds


def picture(url: str) -> bytes:
    """The page as PNG, after a click on the second caption."""
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        view.set_default_timeout(PATIENCE)
        view.goto(url, timeout=PATIENCE)
        view.get_by_role("button", name="Rain, crickets, waves").click()
        view.wait_for_selector(".enclap-downloads")
        view.locator("#enclap-frequencies summary").click()
        view.wait_for_function("document.querySelector('#enclap-spectrogram img')?.naturalWidth > 0")
        view.locator(".enclap-captions summary").first.click()
        view.locator(".caption").nth(1).click()
        view.wait_for_selector(".enclap-captions li:nth-child(2) [data-plays]")
        view.wait_for_timeout(2000)
        view.evaluate("document.querySelector('#enclap-player audio').pause()")
        view.mouse.move(0, 0)
        shown = view.screenshot(full_page=True)
        browser.close()
    return shown


def main() -> None:
    """Write the picture."""
    command = [sys.executable, "-m", "enclap", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            found = (re.search(r"http://\S+(?=;)", line) for line in server.stderr)
            url = next(match[0] for match in found if match)
            image = Image.open(io.BytesIO(picture(url))).convert("RGB")
        finally:
            server.terminate()
    image.quantize(COLOURS).save(TARGET, optimize=True)
    sys.stdout.write(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
