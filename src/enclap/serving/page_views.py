"""What the page shows of a recording, again after each window."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import Any

from enclap.errors import EnclapError
from enclap.output.formats import clock
from enclap.serving.captions import CaptionForm, closing_stream
from enclap.serving.page_parts import (
    caption_row,
    downloads_html,
    message_html,
    pictures_html,
    player_html,
    progress_html,
    table_html,
)
from enclap.serving.page_pictures import Outline, outline_of
from enclap.serving.page_recordings import RECORDINGS, PageRecording, PageRecordings
from enclap.serving.problems import INTERNAL
from enclap.serving.recordings import CaptionService
from enclap.types import Caption, CaptionResult

LIVE_SECONDS = 5.0  # per caption of what is being recorded
LIVE = "Recording. A caption comes for every few seconds of sound."


@dataclass
class View:
    """What the page shows of one recording. Of the captions it tells the number; the page fetches the new ones.

    address: below which the page asks for it. outline: once the waveform is known. declared: the length that the
    recording states. is_live: it is still being recorded, so there is nothing to play. is_done: all captions are here.
    """

    message: str = ""
    address: str = ""
    name: str = ""
    outline: Outline | None = None
    captions: list[Caption] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    declared: float | None = None
    is_live: bool = False
    is_done: bool = False
    is_error: bool = False
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def show_all(self, recording: PageRecording) -> None:
        """The last view: all captions are there, and can be taken away."""
        end = self.captions[-1].end
        recording.result = CaptionResult(recording.name, end, tuple(self.captions))
        count = "1 caption" if len(self.captions) == 1 else f"{len(self.captions)} captions"
        self.message = f"{recording.name}: {clock(end)}, {count}"
        self.outline, self.is_live, self.is_done = recording.outline, False, True

    def outputs(self) -> tuple[Any, ...]:
        """The values of message, progress, player, waveform, captions and results."""
        seconds = self.captions[-1].end if self.captions else 0.0
        works = bool(self.address) and not (self.is_done or self.is_error)
        is_playable = bool(self.address) and not self.is_live and bool(self.captions or not self.is_error)
        return (
            message_html(self.message, self.is_error),
            progress_html(seconds, self.declared) if works and not self.is_live else "",
            player_html(f"{self.address}/sound", self.name) if is_playable else "",
            pictures_html(self.outline, f"{self.address}/spectrogram") if is_playable and self.outline else "",
            {"run": self.run, "live": self.is_live, "count": len(self.rows), "address": f"{self.address}/rows"},
            downloads_html(f"{self.address}/captions") + table_html(self.captions) if self.is_done else "",
        )


async def caption_views(
    service: CaptionService, recordings: PageRecordings, id: str, owner: str | None, window: float, candidates: int
) -> AsyncGenerator[View, None]:
    """Views of a recording until all captions are there, or the reason why there are none is told in words.

    What is being recorded gets shorter windows, so that its captions do not lag behind.
    """
    with ExitStack() as held:
        view = View("Drop a sound or record one first.")
        if not id:
            yield view
            return
        try:
            recording = recordings.find(id, owner)
            service.enter()
            held.callback(service.leave)
            held.callback(recording.end)
            view.name, view.is_live = recording.name, recording.is_live
            view.address = f"{service.settings.root_path}{RECORDINGS}/{id}"
            recording.run, recording.rows = view.run, view.rows
            view.message = LIVE if view.is_live else f"Listening to {recording.name} …"
            form = CaptionForm(window=min(window, LIVE_SECONDS) if view.is_live else window, candidates=candidates)
            service.check(form.settings)
            drawing = None if view.is_live else asyncio.create_task(drawn(recording, service))
            async with closing_stream(service, file := recording.opened(), form.settings) as found:
                yield view
                async for caption in found:
                    view.captions.append(caption)
                    view.rows.append(caption_row(caption))
                    view.declared, view.outline = file.declared_seconds, recording.outline
                    yield view
            recording.end()
            await (drawing or drawn(recording, service))
            view.show_all(recording)
        except EnclapError as error:
            view.message = str(error) if error.http_status < 500 else INTERNAL
            view.is_error, view.is_live = True, False
    yield view


async def drawn(recording: PageRecording, service: CaptionService) -> None:
    """Draw the waveform, once; one that cannot be read has none, and its captions will say why."""
    if recording.outline is None:
        with suppress(EnclapError, FileNotFoundError), closing(recording.opened()) as file:  # replaced meanwhile
            recording.outline = await asyncio.to_thread(outline_of, file.source, service.settings.read_limits)
