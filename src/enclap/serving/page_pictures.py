"""The pictures of a recording on the page, drawn here so that an hour of sound costs a browser as much as a second."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enclap.audio.read import Source, open_audio
from enclap.audio.source import ReadLimits
from enclap.audio.spectrogram import frequency_heights, reduced_spectrogram
from enclap.types import Block, FloatArray

PEAKS = 600  # bars of the waveform, however long the recording is
LONGEST_PIECE = 2**20  # samples of silence that are held at once
COLUMNS = 1200  # of the spectrogram, however long the recording is
RANGE = 75.0  # decibels from the loudest to the darkest
COLOURS = ((6, 8, 34), (62, 22, 108), (150, 38, 118), (225, 84, 88), (252, 166, 92), (254, 245, 186))
"""From quiet to loud, evenly spaced: light grows all the way, so that it reads without telling colours apart."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The waveform of a recording: peaks from 0 to 1 for equal parts of `seconds`; see `peaks_of`.

    marks: where frequencies are in its spectrogram, 0 at the bottom and 1 at the top.
    """

    peaks: Sequence[float]
    seconds: float
    marks: Mapping[str, float]


def outline_of(source: Source, limits: ReadLimits) -> Outline:
    """The waveform of a recording of any length; raises the InputError of one that cannot be read."""
    with open_audio(source, limits) as audio:
        peaks, end = peaks_of(audio.blocks)
        return Outline(peaks, end / audio.rate, frequency_heights(audio.rate))


def peaks_of(blocks: Iterable[Block], bars: int = PEAKS) -> tuple[list[float], int]:
    """The loudest sample of each of at most `bars` equal parts, 0 to 1, and where the sound ends, in samples.

    blocks: mono, on the recording's own time line; gaps are silence. Nothing but a block is held: parts double in
    length whenever there are too many of them.
    """
    step, filled, loudest, end = 1024, 0, 0.0, 0
    peaks: list[float] = []
    for piece in _without_gaps(blocks):
        end += len(piece)
        start = 0
        while start < len(piece):
            part = piece[start : start + step - filled]
            start, filled = start + len(part), filled + len(part)
            loudest = max(loudest, float(np.abs(part).max()))
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
    return [min(1.0, peak) for peak in peaks], end


def _without_gaps(blocks: Iterable[Block]) -> Iterator[FloatArray]:
    """The samples, with zeros where there is a gap before a block."""
    end = 0
    for block in blocks:
        while end < block.start:
            gap = min(LONGEST_PIECE, block.start - end)
            yield np.zeros(gap, np.float32)
            end += gap
        yield block.samples.astype(np.float32, copy=False)
        end = max(end, block.end)


def spectrogram_png(source: Source, limits: ReadLimits, seconds: float) -> bytes:
    """A picture of `seconds` of sound, its lowest frequency at the bottom; `frequency_heights` says which is where.

    Raises the InputError of a source that cannot be read.
    """
    from PIL import Image  # here: Gradio brings it, and nothing else needs it

    with open_audio(source, limits) as audio:
        decibels = reduced_spectrogram(audio.blocks, audio.rate, round(seconds * audio.rate), COLUMNS)
    scaled = np.clip(1 + (decibels - decibels.max()) / RANGE, 0, 1)
    picture = Image.fromarray(np.round(255 * scaled[::-1]).astype(np.uint8), "P")  # the highest band on top
    places = np.linspace(0, 255, len(COLOURS))
    shades = np.stack([np.interp(np.arange(256), places, part) for part in np.transpose(COLOURS)], axis=1)
    picture.putpalette(np.round(shades).astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
