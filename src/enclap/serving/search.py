"""A library behind the server: its sounds found by words, and their files to be played; `enclap serve --library`."""

from __future__ import annotations

import asyncio
import mimetypes
import threading
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from enclap.captioner import Captioner
from enclap.search.asking import Run, library_model
from enclap.search.library import Library
from enclap.search.listing import Hit, list_hits
from enclap.search.query import search_words
from enclap.search.store import quoted
from enclap.search.words import MOST_LETTERS, check_words
from enclap.serving.documents import problems
from enclap.serving.problems import RequestRefused
from enclap.serving.settings import MOST_HITS

SOUND_ROUTE = "/v1/library/sound"


class LibrarySearch:
    """A library that many requests ask; the model of its texts is loaded by the first, and used by one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asking = threading.Lock()
        self._model: tuple[str, Captioner] | None = None

    def words(self, words: str, limit: int, *, segments: bool = False) -> list[Hit]:
        """The hits, their paths below the library's folder; UsageError for a query without words, or too many."""
        check_words(words)
        library = Library.open(self._path)
        with self._asking:
            if self._model is None or self._model[0] != library.facts.space:
                self._model = library.facts.space, library_model(library, Run())
            return search_words(library, self._model[1].engine, words, limit, segments=segments)

    def url(self, hit: Hit) -> str:
        """Where on this server the part that a hit names is played from."""
        return f"{SOUND_ROUTE}?path={quote(hit.path, safe='')}#t={hit.start:.3f},{hit.end:.3f}"

    def file(self, path: str) -> Path:
        """The file of a sound that the library holds; RequestRefused for any other, whatever lies there."""
        library = Library.open(self._path)
        folder = library.folder.resolve()
        known = library.rows.columns(["path"], f"path = {quoted(path)}")
        file = (folder / path).resolve()
        if not len(known) or not file.is_relative_to(folder) or not file.is_file():
            raise RequestRefused(404, "no_such_sound", "the library holds no such sound, or its file is gone")
        return file


@cache
def library_search(path: Path) -> LibrarySearch:
    """The one search over the library at a path, which routes, page and tools share."""
    return LibrarySearch(path)


def search_router(search: LibrarySearch) -> APIRouter:
    """The routes; see their descriptions in the OpenAPI document."""
    router = APIRouter(tags=["library"])

    @router.get(
        "/v1/search", summary="Find sounds by words", response_class=Response, responses=problems(400, 422, 503)
    )
    async def search_sounds(
        words: Annotated[str, Query(max_length=MOST_LETTERS, description="What is to be heard.")],
        limit: Annotated[int, Query(ge=1, le=MOST_HITS)] = 20,
        segments: Annotated[bool, Query(description="Every part that fits, not each file once.")] = False,
    ) -> Response:
        """Sounds of the library that fit the words, as `enclap search --format json` lists them, below its folder."""
        hits = await asyncio.to_thread(search.words, words, limit, segments=segments)
        return Response(list_hits("json", hits), media_type="application/json")

    @router.get(SOUND_ROUTE, summary="A sound of the library", response_class=FileResponse, responses=problems(404))
    async def sound(path: Annotated[str, Query(max_length=4096)]) -> FileResponse:
        """The file of a hit, in parts where a player asks for parts."""
        file = await asyncio.to_thread(search.file, path)
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return FileResponse(file, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    return router
