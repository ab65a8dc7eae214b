"""FFmpeg, kept on a leash: one byte stream in, mono float32 blocks out.

Nothing but the given bytes is ever read. Formats that name other files or addresses are refused by their
signature, are left out of the list of formats that FFmpeg may use, and would find no protocol to use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NoReturn

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard

from enclap.audio.source import BoundedReader
from enclap.errors import AudioEmpty, AudioRefused, AudioUnreadable
from enclap.types import FloatArray

logger = logging.getLogger("enclap")

NESTING_FORMATS = frozenset(
    {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"} | {"webm_dash_manifest"}
)
"""FFmpeg's demuxers that open further files or addresses."""
PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat version", b"[playlist]", b"[Reference]", b"v=0\n", b"v=0\r\n")
PLAYLIST_TAGS = (b"<MPD", b"<SmoothStreamingMedia", b"<asx", b"<ASX", b"<smil", b"<playlist", b"<AssetMap")
PLAYLIST_SUFFIXES = (".m3u", ".m3u8", ".mpd", ".sdp", ".pls", ".asx", ".xspf", ".ffconcat", ".smil", ".ism")
HEAD_BYTES = 1024
IO_BYTES = 65_536  # what FFmpeg asks Python for at a time
TAG_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""PyAV 19 reads tags that are not UTF-8 as they come; before, it fails on them unless it is told to replace."""
GATHERED_SAMPLES = 8192  # of the frames that are converted together
MANY_CHANNELS = 8
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.25  # a recording that ends earlier than declared by both is reported


class Decoder:
    """One audio track of one container; `shown` is the recording's name, fit for messages."""

    def __init__(self, reader: BoundedReader, shown: str) -> None:
        self._reader = reader
        self._shown = shown
        self._container = self._open()
        self._stream = self._best_stream()
        self._packer: _Packer | None = None
        self._damaged = 0
        context = self._stream.codec_context
        self.rate, self.channels = context.sample_rate, context.channels

    def close(self) -> None:
        """Gives back what FFmpeg holds; the byte stream stays with its owner."""
        self._container.close()

    @property
    def declared_seconds(self) -> float | None:
        """What the container says, or FFmpeg estimates from it; None when unknown."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else self._container.duration / av.time_base

    def blocks(self) -> Iterator[FloatArray]:
        """Mono float32 [n] at `rate`, the mean of the channels.

        A track that changes its rate on the way is converted to the first one. Damaged packets are left out
        and a recording that ends early gives what there is, both with a warning. Raises AudioUnreadable when
        nothing decodes, AudioEmpty when there is nothing to decode.
        """
        samples = 0
        for frame in self._frames():
            block = _mono(frame)
            samples += len(block)
            if len(block):
                yield block
        if samples == 0:
            fault = AudioUnreadable if self._damaged else AudioEmpty
            raise fault(f"{self._shown}: {'its audio is damaged' if self._damaged else 'holds no samples'}")
        self._report(samples / self.rate)

    def _open(self) -> InputContainer:
        if _is_playlist(self._reader.head(HEAD_BYTES)):
            self._refuse_playlist()
        formats = ",".join(sorted(av.formats_available - NESTING_FORMATS))
        try:
            container: InputContainer = av.open(
                self._reader,
                "r",
                container_options={"format_whitelist": formats, "protocol_whitelist": "none"},
                **TAG_OPTIONS,
                buffer_size=IO_BYTES,
                io_open=self._refuse_playlist,
            )
            return container
        except (av.FFmpegError, ValueError, OSError) as error:
            self._raise_failure()
            if self._shown.lower().endswith(PLAYLIST_SUFFIXES):
                self._refuse_playlist()
            raise AudioUnreadable(f"{self._shown}: not a sound file that can be read") from error

    def _best_stream(self) -> AudioStream:
        stream = self._container.streams.best("audio")
        if not isinstance(stream, AudioStream) or stream.codec_context is None:  # none, or none with a decoder
            self.close()
            raise AudioUnreadable(f"{self._shown}: has no audio track that can be decoded")
        for other in self._container.streams:
            if other is not stream:
                other.discard = Discard.all
        return stream

    def _frames(self) -> Iterator[AudioFrame]:
        """Packed float frames at `rate`."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                frames = next(packets).decode()
            except StopIteration:
                break
            except IndexError:  # at the end, PyAV looks for tracks that it had not seen at the beginning
                break
            except av.FFmpegError:
                self._raise_failure()
                self._damaged += 1
                continue  # after a fault of the codec packets go on; a fault of the container has ended them
            self._raise_failure()
            for frame in frames:
                kind = (frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)
                if self._packer is None or self._packer.kind != kind:
                    yield from self._packer.rest() if self._packer is not None else ()
                    self._packer = _Packer(kind, frame, self.rate)
                yield from self._packer.add(frame)
        if self._packer is not None:
            yield from self._packer.rest()

    def _report(self, seconds: float) -> None:
        declared = self.declared_seconds
        if self._damaged:
            logger.warning("%s: %d damaged packets were left out", self._shown, self._damaged)
        elif declared is not None and declared - seconds > max(MISSING_SECONDS, MISSING_SHARE * declared):
            logger.warning("%s: ends after %.1f s of %.1f s", self._shown, seconds, declared)

    def _raise_failure(self) -> None:
        if self._reader.failure is not None:
            raise self._reader.failure

    def _refuse_playlist(self, *_nested: object) -> NoReturn:
        raise AudioRefused(f"{self._shown}: a playlist; it is not followed, give the files that it names")


class _Packer:
    """Frames of one kind as packed 32-bit floats at `rate`, several at a time: each step through Python costs more
    than the arithmetic on the few samples of a frame.

    FFmpeg converts, not `to_ndarray`: for planar frames of eight channels or more PyAV walks past the end of the plane
    pointers. Its queue is not trusted with them either.
    """

    def __init__(self, kind: tuple[object, ...], frame: AudioFrame, rate: int) -> None:
        self.kind = kind
        self._resampler = AudioResampler(format="flt", layout=frame.layout, rate=rate)
        self._waiting = AudioFifo() if frame.layout.nb_channels < MANY_CHANNELS else None

    def add(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """What is ready with this frame; it takes over the frame's samples, its time is not kept."""
        if self._waiting is None:
            yield from self._resampler.resample(frame)
            return
        frame.pts = None
        self._waiting.write(frame)
        if self._waiting.samples >= GATHERED_SAMPLES:
            yield from self._resampler.resample(self._waiting.read())

    def rest(self) -> Iterator[AudioFrame]:
        """What has not been ready so far."""
        if self._waiting is not None and self._waiting.samples:
            yield from self._resampler.resample(self._waiting.read())
        yield from self._resampler.resample(None)


def _is_playlist(head: bytes) -> bool:
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n")  # a byte order mark may come first
    if head.startswith(b"<"):
        return any(tag in head for tag in PLAYLIST_TAGS)
    return head.startswith(PLAYLIST_MARKS)


def _mono(frame: AudioFrame) -> FloatArray:
    """Float32 [n]: the mean of the channels, in float64 so that equal channels give exactly themselves."""
    channels = frame.layout.nb_channels
    packed = frame.to_ndarray().reshape(-1, channels)  # float32 [n, channels], a copy of FFmpeg's memory
    total = packed[:, 0].astype(np.float64)
    for channel in range(1, channels):  # several times as fast as a mean over the short axis
        total += packed[:, channel]
    mean: FloatArray = (total / channels).astype(np.float32)
    return mean
