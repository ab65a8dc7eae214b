"""The parts of the page that are drawn by hand: player, waveform and captions, as HTML without a script in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import PurePath
from urllib.parse import quote

import numpy as np

from enclap.output.formats import FORMATS, clock
from enclap.types import Caption, CaptionResult, FloatArray

PEAKS = 600  # bars of the waveform, however long the recording is
VIDEO = re.compile(r"\.(mp4|m4v|webm|mkv|mov|ogv)$", re.IGNORECASE)


def peaks_of(blocks: Iterable[FloatArray], bars: int = PEAKS) -> list[float]:
    """The loudest sample of each of at most `bars` equal parts, 0 to 1; the whole is never held.

    blocks: mono float32 [n]. Parts double in length whenever there are too many of them.
    """
    step, filled, loudest = 1024, 0, 0.0
    peaks: list[float] = []
    for block in blocks:
        start = 0
        while start < len(block):
            piece = block[start : start + step - filled]
            start, filled = start + len(piece), filled + len(piece)
            loudest = max(loudest, float(np.abs(piece).max()))
            if filled < step:
                continue
            peaks.append(loudest)
            filled, loudest = 0, 0.0
            if len(peaks) == 2 * bars:
                peaks = [max(pair) for pair in zip(peaks[::2], peaks[1::2], strict=True)]
                step *= 2
    if filled:
        peaks.append(loudest)
    if len(peaks) > bars:
        peaks = [max(peaks[index : index + 2]) for index in range(0, len(peaks), 2)]
    return [min(1.0, peak) for peak in peaks]


def player_html(url: str, name: str, peaks: Sequence[float] | None) -> str:
    """Player and waveform of a recording; a place for the waveform while it is being drawn."""
    kind = "video" if VIDEO.search(name) else "audio"
    label = escape(f"Player for {name}", quote=True)
    source = escape(quote(url, safe="/:=?&%"), quote=True)
    media = f'<{kind} controls preload="metadata" src="{source}" aria-label="{label}">'
    subtitle = '<div id="enclap-subtitle" aria-hidden="true"></div>' if kind == "video" else ""
    wave = ""
    if peaks is not None:
        lines = [f"M{number} {50 - 48 * peak:.1f}V{50 + 48 * peak + 0.5:.1f}" for number, peak in enumerate(peaks)]
        path = f'<path d="{"".join(lines)}" stroke="currentColor" stroke-width="0.7"/>'
        wave = f'<svg viewBox="-0.5 0 {len(peaks)} 100" preserveAspectRatio="none">{path}</svg>'
    return (
        f'<div id="enclap-player">{media}</{kind}>{subtitle}<div id="enclap-wave" aria-hidden="true">{wave}</div></div>'
    )


def captions_html(captions: Sequence[Caption]) -> str:
    """A list of captions; each is a button that plays the recording from there."""
    items = ""
    for caption in captions:
        times = f"{clock(caption.start)} – {clock(caption.end)}"
        style = "sentence unsure" if is_vague(caption) else "sentence"
        button = (
            f'<button type="button" data-start="{caption.start:.3f}" data-end="{caption.end:.3f}">'
            f'<span class="time">{times}</span><span class="{style}">{escape(caption.text)}</span></button>'
        )
        rows = ""
        if len(caption.candidates) > 1 or is_vague(caption):
            for item in caption.candidates:
                meter = "<span></span>"
                if 0 <= item.score <= 1:
                    meter = f'<meter min="0" max="1" value="{item.score:.4f}" aria-label="score"></meter>'
                text = escape(item.text)
                rows += f'<div class="candidate">{meter}<span>{item.score:.2f}</span><span>{text}</span></div>'
            rows = f"<details><summary>What the model proposed</summary>{rows}</details>"
        items += f"<li>{button}{rows}</li>"
    return f'<ol class="enclap-captions" aria-label="Captions">{items}</ol>'


def downloads_html(name: str, captions: Sequence[Caption], model: str) -> str:
    """A link for each format that holds the file itself, so that the server keeps none."""
    result = CaptionResult(name, captions[-1].end, tuple(captions))
    links = []
    for style, form in FORMATS.items():
        content = b"".join(form.encoded([result], model))
        file = escape(PurePath(name).stem + form.suffix, quote=True)
        data = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
        links.append(f'<a download="{file}" href="{data}">{style}</a>')
    return f'<nav class="enclap-downloads" aria-label="Downloads">Download: {" ".join(links)}</nav>'


def message_html(text: str, is_error: bool = False) -> str:
    """A line that a screen reader reads out when it changes."""
    role, style = ("alert", "enclap-error") if is_error else ("status", "enclap-status")
    return f'<div role="{role}" class="{style}">{escape(text)}</div>'


def is_vague(caption: Caption) -> bool:
    """Whether a vaguer sentence is shown than the model's best, because that one is probably wrong."""
    return bool(caption.candidates) and all(item.text != caption.text for item in caption.candidates)
