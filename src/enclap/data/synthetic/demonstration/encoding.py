"""Made sounds as files of the usual kinds, in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import cast

import av
import numpy as np

from enclap.data.synthetic.signals import RATE
from enclap.types import FloatArray


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How FFmpeg calls a container, its codec and the codec's samples.

    bit_rate: bits per second, None for what loses nothing. rate: the samples per second that the codec takes.
    """

    container: str
    codec: str
    samples: str
    bit_rate: int | None = None
    rate: int = RATE


FORMATS = {
    "wav": FileFormat("wav", "pcm_s16le", "s16"),
    "flac": FileFormat("flac", "flac", "s16"),
    "mp3": FileFormat("mp3", "libmp3lame", "fltp", 64_000),
    "m4a": FileFormat("ipod", "aac", "fltp", 96_000),
    "ogg": FileFormat("ogg", "libopus", "flt", 64_000, rate=48_000),  # Opus takes no 32 kHz
}
"""By the ending of a file's name."""


def encode(samples: FloatArray, ending: str) -> bytes:
    """A file of float32 [N] at `RATE`, mono, in the format of such an ending; the same FFmpeg gives the same bytes."""
    form = FORMATS[ending]
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis], "flt", "mono")
    frame.sample_rate = RATE
    file = io.BytesIO()
    with av.open(file, "w", form.container, options={"fflags": "+bitexact"}) as container:
        stream = cast(av.AudioStream, container.add_stream(form.codec, rate=form.rate))
        stream.codec_context.layout = "mono"
        stream.codec_context.format = form.samples
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if form.bit_rate is not None:
            stream.codec_context.bit_rate = form.bit_rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
