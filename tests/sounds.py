"""Sounds and sound files for tests, made on the spot and seeded."""

from __future__ import annotations

import wave
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from enclap.types import Block, FloatArray

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


Piece = tuple[float, Samples]  # second at which it begins, and its samples


def write_timed(
    path: Path,
    tracks: Sequence[Sequence[Piece]],
    rate: int,
    *,
    codec: str | None = None,
    first_second: float = 0.0,
    video: str | None = None,
    seconds_of_video: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Audio tracks of pieces at their times, beside a picture from 0 s on when `video` names its codec.

    first_second: what the container's first time stamp is. options: of the container.
    """
    with av.open(str(path), "w", container_options=options or {}) as output:
        streams = []
        for pieces in tracks:
            layout = {1: "mono", 2: "stereo"}[pieces[0][1].shape[1]]
            stream = output.add_stream(
                codec or output.default_audio_codec, rate=rate, layout=layout, options={"strict": "experimental"}
            )
            stream.bit_rate = 96_000
            streams.append(stream)
        frames = [
            (start + at / rate, number, round((first_second + start) * rate) + at, samples[at : at + 1024])
            for number, pieces in enumerate(tracks)
            for start, samples in pieces
            for at in range(0, len(samples), 1024)
        ]
        if video is not None:
            picture = output.add_stream(video, rate=5)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            streams.append(picture)
            count, number = round(5 * seconds_of_video), len(tracks)
            frames += [(at / 5, number, round(5 * first_second) + at, np.zeros((0, 1))) for at in range(count)]
        for _, number, stamp, samples in sorted(frames, key=lambda frame: frame[:2]):
            stream = streams[number]
            if number == len(tracks):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), stamp % 255, np.uint8), format="rgb24")
                frame.time_base = Fraction(1, 5)
            else:
                packed = np.ascontiguousarray(samples.reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=stream.layout.name)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = stamp
            output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


def blocks_of(samples: FloatArray, size: int, start: int = 0) -> Iterator[Block]:
    """Mono samples in blocks of `size`, the first one `start` samples after the beginning."""
    for at in range(0, len(samples), size):
        yield Block(samples[at : at + size], start + at)


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
