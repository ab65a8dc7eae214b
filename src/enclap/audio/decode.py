"""FFmpeg on a short leash: one byte stream in, blocks of float32 on the recording's time line out.

Nothing but the given bytes is ever read. Formats that name other files or addresses are refused by their
signature, are left out of the list of formats that FFmpeg may use, and would find no protocol to use.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import chain
from typing import Any, NoReturn, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard

from enclap.audio import headers, signatures
from enclap.audio.source import BoundedReader
from enclap.audio.timeline import JITTER, LONGEST_PAUSE, Clock, Packer, Timeline
from enclap.errors import AudioEmpty, AudioRefused, AudioUnreadable, InputError
from enclap.types import Block, FloatArray

logger = logging.getLogger("enclap")

NESTING_FORMATS = frozenset(
    {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"} | {"webm_dash_manifest"}
)
"""FFmpeg's demuxers that open further files or addresses."""
CHANGING_FORMATS = frozenset({"mpegts", "mpeg"})
"""Broadcast formats, in which the sound may go on in another track."""
RAW_FORMATS = frozenset({"ac3", "dts", "eac3", "mp3"})
"""Frames after each other without a container, between which tags may stand. FFmpeg itself leaves them out of ADTS."""
COUNTED_FORMATS = frozenset({"ape", "flac", "tta", "wv"})
"""Formats whose header counts the samples."""
SIZED_FORMATS = frozenset({"aiff", "au", "avi", "w64", "wav"})
"""Formats whose header states the bytes of the sound, or of the file."""
IO_BYTES = 65_536  # what FFmpeg reads from Python at a time
TAG_OPTIONS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""PyAV 19 reads tags that are not UTF-8 as they come; before, it fails on them unless it is set to replace them."""
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.25  # a recording that ends earlier than declared by both is reported
TAKEOVER_SECONDS, TAKEOVER_PACKETS = 2.0, 100  # of another track without one of the chosen one: it has taken over
BESIDE_SECONDS = 1.0  # that another track and the chosen one share: it is another language
FAILED_APPENDED = 16  # recordings in a row that were appended and cannot be opened


class Tracks:
    """The audio track of a container that is read, and those that may take its place; all others are discarded.

    current: the track that FFmpeg thinks best, else the first that has a decoder. listed: what may be read.
    Raises AudioUnreadable when nothing can be decoded.
    """

    def __init__(self, container: InputContainer, shown: str) -> None:
        streams = container.streams
        chosen = streams.best("audio") or next((item for item in streams.audio if item.codec_context), None)
        if not isinstance(chosen, AudioStream) or chosen.codec_context is None:
            raise AudioUnreadable(f"{shown}: has no audio track that can be decoded")
        self.current, self.listed = chosen, [chosen]
        if container.format.name in CHANGING_FORMATS:
            self.listed = [item for item in streams.audio if item.codec_context]
        for stream in streams:
            if stream not in self.listed:
                stream.discard = Discard.all

    def follow(self, packets: Iterable[Packet[AudioStream]]) -> Iterator[Packet[AudioStream]]:
        """The packets of the current track, and of others where they take its place, as in a change of programme.

        packets: of all that are listed. Tracks that run beside the current one, other languages, are left out.
        """
        waiting: dict[int, list[Packet[AudioStream]]] = {}  # of other tracks, since the last packet of the chosen one
        first: dict[int, Packet[AudioStream]] = {}  # of the chosen one, since the other track began
        last: Packet[AudioStream] | None = None
        for packet in packets:
            track = packet.stream_index
            if track == self.current.index:
                if last is not None and waiting and abs(_seconds_between(last, packet)) > JITTER:
                    yield from self._other_track(waiting, {})  # what was in its gap
                    self._change_to(track)
                for other in waiting:
                    first.setdefault(other, packet)
                waiting.clear()
                last = packet
                yield packet
            elif track not in first or last is None or _seconds_between(first[track], last) < BESIDE_SECONDS:
                queue = waiting.setdefault(track, [])
                queue.append(packet)
                if len(queue) >= TAKEOVER_PACKETS or _seconds_between(queue[0], packet) >= TAKEOVER_SECONDS:
                    yield from self._other_track({track: queue}, {})
                    waiting.clear()
                    first.clear()
                    last = packet
        shared = {track: _seconds_between(packet, last) for track, packet in first.items() if last is not None}
        yield from self._other_track(waiting, shared)

    def _other_track(
        self, waiting: dict[int, list[Packet[AudioStream]]], shared: dict[int, float]
    ) -> Iterator[Packet[AudioStream]]:
        """The packets of the first track that waits for longer than it ran beside the chosen one, which it replaces."""
        for track, queue in waiting.items():
            if _seconds_between(queue[0], queue[-1]) >= shared.get(track, -math.inf):
                self._change_to(track)
                yield from queue
                return

    def _change_to(self, track: int) -> None:
        self.current = next(item for item in self.listed if item.index == track)


class Decoder:
    """One audio track of one container, and of what was appended to it; `shown` is its name, fit for messages.

    rate: samples per second of the blocks. channels: of the first frames.
    """

    def __init__(self, reader: BoundedReader, shown: str, timeline: Timeline | None = None) -> None:
        self._file = reader
        self._reader = reader.part(0, signatures.own_end(reader))
        self._shown = shown
        self._timeline = timeline or Timeline()
        self._container = self._open()
        try:
            self._tracks = Tracks(self._container, shown)
        except AudioUnreadable:
            self.close()
            raise
        self._clock = Clock(self._timeline, self._container, float(self._tracks.current.time_base or 0))
        self._packets = 0  # that were read
        self._end = 0  # of their bytes
        self._is_broken = False
        self._frames = self._decoded_frames()
        context = self._tracks.current.codec_context
        self.rate, self.channels = context.sample_rate, context.channels
        if not self.rate or not self.channels:  # no sound in what FFmpeg looks at before it decodes
            first = next(self._frames, None)
            if first is None:
                self.close()
                raise self._nothing()
            self._frames = chain([first], self._frames)
            self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        self.rate = self._timeline.rate = self._timeline.rate or self.rate

    def close(self) -> None:
        """Gives back what FFmpeg holds; the byte stream stays with its owner."""
        self._container.close()

    @property
    def declared_seconds(self) -> float | None:
        """Second at which the track ends, as the container says or FFmpeg estimates; None when that is implausible."""
        stream, zero = self._tracks.current, self._clock.zero or 0.0
        if stream.duration is not None and stream.time_base is not None:
            end = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - zero
        else:
            end = (self._container.duration or 0) / av.time_base
            end = end - zero if end > zero else end  # counted from zero, or from the container's start
        return end if 0 < end <= LONGEST_PAUSE else None

    def blocks(self) -> Iterator[Block]:
        """Float32 [n, channels] at `rate`, placed on the time line.

        Recordings that were appended in the same file follow. Frames of another rate, on the way or in an appended
        recording, are converted to the first one. Damaged packets are left out and a recording that ends early gives
        what there is, both with a warning. Raises AudioUnreadable when nothing decodes, AudioEmpty when there is
        nothing to decode.
        """
        yield from self._own_blocks()
        start, failed = self._end, 0
        while failed < FAILED_APPENDED and (start := signatures.next_recording(self._file, start) or 0):
            part = self._file.part(start, self._file.size)
            try:
                appended = Decoder(part, self._shown, self._timeline)
            except InputError:
                if part.failure is not None:
                    raise
                seconds, size = self._timeline.now, self._file.size - start
                logger.warning("%s: what follows %.1f s, %d bytes, cannot be read", self._shown, seconds, size)
                start, failed = start + 1, failed + 1
                continue
            with closing(appended):
                yield from appended._own_blocks()
            start, failed = start + max(1, appended._end), 0
        if self._timeline.position == 0:
            raise self._nothing()
        if self._timeline.damaged_packets:
            count, seconds = self._timeline.damaged_packets, self._timeline.damaged_seconds
            packets = "1 damaged packet was" if count == 1 else f"{count} damaged packets were"
            logger.warning("%s: %s left out, about %.2f s", self._shown, packets, seconds)

    def _own_blocks(self) -> Iterator[Block]:
        """What `blocks` gives of this container alone."""
        packer: Packer | None = None
        for frame in self._frames:
            start = self._clock.advance(frame)
            if packer is None or start is not None or not packer.takes(frame):
                if packer is not None:
                    yield from self._placed(packer.rest())
                packer = Packer(frame, self.rate)
                if start is not None:
                    self._timeline.position = max(self._timeline.position, round(start * self.rate))
            if ready := packer.add(frame):
                yield from self._placed(ready)
        if packer is not None:
            yield from self._placed(packer.rest())
        self._warn_if_cut()

    def _placed(self, frames: Iterable[AudioFrame]) -> Iterator[Block]:
        """Packed frames as blocks, one after the other."""
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)  # a copy of FFmpeg's memory
            if len(samples):
                yield Block(cast("FloatArray", samples), self._timeline.position)
                self._timeline.position += len(samples)

    def _open(self) -> InputContainer:
        head = self._reader.piece(0, signatures.HEAD_BYTES)
        if signatures.is_playlist(head):
            self._refuse_playlist()
        formats = ",".join(sorted(av.formats_available - NESTING_FORMATS))
        options = {"format_whitelist": formats, "protocol_whitelist": "none"}
        self._header = headers.check_header(self._reader)
        self._reader.patches = self._header.patches
        if self._header.left_out:
            message = "%s: its header leaves out %d bytes of sound; they are read too"
            logger.warning(message, self._shown, self._header.left_out)
        try:
            container: InputContainer = av.open(
                self._reader,
                "r",
                container_options=options,
                **TAG_OPTIONS,
                buffer_size=IO_BYTES,
                io_open=self._refuse_playlist,
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            self._raise_failure()
            if self._shown.lower().endswith(signatures.PLAYLIST_SUFFIXES):
                self._refuse_playlist()
            raise AudioUnreadable(f"{self._shown}: not a sound file that can be read") from error
        if container.streams.audio and signatures.looks_like_text(head):
            container.close()
            raise AudioUnreadable(f"{self._shown}: is text, not sound")
        return container

    def _decoded_frames(self) -> Iterator[AudioFrame]:
        """The frames of the chosen track, as its codec gives them."""
        packets, tag_end, is_ogg = self._read_packets(), 0, self._container.format.name == "ogg"
        for packet in packets if len(self._tracks.listed) == 1 else self._tracks.follow(packets):
            self._clock.tick = float(self._tracks.current.time_base or 0)
            offset = packet.pos or 0
            if 0 < offset < tag_end:
                continue
            frames, is_damaged = [], False
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self._raise_failure()
                is_damaged = True
            if not frames and self._container.format.name in RAW_FORMATS:
                tag_end = signatures.tag_between_frames(self._reader, offset, packet.size)
            if is_damaged and tag_end <= offset:
                self._timeline.damaged_packets += 1
                self._timeline.damaged_seconds += float((packet.duration or 0) * (packet.time_base or 0))
            if is_ogg:
                self._clock.enter(packet)
            yield from frames
        with suppress(av.FFmpegError):  # a decoder that was given nothing has nothing left
            yield from self._tracks.current.decode(None)

    def _read_packets(self) -> Iterator[Packet[AudioStream]]:
        """The packets of the tracks that hold something, up to the end of the container or to damage of its own."""
        demuxed = cast("Iterator[Packet[AudioStream]]", self._container.demux(self._tracks.listed))
        while True:
            try:
                packet = next(demuxed)
            except (StopIteration, IndexError):  # IndexError: PyAV looks for tracks that came later than its list
                break
            except av.FFmpegError:
                self._is_broken = True
                break
            if packet.size:  # else it would end the decoder, or is the end
                self._packets += 1
                self._end = (packet.pos or 0) + packet.size
                yield packet
        self._raise_failure()

    def _warn_if_cut(self) -> None:
        """Say what is missing of this container, where that is certain."""
        if signatures.next_recording(self._file, self._end) is not None:  # and so not the end
            return
        kind, stream, cut = self._container.format.name, self._tracks.current, self._header.cut
        end = self._timeline.now
        seconds = end - (self._clock.first or 0.0)
        declared = float((stream.duration or 0) * (stream.time_base or 0))
        if cut > 1:  # the header states bytes, or as in Matroska the end of the longest track
            declared = seconds * cut if kind in SIZED_FORMATS else self.declared_seconds or 0.0
        else:  # an estimate does not count
            if kind in COUNTED_FORMATS:
                is_exact = not headers.is_placeholder(stream.duration or 0)
            elif "mp4" in kind.split(","):
                is_exact = self._packets < stream.frames
            else:
                is_exact = kind == "mp3" and headers.states_frame_count(self._reader)
            declared = declared if is_exact and declared <= LONGEST_PAUSE else 0.0
        lost = self._reader.size - self._end
        if self._is_broken and lost > 0:
            logger.warning("%s: damaged after %.1f s; the last %d bytes are left out", self._shown, end, lost)
        elif declared - seconds > max(MISSING_SECONDS, MISSING_SHARE * declared):
            logger.warning("%s: ends after %.1f s of %.1f s", self._shown, seconds, declared)

    def _nothing(self) -> InputError:
        """The fault of a recording without a sample."""
        if self._timeline.damaged_packets or self._is_broken:
            return AudioUnreadable(f"{self._shown}: its audio is damaged")
        return AudioEmpty(f"{self._shown}: holds no samples")

    def _raise_failure(self) -> None:
        failure = self._reader.failure or self._file.failure
        if failure is not None:
            raise failure

    def _refuse_playlist(self, *_nested: object) -> NoReturn:
        raise AudioRefused(f"{self._shown}: a playlist; it is not followed, give the files that it names")


def _seconds_between(earlier: Packet[AudioStream], later: Packet[AudioStream]) -> float:
    """Seconds from the end of one packet to the start of another of the same track; 0 when they do not say."""
    if earlier.pts is None or later.pts is None:
        return 0.0
    return float((later.pts - earlier.pts - (earlier.duration or 0)) * (later.time_base or 0))
