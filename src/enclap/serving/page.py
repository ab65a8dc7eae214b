"""The page at `/`: drop a sound, see what is heard in it, window by window. Built with Gradio, all served from here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette

from enclap.audio.read import open_audio
from enclap.errors import EnclapError
from enclap.serving.captions import CaptionForm, closing_stream
from enclap.serving.gradio_app import gr, mount_page
from enclap.serving.page_parts import captions_html, downloads_html, message_html, peaks_of, player_html
from enclap.serving.problems import INTERNAL
from enclap.serving.recordings import CaptionService, NamedFile
from enclap.types import Caption

KEPT_SECONDS = 3600  # of what was uploaded on the page
COLUMNS = ["start", "end", "caption", "score"]
HEADING = """# What can be heard?
Drop a sound or a film, or record one; a sentence for every ten seconds appears below as soon as it is there."""
MICROPHONE = "The microphone works on this machine (localhost) or over HTTPS; elsewhere browsers do not allow it."


@dataclass
class View:
    """What the page shows of one recording; model: None until it has all captions."""

    message: str = ""
    url: str = ""
    name: str = ""
    peaks: list[float] | None = None
    captions: list[Caption] = field(default_factory=list)
    model: str | None = None
    is_error: bool = False
    player_shown: str | None = None

    def outputs(self) -> tuple[Any, ...]:
        """The values of message, player, captions, table and downloads."""
        player = player_html(self.url, self.name, self.peaks) if self.url else ""
        changed = gr.skip() if player == self.player_shown else player  # a player that is drawn again stops playing
        self.player_shown = player
        head = (message_html(self.message, self.is_error), changed, captions_html(self.captions))
        if self.model is None:
            return (*head, [], "") if not self.captions else (*head, gr.skip(), gr.skip())
        rows = [
            [f"{item.start:.1f}", f"{item.end:.1f}", item.text, "" if item.score is None else f"{item.score:.2f}"]
            for item in self.captions
        ]
        return (*head, rows, downloads_html(self.name, self.captions, self.model))


def page_app(service: CaptionService) -> Starlette:
    """The page as an application of its own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    return mount_page(
        app,
        _blocks(service),
        path="/",
        css="",
        script="",
        root_path=service.settings.root_path or None,
        max_file_size=service.settings.max_upload,
    )


def _blocks(service: CaptionService) -> Any:
    with gr.Blocks(analytics_enabled=False, title="enclap", delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gr.Markdown(HEADING)
        with gr.Row():
            file = gr.File(label="Sound or film", type="filepath", elem_id="upload", min_width=280)
            voice = gr.Audio(
                label="Microphone", sources=["microphone"], type="filepath", elem_id="microphone", min_width=280
            )
        gr.Markdown(MICROPHONE)
        with gr.Accordion("Settings", open=False):
            longest = int(service.captioner.longest_window)
            window = gr.Slider(1, longest, value=min(10, longest), step=1, label="Seconds per caption")
            candidates = gr.Slider(1, 16, value=1, step=1, label="Sentences to propose for each caption")
            again = gr.Button("Caption again with these settings")
        message, player, captions = (gr.HTML(elem_id=name) for name in ("message", "player", "captions"))
        downloads = gr.HTML(elem_id="downloads")
        with gr.Accordion("As a table to copy", open=False):
            table = gr.Dataframe(headers=COLUMNS, interactive=False, wrap=True, label="Captions")

        async def shown(path: str | None, window: float, candidates: float) -> AsyncGenerator[tuple[Any, ...], None]:
            async for view in caption_views(service, path, window, int(candidates)):
                yield view.outputs()

        source = gr.State()
        outputs: list[Any] = [message, player, captions, table, downloads]
        common: dict[str, Any] = {"concurrency_limit": service.settings.queue, "show_progress": "hidden"}
        common |= {"api_visibility": "private"}
        inputs: list[Any] = [source, window, candidates]
        runs: list[Any] = [again.click(shown, inputs, outputs, **common)]
        for part in (file, voice):
            kept = part.change(lambda path: path, part, source, queue=False, api_visibility="private")
            runs.append(kept.then(shown, inputs, outputs, **common))
        for part in (file, voice):  # a new recording ends the work on the one before
            part.change(None, cancels=runs)
    blocks.queue(default_concurrency_limit=service.settings.queue, max_size=service.settings.queue)
    return blocks


async def caption_views(
    service: CaptionService, path: str | None, window: float, candidates: int
) -> AsyncGenerator[View, None]:
    """What the page shows, again after each window; faults are shown in words."""
    if path is None:
        yield View("Drop a file above, or record something.")
        return
    name = Path(path).name
    url = f"{service.settings.root_path}/gradio_api/file={path}"
    view = View(f"Listening to {name} …", url, name)
    yield view
    peaks = asyncio.create_task(asyncio.to_thread(_peaks, path, name, service))
    entered = False
    try:
        service.enter()
        entered = True
        form = CaptionForm(window=window, candidates=candidates)
        service.check(form.settings)
        recording = NamedFile(Path(path).open("rb"), name)  # noqa: SIM115 - the thread that reads it closes it
        async with closing_stream(service, recording, form.settings) as found:
            async for caption in found:
                view.captions.append(caption)
                view.peaks = peaks.result() if peaks.done() else None
                view.message = f"{name}: {caption.end:.0f} s captioned"
                yield view
        view.peaks = await peaks
        view.model = service.model
        view.message = f"{name}: {view.captions[-1].end:.1f} s, {len(view.captions)} captions"
    except EnclapError as error:
        view.message = str(error) if error.http_status < 500 else INTERNAL
        view.is_error = True
    finally:
        if entered:
            service.leave()
        peaks.cancel()
    yield view


def _peaks(path: str, name: str, service: CaptionService) -> list[float]:
    """The waveform; none of a recording that cannot be read, whose captions will say why."""
    try:
        with (
            Path(path).open("rb") as file,
            open_audio(NamedFile(file, name).source, service.settings.read_limits) as audio,
        ):
            return peaks_of(block.samples for block in audio.blocks)
    except EnclapError:
        return []
