"""The page as a Hugging Face Space: what its front matter says holds, and its program serves the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx2
import pytest
import yaml
from packaging.requirements import Requirement

from servers import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "examples" / "space"
HOST = "somebody-sounds.hf.space"


def test_the_front_matter_fits_the_package() -> None:
    _, front, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    matter = yaml.safe_load(front)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    gradio = next(Requirement(text) for text in project["optional-dependencies"]["serve"] if text.startswith("gradio"))
    assert matter["sdk"] == "gradio" and matter["sdk_version"] in gradio.specifier
    assert tuple(map(int, matter["python_version"].split("."))) >= (3, 11)
    assert (SPACE / matter["app_file"]).is_file()
    assert len(matter["short_description"]) <= 60, "the most that the Hub takes"
    needed = Requirement((SPACE / "requirements.txt").read_text(encoding="utf-8").strip())
    assert (needed.name, needed.extras) == ("enclap", {"serve"})


@pytest.mark.slow
@pytest.mark.parametrize("space_host", [None, HOST])
def test_the_space_runs(tmp_path: Path, space_host: str | None) -> None:
    environment = {**os.environ, "GRADIO_SERVER_PORT": "0", "XDG_STATE_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(ROOT / "src")  # this clone, from whatever folder
    if space_host:
        environment["SPACE_HOST"] = space_host
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=SPACE, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            port = next(
                match[1] for line in process.stderr if (match := re.search(r"is ready on http://\S+:(\d+);", line))
            )
            headers = {
                "Host": space_host or "localhost",
                "Origin": f"https://{space_host}" if space_host else "http://localhost",
            }
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=5 * PATIENCE, trust_env=False) as client:
                assert "What can be heard?" in client.get("/config", headers=headers).text
                sent = client.post("/page/recordings", params={"example": "siren.ogg"}, headers=headers)
                assert sent.status_code == 201
                assert client.get("/readyz", headers={"Host": "elsewhere.example"}).status_code == 403
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0
