"""Sounds and sound files for tests, made on the spot and seeded."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]  # [N, channels], within -1..1


def noise(seconds: float, rate: int = 16_000, channels: int = 1, seed: int = 0) -> Samples:
    """White noise at a tenth of full scale, another in each channel."""
    generator = np.random.default_rng(seed)
    return generator.normal(0.0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


def tone(seconds: float, rate: int, hertz: float = 440.0, channels: int = 1) -> Samples:
    """The same half-scale sine in every channel."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat((0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[:, None], channels, axis=1)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int) -> Path:
    """A plain 16-bit WAV of int16 [N, channels]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_audio(
    path: Path,
    samples: Samples,
    rate: int,
    *,
    codec: str | None = None,
    layout: str | None = None,
    video: bool = False,
    step: int = 1024,
) -> Path:
    """The samples as FFmpeg encodes them for this extension; `video` adds a moving picture."""
    channels = samples.shape[1]
    layout = layout or {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    with av.open(str(path), "w") as output:
        options = {"strict": "experimental"}  # FFmpeg's own Vorbis encoder is called that
        stream = output.add_stream(codec or output.default_audio_codec, rate=rate, layout=layout, options=options)
        stream.bit_rate = 96_000 * channels
        if video:
            add_video(output)
        for start in range(0, len(samples), step):
            packed = np.ascontiguousarray(samples[start : start + step].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_silent_video(path: Path) -> Path:
    """A film of five grey pictures without any sound track."""
    with av.open(str(path), "w") as output:
        add_video(output)
    return path


def add_video(output: av.container.OutputContainer) -> None:
    """Five grey pictures."""
    stream = output.add_stream("mpeg4", rate=5)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for _ in range(5):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
