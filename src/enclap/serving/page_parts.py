"""The parts of the page that are drawn by hand, as HTML without a script in it: input, player, waveform, captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from enclap.output.formats import FORMATS, clock
from enclap.serving.page_pictures import Outline
from enclap.types import Caption

VIDEO = re.compile(r"\.(mp4|m4v|webm|mkv|mov|ogv)$", re.IGNORECASE)
MEGABYTE = 2**20
COLUMNS = ("Start", "End", "Caption", "Score")
LEVEL = '<meter id="enclap-level" min="0" max="1" value="0" aria-label="Level of the microphone"></meter>'


def input_html(address: str, examples: Mapping[str, str], most_bytes: int) -> str:
    """Where a recording is dropped, chosen, made, or taken from the examples; the script does it.

    address: below which recordings are sent. examples: what the server calls them -> what people do.
    """
    buttons = "".join(
        f'<button type="button" class="enclap-example" data-example="{escape(name)}">{escape(title)}</button>'
        for name, title in examples.items()
    )
    return f"""<section id="enclap-input" aria-label="Recording" data-address="{escape(address)}"
  data-most="{most_bytes}" data-most-shown="{most_bytes / MEGABYTE:.0f} MB">
<div id="enclap-drop">
  <p id="enclap-invitation">Drop a sound or a film anywhere on this page</p>
  <div class="enclap-buttons">
    <label class="enclap-button" for="enclap-file">Choose a file<input id="enclap-file" type="file"></label>
    <button type="button" class="enclap-button" id="enclap-record"><span aria-hidden="true" class="dot"></span>
      <span class="words">Record</span></button>
  </div>
  <div id="enclap-recording" hidden><span id="enclap-clock" role="timer">0:00</span>{LEVEL}</div>
  <div id="enclap-sending" hidden><progress aria-label="Sent to the server" max="1" value="0"></progress>
    <button type="button" class="enclap-example" id="enclap-stop-sending">Cancel</button></div>
  <p class="enclap-hint" id="enclap-microphone">The microphone works over HTTPS or on this machine (localhost);
    elsewhere browsers do not allow it.</p>
  <p id="enclap-fault" role="alert" class="enclap-error"></p>
</div>
<p id="enclap-examples"><span>Or try</span> {buttons}</p>
</section>"""


def player_html(url: str, name: str) -> str:
    """The player of a recording."""
    kind = "video" if VIDEO.search(name) else "audio"
    label = escape(f"Player for {name}")
    source = escape(quote(url, safe="/:=?&%"))
    media = f'<{kind} controls preload="metadata" src="{source}" aria-label="{label}"></{kind}>'
    return f'<div id="enclap-player">{media}<p class="enclap-hint" id="enclap-unplayable" hidden></p></div>'


def wave_html(peaks: Sequence[float]) -> str:
    """The waveform, over which the script moves. peaks: 0 to 1, of equal parts of the recording."""
    lines = [f"M{number} {50 - 48 * peak:.1f}V{50 + 48 * peak + 0.5:.1f}" for number, peak in enumerate(peaks)]
    path = f'<path d="{"".join(lines)}" stroke="currentColor" stroke-width="0.7"/>'
    box = f'viewBox="-0.5 0 {max(1, len(peaks))} 100" preserveAspectRatio="none"'
    return f'<div id="enclap-wave" aria-hidden="true"><div class="now"></div><svg {box}>{path}</svg></div>'


def pictures_html(outline: Outline, address: str) -> str:
    """The waveform, and under it the spectrogram of an address, which the script asks for when it is unfolded."""
    source = escape(f"{address}?seconds={outline.seconds:.3f}")
    marks = "".join(
        f'<span style="bottom:max(0px, {100 * at:.1f}% - 0.5rem)">{name}</span>' for name, at in outline.marks.items()
    )
    marks = f'<div class="marks" aria-hidden="true">{marks}</div>'
    picture = f'<div id="enclap-spectrogram" data-address="{source}">{marks}</div>'
    folded = f'<details id="enclap-frequencies"><summary>Spectrogram</summary>{picture}</details>'
    return wave_html(outline.peaks) + folded


def caption_row(caption: Caption) -> str:
    """A caption as an item of a list: a button that plays the recording from there, and what the model proposed."""
    vague = is_vague(caption)
    times = f"{clock(caption.start)} – {clock(caption.end)}"
    badge = ' <span class="badge">unsure</span>' if vague else ""
    style = "sentence quiet" if caption.silence else "sentence"
    text = f'<span><span class="{style}">{escape(caption.text)}</span>{badge}</span>'
    button = (
        f'<button type="button" class="caption" data-start="{caption.start:.3f}" data-end="{caption.end:.3f}">'
        f'<span class="time">{times}</span> {text}</button>'
    )
    if not (vague or len(caption.candidates) > 1):
        return f"<li>{button}</li>"
    rows = ""
    for item in caption.candidates:
        meter = "<span></span>"
        if 0 <= item.score <= 1:
            label = escape(f"Score of: {item.text}")
            meter = f'<meter min="0" max="1" value="{item.score:.4f}" aria-label="{label}"></meter>'
        rows += f"<li>{meter}<span>{item.score:.2f}</span><span>{escape(item.text)}</span></li>"
    title = f"{len(caption.candidates)} sentences and their scores"
    if vague:
        title = "A vaguer sentence stands in for one that is probably wrong"
    return f"<li>{button}<details><summary>{title}</summary><ul>{rows}</ul></details></li>"


def downloads_html(address: str) -> str:
    """A link for each format of the captions at an address."""
    links = " ".join(f'<a download href="{escape(f"{address}?format={style}")}">{style}</a>' for style in FORMATS)
    return f'<nav class="enclap-downloads" aria-label="Download the captions"><span>Download</span> {links}</nav>'


def table_html(captions: Sequence[Caption]) -> str:
    """The captions as a table, folded away, with a button that copies it."""
    head = "".join(f'<th scope="col">{title}</th>' for title in COLUMNS)
    rows = ""
    for item in captions:
        score = "" if item.score is None else f"{item.score:.2f}"
        cells = (f"{item.start:.1f}", f"{item.end:.1f}", escape(item.text), score)
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    copy = '<button type="button" class="enclap-example" id="enclap-copy">Copy the table</button>'
    copied = '<span role="status" id="enclap-copied"></span>'
    area = f'<div class="scrolled" role="region" aria-label="Captions as a table" tabindex="0">{table}</div>'
    return f'<details id="enclap-table"><summary>As a table</summary><p>{copy} {copied}</p>{area}</details>'


def progress_html(seconds: float, declared: float | None) -> str:
    """How far the captions are; no bar where the recording does not say how long it is, or says nonsense."""
    if declared is None or declared < seconds:
        return f'<div class="enclap-progress"><span>{clock(seconds)} captioned</span></div>'
    bar = f'<progress max="{declared:.1f}" value="{seconds:.1f}" aria-label="Captioned"></progress>'
    return f'<div class="enclap-progress">{bar}<span>{clock(seconds)} of {clock(declared)}</span></div>'


def message_html(text: str, is_error: bool = False) -> str:
    """A line that a screen reader reads out when it changes."""
    role, style = ("alert", "enclap-error") if is_error else ("status", "enclap-status")
    return f'<div role="{role}" class="{style}">{escape(text)}</div>'


def is_vague(caption: Caption) -> bool:
    """Whether a vaguer sentence is shown than the model's best, because that one is probably wrong."""
    return bool(caption.candidates) and all(item.text != caption.text for item in caption.candidates)
