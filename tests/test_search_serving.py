"""A library behind the server: the route, the files that it gives out, the tab and the tool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from enclap.captioner import Captioner
from enclap.serving.search import SOUND_ROUTE, library_search
from enclap.serving.search_page import found_html
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from libraries import indexed, tone_captioner, write_sounds
from servers import Running, running


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made")
    folder = write_sounds(made / "sounds", {"dog & co.wav": "dog", "deep/rain.wav": "rain"})
    captioner = tone_captioner(made / "model")
    indexed(made / "library", folder, captioner)
    (folder / "secret.wav").write_bytes(b"not of the library")
    search = library_search(made / "library")
    search._model = (search_space(made / "library"), captioner)
    return made / "library"


def search_space(library: Path) -> str:
    from enclap.search.library import Library

    return Library.open(library).facts.space


@pytest.fixture(scope="module")
def server(library: Path) -> Iterator[Running]:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(library=library)) as server:
        yield server


def test_words_find_sounds_over_http(server: Running) -> None:
    answer = server.client.get("/v1/search", params={"words": "a dog", "limit": 1})
    assert answer.status_code == 200, answer.text
    [hit] = answer.json()["results"]
    assert hit["path"] == "dog & co.wav"  # below the library's folder: no path of the server's machine


def test_a_query_without_words_is_refused(server: Running) -> None:
    for words in ("", "?", "dog " * 200):
        answer = server.client.get("/v1/search", params={"words": words})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"].startswith("the query h")


def test_only_sounds_of_the_library_are_given_out(server: Running, library: Path) -> None:
    found = server.client.get(SOUND_ROUTE, params={"path": "deep/rain.wav"}, headers={"Range": "bytes=0-3"})
    assert (found.status_code, found.content) == (206, b"RIFF")
    for path in ("secret.wav", "../library/library.json", "/etc/passwd", str(library), "", "deep", "a'; DROP"):
        answer = server.client.get(SOUND_ROUTE, params={"path": path})
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "no_such_sound"


def test_a_server_without_library_has_no_such_route() -> None:
    with running(Captioner(EchoEngine(), "echo")) as server:
        assert server.client.get("/v1/search", params={"words": "dog"}).status_code == 404


def test_the_tab_shows_a_player_for_each_hit(library: Path) -> None:
    search = library_search(library)
    html = asyncio.run(found_html(search, "a dog", "/prefix"))
    assert html.count("<audio") == 2
    assert 'src="/prefix/v1/library/sound?path=dog%20%26%20co.wav#t=0.000,1.000"' in html
    assert "dog &amp; co.wav" in html
    assert 'role="alert"' in asyncio.run(found_html(search, "?", ""))


def test_the_page_has_a_tab_for_the_library(library: Path) -> None:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(library=library), with_page=True) as server:
        components = server.client.get("/config", timeout=300).json()["components"]
    labels = [item["props"].get("label") for item in components if item["type"] == "tabitem"]
    assert labels == ["Captions", "Search"]


def test_agents_find_sounds(server: Running) -> None:
    async def use() -> list[Any]:
        async with Client(f"{server.url}/mcp", read_timeout_seconds=60) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            found = await client.call_tool("search_sounds", {"words": "rain", "limit": 1})
            wrong = await client.call_tool("search_sounds", {"words": "?"})
            return [names, found, wrong]

    names, found, wrong = asyncio.run(use())
    assert "search_sounds" in names
    assert found.structured_content["results"][0]["path"] == "deep/rain.wav"
    assert wrong.is_error and "no words" in wrong.content[0].text
