"""The tool `search_sounds` for agents: sounds of the library that fit some words."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from enclap.errors import EnclapError
from enclap.search.listing import hit_table
from enclap.search.words import MOST_LETTERS
from enclap.serving.settings import MOST_HITS, ServeSettings

Words = Annotated[str, Field(max_length=MOST_LETTERS, description="What is to be heard, such as 'a dog barks'.")]
Limit = Annotated[int, Field(ge=1, le=MOST_HITS, description="Number of sounds at most.")]
Segments = Annotated[bool, Field(description="List every part that fits, not each file once.")]


class FoundSound(BaseModel):
    """A part of a recording, from `start` to `end` in seconds; score: how probable it is, 0 to 1, that it fits."""

    path: str = Field(description="Below the library's folder.")
    start: float
    end: float
    text: str = Field(description="What the model hears there.")
    score: float


class FoundSounds(BaseModel):
    """The sounds that fit best, the best first."""

    results: list[FoundSound]


def add_search_tool(server: MCPServer[Any], settings: ServeSettings) -> None:
    """Offer the tool where the server has a library."""
    if settings.library is None:
        return
    from enclap.serving.search import library_search  # here: it needs the extra search

    search = library_search(settings.library)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False), structured_output=True)
    async def search_sounds(words: Words, limit: Limit = 10, segments: Segments = False) -> FoundSounds:
        """Find sounds in the library by words: what is heard, captions and file names count."""
        try:
            hits = await asyncio.to_thread(search.words, words, limit, segments=segments)
        except EnclapError as error:
            raise ToolError(str(error)) from error
        return FoundSounds(results=[FoundSound.model_validate(hit_table(hit)) for hit in hits])
