"""The tools for agents, asked by the SDK's own client: both transports, clients of both protocol generations."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared._httpx_utils import create_mcp_http_client

from enclap.captioner import Captioner
from enclap.serving import mcp as tools
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from servers import GatedEngine, Running, running
from sounds import noise, write_audio

MODES = ["legacy", "2026-07-28", "auto"]
KEY = "k" * 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "dog.wav", noise(3.0), 16_000)


def ask(target: Any, mode: str, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Client(target, mode=mode, read_timeout_seconds=60) as client:
            return await use(client)

    return asyncio.run(run())


def sent(path: Path, **options: object) -> dict[str, Any]:
    return {"audio": base64.b64encode(path.read_bytes()).decode(), "name": path.name, **options}


@pytest.mark.parametrize("mode", MODES)
def test_a_recording_is_captioned_over_http(mode: str, path: Path) -> None:
    async def use(client: Client) -> Any:
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == {"caption_audio", "get_captions"}
        assert all(tool.description and tool.input_schema and tool.output_schema for tool in listed.tools)
        return await client.call_tool("caption_audio", sent(path, window=0.5, candidates=2))

    with running(Captioner(EchoEngine(), "echo")) as server:
        found = ask(f"{server.url}/mcp", mode, use)
        expected = server.service.captioner.caption(path, None, 0.5)
    assert not found.is_error
    table = found.structured_content
    assert table["state"] == "done" and table["seconds"] == 3.0
    assert [item["text"] for item in table["captions"]] == [caption.text for caption in expected.captions]
    assert len(table["captions"][0]["alternatives"]) == 1


def test_a_long_recording_gives_a_handle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "WAIT_SECONDS", 0.2)
    engine = GatedEngine()

    async def use(client: Client) -> list[Any]:
        first = await client.call_tool("caption_audio", sent(path, window=0.1))
        engine.let_all_through()
        monkeypatch.setattr(tools, "WAIT_SECONDS", 20.0)
        return [first, await client.call_tool("get_captions", {"handle": first.structured_content["handle"]})]

    with running(Captioner(engine, "gated")) as server:
        first, last = (found.structured_content for found in ask(f"{server.url}/mcp", "auto", use))
    assert first["state"] in {"queued", "running"} and first["captions"] == []
    assert last["state"] == "done" and len(last["captions"]) == 30 and last["handle"] == first["handle"]


def test_faults_are_told_in_words(path: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.wav"
    note.write_bytes(b"no sound")
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("caption_audio", {"audio": "%%%"}, "not base64"),
        ("caption_audio", sent(path, window=0.01), "window of 0.01 s"),
        ("caption_audio", {}, "give either audio"),
        ("caption_audio", sent(path, upload="x"), "give either audio"),
        ("caption_audio", {"upload": "unknown"}, "no such upload"),
        ("get_captions", {"handle": "unknown"}, "no such handle"),
    ]

    async def use(client: Client) -> list[Any]:
        found = [await client.call_tool(name, arguments) for name, arguments, _ in calls]
        return [*found, await client.call_tool("caption_audio", sent(note))]

    with running(Captioner(EchoEngine(), "echo")) as server:
        *found, damaged = ask(f"{server.url}/mcp", "auto", use)
    for (_, _, told), result in zip(calls, found, strict=True):
        assert result.is_error and told in result.content[0].text
    assert damaged.structured_content["state"] == "failed" and "note.wav" in damaged.structured_content["error"]


def asked(server: Running, key: str, name: str, arguments: dict[str, Any], mode: str = "auto") -> Any:
    """What a tool answers to a client that has the key."""

    async def run() -> Any:
        async with create_mcp_http_client(headers=bearer(key)) as http:
            transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                return await client.call_tool(name, arguments)

    return asyncio.run(run())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_handle_belongs_to_its_key(path: Path) -> None:
    keys = (KEY, "o" * 20)
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=keys)) as server:
        handle = asked(server, keys[0], "caption_audio", sent(path)).structured_content["handle"]
        assert asked(server, keys[1], "get_captions", {"handle": handle}).is_error
        assert not asked(server, keys[0], "get_captions", {"handle": handle}).is_error


@pytest.mark.parametrize("mode", MODES)
def test_an_upload_is_captioned_by_its_id_for_its_key_alone(mode: str, path: Path) -> None:
    keys = (KEY, "o" * 20)
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=keys)) as server:
        answer = server.post("/v1/uploads", files={"file": (path.name, path.read_bytes())}, headers=bearer(KEY))
        table = answer.json()
        assert (answer.status_code, table["path"], table["size"]) == (201, path.name, path.stat().st_size)
        for window in (0.5, 1.0):  # again with other options
            arguments = {"upload": table["id"], "window": window}
            found = asked(server, KEY, "caption_audio", arguments, mode).structured_content
            expected = server.service.captioner.caption(path, None, window)
            assert [item["text"] for item in found["captions"]] == [caption.text for caption in expected.captions]
        theirs = asked(server, keys[1], "caption_audio", arguments, mode)
        assert theirs.is_error and "no such upload" in theirs.content[0].text
        address = f"/v1/uploads/{table['id']}"
        assert server.client.delete(address, headers=bearer(keys[1])).status_code == 404
        assert server.client.delete(address, headers=bearer(KEY)).status_code == 204
        assert asked(server, KEY, "caption_audio", arguments, mode).is_error
        assert not list(server.runner.uploads.folder.iterdir())


@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_captioned_over_stdio(
    mode: str,
    path: Path,
    tmp_path: Path,
    enclap_command: list[str],
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    outside = write_audio(tmp_path_factory.mktemp("outside") / "secret.wav", noise(0.5), 16_000)
    (tmp_path / "link.wav").symlink_to(outside)
    command, *arguments = [*enclap_command, "mcp", "--model", str(tiny_model), "--folder", str(tmp_path)]
    target = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))

    async def use(client: Client) -> list[Any]:
        paths = [str(path), str(outside), str(tmp_path / "link.wav"), f"{tmp_path}/../{outside.parent.name}/secret.wav"]
        return [await client.call_tool("caption_audio", {"path": item, "window": 0.5}) for item in paths]

    allowed, *refused = ask(target, mode, use)
    assert allowed.structured_content["state"] == "done" and len(allowed.structured_content["captions"]) == 6
    assert all(found.is_error and "folder that is allowed" in found.content[0].text for found in refused)


def test_what_is_no_ordinary_file_is_refused(tmp_path: Path, path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for name, told in (
        ("pipe.wav", "no ordinary file"),
        (".", "no ordinary file"),
        ("missing.wav", "no such file"),
        ("a\0b", "no such file"),
    ):
        with pytest.raises(ToolError, match=told):
            tools.open_allowed(str(tmp_path / name), (tmp_path,))
    with tools.open_allowed(str(path), (tmp_path,)) as file:
        assert file.read() == path.read_bytes()
