"""The page on which people rate: one caption at a time, its recording above it, three questions below. With Gradio.

Nothing of a visit is kept in the server: every request says which caption is on the screen, and every answer is in the
table of answers before the page says so. A page that is loaded again, or a server that is started again, goes on where
the first answer is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette

from enclap.rating.answers import AnswerStore
from enclap.rating.scales import POINTS, SCALE_NAMES, SCALES, Scale
from enclap.rating.study import Study
from enclap.serving.gradio_app import gr, mount_page
from enclap.serving.page_parts import message_html, player_html, wave_html

HERE = Path(__file__).parent
HEADING = "# Rate captions"
HELP = """Listen to the recording, read the caption, answer the three questions for this caption alone. Captions were
written by people or by programs; nobody who rates is told which. Every answer is kept at once: you may close the page
and come back to it.

Keys: **1** to **4** answer the marked question, **G**, **R** and **C** mark another one, **Enter** goes on,
**Backspace** goes back, **Space** plays and stops."""
DONE = "That was all of it. Thank you! You may go back and change answers, or close the page."
INCOMPLETE = "Answer all three questions first."


@dataclass(frozen=True, slots=True)
class Position:
    """Where a rater is: the place in the rater's order, 0 for the first caption. message: what the page says."""

    place: int
    message: str = ""
    is_error: bool = False


class RatingPage:
    """What the page shows and keeps. A caption on the screen is called by its place in its rater's order."""

    def __init__(self, root: str, study: Study, answers: AnswerStore) -> None:
        self._root = root
        self._study = study
        self._answers = answers
        self._orders = {rater: study.order(rater) for rater in range(1, len(study.codes) + 1)}

    def begin(self, rater: int) -> Position:
        """The first caption that lacks an answer; the last one when there is none."""
        answered = self._answers.of_rater(rater)
        order = self._orders[rater]
        missing = (place for place, caption in enumerate(order) if len(answered.get(caption, {})) < len(SCALES))
        place = next(missing, None)
        return Position(len(order) - 1, DONE) if place is None else Position(place)

    def keep(self, rater: int, place: int, values: Mapping[str, int | None]) -> None:
        """Keep what was answered of the caption at a place; ValueError for a place or value that there is not."""
        if not 0 <= place < len(self._orders[rater]):
            raise ValueError("a caption that there is not")
        clip, item = self._orders[rater][place]
        given = {name: int(value) for name, value in values.items() if value is not None}
        if not set(given.values()) <= set(POINTS):
            raise ValueError("a value that is no point of the scale")
        self._answers.keep(rater, clip, item, given)

    def go_on(self, rater: int, place: int, values: Mapping[str, int | None]) -> Position:
        """Keep the answers, and give the next place when they are complete."""
        self.keep(rater, place, values)
        if None in values.values():
            return Position(place, INCOMPLETE, is_error=True)
        if place + 1 < len(self._orders[rater]):
            return Position(place + 1)
        return self.begin(rater)

    def go_back(self, rater: int, place: int, values: Mapping[str, int | None]) -> Position:
        """Keep the answers, complete or not, and give the place before."""
        self.keep(rater, place, values)
        return Position(max(0, place - 1))

    def shown(self, rater: int, position: Position) -> tuple[Any, ...]:
        """The values of place, progress, player, caption, the three questions and the message."""
        order = self._orders[rater]
        clip, item = order[position.place]
        answered = self._answers.of_rater(rater)
        own = answered.get((clip, item), {})
        complete = sum(len(values) == len(SCALES) for values in answered.values())
        number = list(dict.fromkeys(clip for clip, _ in order)).index(clip) + 1
        name = f"recording {number}"  # its file's name could tell what to hear
        player = player_html(f"{self._root}/audio/{clip}", name) + wave_html(self._study.clips[clip].peaks)
        text = self._study.clips[clip].items[item].text
        captions = len(self._study.clips[clip].items)
        nth = 1 + [other for other in order if other[0] == clip].index((clip, item))
        where = f"Recording {number} of {len(self._study.clips)}, caption {nth} of {captions}"
        bar = f'<progress value="{complete}" max="{len(order)}" aria-label="captions rated"></progress>'
        return (
            str(position.place),
            f'<div class="rate-progress"><span>{where}</span>{bar}<span>{complete} of {len(order)} rated</span></div>',
            player,
            f'<blockquote class="rate-caption" data-place="{position.place}">{escape(text)}</blockquote>',
            *(own.get(name) for name in SCALE_NAMES),
            message_html(position.message, position.is_error),
        )

    def saved(self, rater: int, place: int, values: Mapping[str, int | None]) -> str:
        """Keep the answers; what the page says then."""
        self.keep(rater, place, values)
        count = sum(value is not None for value in values.values())
        return message_html(f"Saved: {count} of {len(values)} answers")


def add_page(app: FastAPI, root: str, study: Study, answers: AnswerStore) -> Starlette:
    """The application with the page below the path `root`."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return mount_page(app, _blocks(RatingPage(root, study, answers)), root, style, script, max_file_size=1)


def _blocks(page: RatingPage) -> Any:
    with gr.Blocks(analytics_enabled=False, title="Rate captions") as blocks:
        gr.Markdown(HEADING)
        progress, player, caption = (gr.HTML(elem_id=name) for name in ("rate-progress", "player", "rate-caption"))
        place = gr.Textbox(visible="hidden", elem_id="rate-place")
        questions = [question_about(scale) for scale in SCALES]
        message = gr.HTML(elem_id="rate-message")
        with gr.Row(elem_id="rate-buttons"):
            back = gr.Button("Back", elem_id="rate-back")
            forward = gr.Button("Next", variant="primary", elem_id="rate-next")
        with gr.Accordion("How to rate, and keys", open=False):
            gr.Markdown(HELP)

        def begin(request: gr.Request) -> tuple[Any, ...]:
            return page.shown(rater_of(request), page.begin(rater_of(request)))

        def saved(request: gr.Request, place: str, *values: int | None) -> str:
            return page.saved(rater_of(request), int(place), by_scale(values))

        def go_on(request: gr.Request, place: str, *values: int | None) -> tuple[Any, ...]:
            return page.shown(rater_of(request), page.go_on(rater_of(request), int(place), by_scale(values)))

        def go_back(request: gr.Request, place: str, *values: int | None) -> tuple[Any, ...]:
            return page.shown(rater_of(request), page.go_back(rater_of(request), int(place), by_scale(values)))

        typed: list[Any] = [place, *questions]
        everything: list[Any] = [place, progress, player, caption, *questions, message]
        common: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 1}
        blocks.load(begin, None, everything, **common)
        for question in questions:
            question.input(saved, typed, message, **common)
        forward.click(go_on, typed, everything, **common)
        back.click(go_back, typed, everything, **common)
    blocks.queue()
    return blocks


def question_about(scale: Scale) -> gr.Radio:
    """The question of a scale, with the number of each point before its meaning."""
    choices = [(f"{point}  {meaning}", point) for point, meaning in zip(POINTS, scale.points, strict=True)]
    return gr.Radio(choices, label=scale.question, elem_id=f"rate-{scale.name}", elem_classes="rate-scale")


def by_scale(values: Sequence[int | None]) -> dict[str, int | None]:
    """The values of the questions by the names of their scales."""
    return dict(zip(SCALE_NAMES, values, strict=True))


def rater_of(request: gr.Request) -> int:
    """The number of the rater, which the gate has put beside the request."""
    assert request.request is not None
    rater: int = request.request.state.rater
    return rater
