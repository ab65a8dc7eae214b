"""`--plot`: a recording's spectrogram with its captions along time, for people who would rather look."""

from __future__ import annotations

import importlib.util
import math
import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enclap.audio.read import open_audio
from enclap.audio.spectrogram import BANDS, frequency_heights, reduced_spectrogram
from enclap.errors import MissingExtra, UsageError
from enclap.files import is_stream, replacement_file, require_parent, translate_write_errors
from enclap.output.formats import clock
from enclap.output.inputs import STANDARD_INPUT, Input, InputFile
from enclap.output.plan import Plan, is_in_the_way, refuse_inputs
from enclap.text import printable
from enclap.types import Caption, CaptionResult, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
SLOTS, MOST_ROWS = 6, 16  # captions beside one another, rows below one another; more audio is summed up
WIDTH, LEFT, RIGHT = 12.0, 0.62, 0.2  # inches, of the picture and of its margins
SPECTROGRAM, LANE, GAP, TOP, BOTTOM = 1.5, 0.7, 0.5, 0.6, -0.15  # inches
DOTS = 120  # per inch
COLUMNS = 1000  # of the spectrogram in each row
RANGE = 75.0  # decibels from the loudest to white
FONT, LINES = 8.5, 4  # points; lines of a caption at most
LETTER = 0.53  # mean width of a letter, in font sizes
INK, FAINT, PAPER, QUIET = "#1f2933", "#7b8794", "#e8f0f7", "#f4f4f4"


@dataclass(frozen=True, slots=True)
class Slot:
    """A segment of time and what is written under it."""

    start: float
    end: float
    text: str
    silence: bool


def check_plot(target: str, inputs: Sequence[Input], plan: Plan, overwrite: bool) -> Path:
    """The file to draw; UsageError or MissingExtra when that cannot be, before any work is done."""
    path = Path(target)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {printable(target) or repr(target)}: the name must end in {' or '.join(SUFFIXES)}")
    if len(inputs) != 1:
        raise UsageError(f"--plot shows one recording, these are {len(inputs)}; name one")
    found = inputs[0]
    if isinstance(found, InputFile) and (found.path == STANDARD_INPUT or is_stream(Path(found.path))):
        raise UsageError("--plot reads the recording a second time; save it to a file and name that")
    require_parent(path)
    refuse_inputs([path], inputs)
    if os.path.realpath(path) in map(os.path.realpath, plan.files()):
        raise UsageError(f"--plot {printable(target)}: is an output of the captions too; name another file")
    if is_in_the_way(path) and not overwrite:
        raise UsageError(f"{printable(target)}: exists; --overwrite replaces it, or name another file")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--plot", "plot")
    return path


def draw(result: CaptionResult, target: Path) -> None:
    """Write the picture of the recording at `result.path`, which is read again."""
    rows = arranged(result.captions)
    span = max(row[-1].end - row[0].start for row in rows)
    with open_audio(result.path or STANDARD_INPUT) as audio:
        columns = math.ceil(COLUMNS * result.duration / span)
        decibels = reduced_spectrogram(audio.blocks, audio.rate, round(result.duration * audio.rate), columns)
        figure = Picture(result, rows, span, decibels, audio.rate).figure()
    form = target.suffix.lower().lstrip(".")
    metadata = {"Date": None} if form == "svg" else None  # the same recording gives the same file
    with replacement_file(target) as file, translate_write_errors(target), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(file, format=form, dpi=DOTS, metadata=metadata)


