"""The page at `/`: drop a sound or record one, see what is heard in it, window by window; all is served from here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette

from enclap.serving.failures import answer_failures
from enclap.serving.gradio_app import gr, mount_page
from enclap.serving.page_parts import input_html
from enclap.serving.page_recordings import RECORDINGS, PageRecordings
from enclap.serving.page_routes import EXAMPLES, page_routes
from enclap.serving.page_views import LIVE_SECONDS, caption_views
from enclap.serving.recordings import CaptionService
from enclap.serving.search_page import add_search

CANDIDATES = 3  # shown of each caption unless asked otherwise; a search is wide enough for them anyway
HEADING = """# What can be heard?
A sentence for every few seconds of sound appears below, as soon as it is there."""
LIST = '<ol class="enclap-captions" aria-label="Captions"></ol>'
LIST_SCRIPT = "enclap.captions(element, props, watch)"


def page_app(service: CaptionService) -> Starlette:
    """The page as an application of its own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    answer_failures(app)
    recordings = PageRecordings(service.settings)
    app.include_router(page_routes(service, recordings))
    here = Path(__file__).parent
    style, script = ((here / f"page_input.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    root_path = service.settings.root_path or None
    return mount_page(app, _blocks(service, recordings), "/", style, script, root_path=root_path)


def _blocks(service: CaptionService, recordings: PageRecordings) -> Any:
    most = service.settings.queue
    with gr.Blocks(analytics_enabled=False, title="enclap") as blocks:
        gr.Markdown(HEADING, elem_id="heading")
        if service.settings.library is None:
            add_captions(service, recordings)
        else:
            with gr.Tab("Captions"):
                add_captions(service, recordings)
            with gr.Tab("Search"):
                add_search(service.settings, service.settings.library)
    blocks.queue(default_concurrency_limit=most, max_size=most)
    return blocks


def add_captions(service: CaptionService, recordings: PageRecordings) -> None:
    """Put the input of a recording and its captions into the Gradio blocks that are open."""
    address = service.settings.root_path + RECORDINGS
    part: dict[str, Any] = {"apply_default_css": False}
    source = gr.HTML(
        html_template=input_html(address, EXAMPLES, service.settings.max_upload),
        js_on_load="enclap.input(element, trigger)",
        elem_id="source",
        **part,
    )
    with gr.Accordion("Settings", open=False):
        longest = int(service.captioner.longest_window)
        told = f"Of what is being recorded at most {LIVE_SECONDS:g}, so that the captions do not lag behind."
        window = gr.Slider(1, longest, value=min(10, longest), step=1, label="Seconds per caption", info=told)
        candidates = gr.Slider(1, 16, value=CANDIDATES, step=1, label="Sentences to propose for each caption")
        again = gr.Button("Caption again with these settings", size="md")
    outputs: list[Any] = [gr.HTML(elem_id=name, **part) for name in ("message", "progress", "player", "wave")]
    outputs.append(gr.HTML(html_template=LIST, js_on_load=LIST_SCRIPT, elem_id="captions", **part))
    outputs.append(gr.HTML(elem_id="results", **part))
    current = gr.State("")

    def chosen(event: gr.EventData) -> str:
        return str(event.recording)

    async def shown(
        id: str, window: float, candidates: float, request: gr.Request
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        owner = None if request.request is None else request.request.state.owner
        before: tuple[Any, ...] = ()
        async for view in caption_views(service, recordings, id, owner, window, int(candidates)):
            now = view.outputs()
            yield tuple(new if not before or new != old else gr.skip() for new, old in zip_longest(now, before))
            before = now

    common: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    inputs: list[Any] = [current, window, candidates]
    runs: list[Any] = [again.click(shown, inputs, outputs, **common)]
    kept = source.submit(chosen, None, current, queue=False, api_visibility="private")
    runs.append(kept.then(shown, inputs, outputs, **common))
    source.submit(None, cancels=runs)  # a new recording ends the work on the one before
