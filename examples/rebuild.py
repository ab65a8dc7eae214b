"""Rebuilds the example sounds of this folder from enclap.data.synthetic.tones: `make examples`.

Everything in them is made by the project itself and dedicated to the public domain (CC0 1.0). The containers
differ, to show that any kind of file will do; `long_scene.mp3` is long enough for three windows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from enclap.data.synthetic.tones import RATE, synthesise
from enclap.types import FloatArray

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Example:
    """One file: its name, its parts as (sound, start, length in seconds), its length and its codec."""

    name: str
    parts: tuple[tuple[str, float, float], ...]
    seconds: float
    codec: str

    def samples(self) -> FloatArray:
        """Float32 [N] at `RATE`: the parts added up, quiet between them."""
        canvas = np.zeros(round(self.seconds * RATE), dtype=np.float32)
        for seed, (sound, start, seconds) in enumerate(self.parts):
            part = synthesise(sound, seconds, seed).samples
            first = round(start * RATE)
            canvas[first : first + len(part)] += part
        return canvas


EXAMPLES = (
    Example("bell.wav", (("bell", 0.0, 3.6),), 3.6, "pcm_s16le"),
    Example("footsteps.flac", (("footsteps", 0.0, 4.0),), 4.0, "flac"),
    Example("engine.mp3", (("engine", 0.0, 6.0),), 6.0, "libmp3lame"),
    Example("wind.ogg", (("wind", 0.0, 8.0),), 8.0, "libopus"),
    Example("bird.ogg", (("bird", 0.0, 5.0),), 5.0, "libopus"),
    Example(
        "long_scene.mp3",
        (("rain", 0.0, 10.0), ("engine", 10.0, 7.5), ("bell", 17.5, 7.5)),
        25.0,
        "libmp3lame",
    ),
)
SAMPLE_FORMATS = {"pcm_s16le": "s16", "flac": "s16", "libmp3lame": "fltp", "libopus": "flt"}
LOSSY_BIT_RATE = 64_000  # bits per second
OPUS_RATE = 48_000  # Hz: the encoder takes no 32 kHz


def write(example: Example, path: Path) -> None:
    """Encodes the example to `path`; the bytes do not change from run to run with the same FFmpeg."""
    frame = av.AudioFrame.from_ndarray(example.samples()[np.newaxis], "flt", "mono")
    frame.sample_rate = RATE
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(example.codec, rate=OPUS_RATE if example.codec == "libopus" else RATE)
        stream.codec_context.layout = "mono"
        stream.codec_context.format = SAMPLE_FORMATS[example.codec]
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if example.codec.startswith("lib"):
            stream.codec_context.bit_rate = LOSSY_BIT_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    """Writes every example beside this script and says how large each one is."""
    for example in EXAMPLES:
        path = FOLDER / example.name
        write(example, path)
        sys.stdout.write(f"{path.name}: {example.seconds:g} s, {path.stat().st_size / 1_000:.0f} kB\n")


if __name__ == "__main__":
    main()