def arranged(captions: Sequence[Caption]) -> list[list[Slot]]:
    """Rows of at most `SLOTS` slots, `MOST_ROWS` rows at most; neighbours in a row with the same text are one slot.

    Where a slot must stand for several captions it has the commonest one, and says of how many.
    """
    group = max(1, math.ceil(len(captions) / (SLOTS * MOST_ROWS)))
    rows: list[list[Slot]] = []
    for number, start in enumerate(range(0, len(captions), group)):
        part = captions[start : start + group]
        (text, count), *_ = Counter(caption.text for caption in part).most_common(1)
        shown = text if count == len(part) else f"{text} ({count} of {len(part)})"
        slot = Slot(part[0].start, part[-1].end, shown, all(caption.silence for caption in part))
        if number % SLOTS == 0:
            rows.append([])
        elif rows[-1][-1].text == shown:
            slot = replace(slot, start=rows[-1].pop().start)
        rows[-1].append(slot)
    return rows


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn of a recording.

    span: seconds of the longest row. decibels: float32 [BANDS, columns], of all of it. rate: of its samples.
    """

    result: CaptionResult
    rows: list[list[Slot]]
    span: float
    decibels: FloatArray
    rate: int

    def figure(self) -> Figure:
        """All rows below one another, under the recording's name."""
        import matplotlib
        from matplotlib.figure import Figure

        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "enclap", "font.family": "DejaVu Sans"})
        height = TOP + BOTTOM + len(self.rows) * (SPECTROGRAM + LANE + GAP)
        figure = Figure(figsize=(WIDTH, height), facecolor="white")
        name = printable(Path(self.result.path or "audio").name)
        figure.text(LEFT / WIDTH, 1 - 0.3 / height, name, fontsize=11, color=INK, va="center", parse_math=False)
        length = clock(self.result.duration)
        figure.text(1 - RIGHT / WIDTH, 1 - 0.3 / height, length, fontsize=9, color=FAINT, va="center", ha="right")
        for number, row in enumerate(self.rows):
            top = height - TOP - number * (SPECTROGRAM + LANE + GAP)
            box = (LEFT, WIDTH - LEFT - RIGHT)
            above = _axes(figure, box, top - SPECTROGRAM, SPECTROGRAM, height)
            below = _axes(figure, box, top - SPECTROGRAM - GAP / 2 - LANE, LANE, height)
            for axes in (above, below):
                axes.set_xlim(row[0].start, row[0].start + self.span)
            self.draw_spectrogram(above, row)
            self.draw_captions(below, row)
        return figure

    def draw_spectrogram(self, axes: Axes, row: list[Slot]) -> None:
        """The row's part of the picture, with frequencies at its side and times under it."""
        start, end = row[0].start, row[-1].end
        columns, duration, loudest = self.decibels.shape[1], self.result.duration, float(self.decibels.max())
        first = min(round(start / duration * columns), columns - 1)
        part = self.decibels[:, first : max(first + 1, round(end / duration * columns))]
        extent = (start, end, 0, BANDS)
        axes.imshow(
            part, origin="lower", aspect="auto", extent=extent, cmap="Blues", vmin=loudest - RANGE, vmax=loudest
        )
        axes.set_xlim(start, axes.get_xlim()[1])
        marks = frequency_heights(self.rate)
        axes.set_yticks([BANDS * height for height in marks.values()], list(marks))
        moments = np.unique([slot.start for slot in row] + [end])
        axes.set_xticks(moments, [clock(moment) for moment in moments])
        axes.set_ylim(0, BANDS)

    def draw_captions(self, axes: Axes, row: list[Slot]) -> None:
        """A box for each slot, as wide as its time, with as much of its text as it can hold."""
        from matplotlib.patches import Rectangle

        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylim(0, 1)
        inches = (WIDTH - LEFT - RIGHT) / self.span
        for slot in row:
            gap = 0.03 / inches
            width = slot.end - slot.start - gap
            axes.add_patch(
                Rectangle((slot.start + gap / 2, 0), max(width, gap), 1, color=QUIET if slot.silence else PAPER, lw=0)
            )
            letters = max(4, int((width * inches - 0.16) * 72 / (FONT * LETTER)))
            lines = textwrap.wrap(printable(slot.text), letters, max_lines=LINES, placeholder=" ...")
            axes.text(
                (slot.start + slot.end) / 2,
                0.5,
                "\n".join(lines),
                fontsize=FONT,
                color=FAINT if slot.silence else INK,
                ha="center",
                va="center",
                parse_math=False,
            )


def _axes(figure: Figure, box: tuple[float, float], bottom: float, height: float, whole: float) -> Axes:
    """Bare axes at a position given in inches. box: left edge and width."""
    axes = figure.add_axes((box[0] / WIDTH, bottom / whole, box[1] / WIDTH, height / whole))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=FONT, colors=FAINT)
    return axes
