"""The page's search tab: words in, sounds of the library out, each with a player."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from enclap.errors import EnclapError
from enclap.output.formats import clock
from enclap.search.listing import Hit
from enclap.serving.gradio_app import gr
from enclap.serving.problems import INTERNAL
from enclap.serving.settings import ServeSettings
from enclap.text import printable

if TYPE_CHECKING:
    from enclap.serving.search import LibrarySearch

HITS_SHOWN = 20


def add_search(settings: ServeSettings, library: Path) -> None:
    """Put the words of a query and what they find into the Gradio blocks that are open."""
    from enclap.serving.search import library_search  # here: it needs the extra search

    search = library_search(library)
    words = gr.Textbox(label="What is to be heard?", placeholder="water dripping in a cave", max_lines=1)
    button = gr.Button("Search", variant="primary")
    found = gr.HTML(elem_id="enclap-found")

    async def shown(words: str) -> str:
        return await found_html(search, words, settings.root_path)

    for event in (words.submit, button.click):
        event(shown, words, found, api_visibility="private", concurrency_limit=settings.queue)


async def found_html(search: LibrarySearch, words: str, root: str) -> str:
    """What the tab shows for a query; faults in words."""
    try:
        hits = await asyncio.to_thread(search.words, words, HITS_SHOWN)
        return hits_html(hits, [root + search.url(hit) for hit in hits])
    except EnclapError as error:
        message = str(error) if error.http_status < 500 else INTERNAL
        return f'<div role="alert" class="enclap-error">{escape(message)}</div>'


def hits_html(hits: Sequence[Hit], urls: Sequence[str]) -> str:
    """A list of hits: player, caption, file and times, score. urls: where each is played from."""
    items = ""
    for hit, url in zip(hits, urls, strict=True):
        name, times = printable(hit.path), f"{clock(hit.start)} – {clock(hit.end)}"
        source = escape(url, quote=True)
        label = escape(f"Player for {name}, {times}", quote=True)
        player = f'<audio controls preload="none" src="{source}" aria-label="{label}"></audio>'
        facts = f"{escape(name)}, {times}, score {hit.score:.2f}"
        items += f"<li><p>{escape(hit.text)}</p>{player}<p><small>{facts}</small></p></li>"
    status = f"{len(hits)} sounds" if hits else "Nothing fits."
    return f'<div role="status">{status}</div><ol class="enclap-hits" aria-label="Sounds">{items}</ol>'
