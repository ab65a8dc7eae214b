"""Decoded frames on a recording's own time line: where each begins, gaps, and frames gathered into packed floats."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

GATHERED_SAMPLES = 8192  # of the frames that are converted together
MANY_CHANNELS = 8
JITTER = 0.2  # seconds by which time stamps may be off: rounding, a codec's delay
OVERLAP = 1.0  # seconds; time stamps that go back further are those of another clock
LONGEST_PAUSE = 24 * 3600.0  # seconds; what jumps further is another clock too


@dataclass
class Timeline:
    """Where the sound of a file stands; the containers that were joined into one file share it.

    now: seconds from the first container's start at which the sound ends so far; it never runs backwards.
    position: the same of what was given out, in samples at the first container's rate.
    """

    rate: int = 0
    now: float = 0.0
    position: int = 0
    damaged_packets: int = 0
    damaged_seconds: float = 0.0


class Clock:
    """Places the frames of one container on the time line, by their time stamps.

    Differences of up to `JITTER` are rounding or a codec's delay: there the samples are counted, so that an ordinary
    file starts at 0 and has no gaps. A later frame leaves a gap. An earlier one is put after what was there; when it
    is much earlier, or later than any pause lasts, the stamps have begun anew and count from there.
    """

    def __init__(self, timeline: Timeline, container: InputContainer, tick: float) -> None:
        self.tick = tick  # seconds of one unit of the time stamps
        self.zero = None if container.start_time is None else container.start_time / av.time_base
        self.first: float | None = None  # second at which this container's sound begins
        self._timeline = timeline
        self._shift: float | None = None if self.zero is None else timeline.now - self.zero
        self._page: int | None = None
        self._is_first_page = True

    def enter(self, packet: Packet[AudioStream]) -> None:
        """The packet of an Ogg file that the next frames come from.

        FFmpeg counts a first page from zero where the codec does not say when it begins (FLAC in a live stream), and
        knows better from the second one on: there the time stamps begin anew.
        """
        if self._is_first_page:
            self._page = packet.pos if self._page is None else self._page
            self._is_first_page = packet.pos == self._page
            if not self._is_first_page:
                self._shift = None

    def advance(self, frame: AudioFrame) -> float | None:
        """Count the frame; where it begins, in seconds, when there is a gap before it."""
        timeline, stamp = self._timeline, frame.dts if frame.pts is None else frame.pts
        start = None
        if stamp is not None:
            time = stamp * self.tick
            if self._shift is None:
                self._shift = timeline.now - time
            late = time + self._shift - timeline.now
            if JITTER < late <= LONGEST_PAUSE:
                start = timeline.now = timeline.now + late
            elif not -OVERLAP <= late <= JITTER:
                self._shift -= late
        if self.first is None:
            self.first = timeline.now
        timeline.now += frame.samples / frame.sample_rate
        return start


class Packer:
    """Frames of one kind as packed 32-bit floats at `rate`, several at a time: each step through Python costs more
    than the arithmetic on the few samples of a frame.

    FFmpeg converts, not `to_ndarray`: for planar frames of eight channels or more PyAV walks past the end of the plane
    pointers. Its queue is not trusted with them either.
    """

    def __init__(self, frame: AudioFrame, rate: int) -> None:
        self._kind = (frame.format.name, frame.layout.nb_channels, frame.sample_rate)
        self._layout = frame.layout.name
        self._resampler = AudioResampler(format="flt", layout=frame.layout, rate=rate)
        self._waiting = AudioFifo() if frame.layout.nb_channels < MANY_CHANNELS else None

    def takes(self, frame: AudioFrame) -> bool:
        """Whether the frame is of this kind; the order of the channels does not matter, but to FFmpeg's converter."""
        if (frame.format.name, frame.layout.nb_channels, frame.sample_rate) != self._kind:
            return False
        return self._waiting is not None or frame.layout.name == self._layout

    def add(self, frame: AudioFrame) -> list[AudioFrame]:
        """What is ready with this frame; it takes over the frame's samples, its time is not kept."""
        if self._waiting is None:
            return self._resampler.resample(frame)
        frame.pts = None
        self._waiting.write(frame)
        return self._resampler.resample(self._waiting.read()) if self._waiting.samples >= GATHERED_SAMPLES else []

    def rest(self) -> list[AudioFrame]:
        """What has not been ready so far."""
        waiting = self._waiting is not None and self._waiting.samples
        ready = self._resampler.resample(self._waiting.read()) if self._waiting and waiting else []
        return ready + self._resampler.resample(None)
