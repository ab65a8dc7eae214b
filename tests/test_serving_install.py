"""The extra `serve` in environments of their own: its packages agree, and an older client of the tools is answered.

Needs a package index; each test installs for some minutes.
"""

from __future__ import annotations

import base64
import json
import subprocess
import venv
from pathlib import Path

import pytest

from enclap.captioner import Captioner
from fakes import EchoEngine
from servers import running
from sounds import noise, write_audio

ROOT = Path(__file__).resolve().parents[1]

PARTS = """
import sys
import gradio, mcp, uvicorn
from importlib.metadata import version
from mcp.server.mcpserver import MCPServer
from enclap.serving import http, mcp as tools, page
print(version("mcp").split(".")[0], version("gradio").split(".")[0], "torch" in sys.modules)
"""

OLDER_CLIENT = """
import asyncio, json, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

async def main():
    async with streamablehttp_client(sys.argv[1]) as (read, write, _), ClientSession(read, write) as session:
        greeting = await session.initialize()
        names = [tool.name for tool in (await session.list_tools()).tools]
        found = await session.call_tool("caption_audio", {"audio": sys.stdin.read(), "window": 0.5})
        print(json.dumps([greeting.protocolVersion, names, found.structuredContent]))

asyncio.run(main())
"""


def installed(folder: Path, *packages: str) -> str:
    """The Python of a new environment that holds the packages and what they need."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(command, cwd=ROOT, check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    return python


@pytest.mark.soak
def test_the_packages_of_the_extra_agree(tmp_path: Path) -> None:
    """Gradio has a pin of `mcp` of its own, in an extra that must never be asked for."""
    python = installed(tmp_path / "environment", "--constraint", "constraints.txt", ".[serve]")
    done = subprocess.run([python, "-c", PARTS], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "6", "False"], done.stderr


@pytest.mark.soak
def test_the_first_sdks_client_is_answered(tmp_path: Path) -> None:
    python = installed(tmp_path / "environment", "mcp>=1.23,<2")
    content = write_audio(tmp_path / "a.wav", noise(1.0), 16_000).read_bytes()
    with running(Captioner(EchoEngine(), "echo")) as server:
        command = [python, "-c", OLDER_CLIENT, f"{server.url}/mcp"]
        sent = base64.b64encode(content).decode()
        done = subprocess.run(command, input=sent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version, names, table = json.loads(done.stdout)
    assert version == "2025-11-25" and set(names) == {"caption_audio", "get_captions"}
    assert table["state"] == "done" and len(table["captions"]) == 2
