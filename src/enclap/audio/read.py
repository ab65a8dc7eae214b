"""Any recording -> mono float32 blocks at its own rate, streamed, within limits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enclap.audio.array import ArraySource, array_and_rate, array_blocks, array_shape
from enclap.audio.signatures import tags_at_end
from enclap.audio.source import ByteSource, ReadLimits, open_bytes, source_name
from enclap.audio.window import SILENCE_LEVEL
from enclap.errors import AudioEmpty, AudioNotFinite, AudioRefused
from enclap.text import printable
from enclap.types import Block, FloatArray, Waveform

logger = logging.getLogger("enclap")

Source = ByteSource | ArraySource

LIKELY_PEAK = 100.0  # 40 dB above full scale; recorders that write floats stay below, integers in floats do not
HIGHEST_PEAK = 1e10  # beyond 32-bit integers that were written as floats; what is larger is no sound
CANCELLED = 0.01  # of the power that independent channels would keep when they are averaged: 20 dB less
AUDIBLE = 10 ** (SILENCE_LEVEL / 10)  # mean square


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """An opened recording.

    name: what the caller named it, None for arrays and bytes. rate: samples per second.
    channels: before the downmix.
    declared_seconds: where it ends by what the container says, None when it says nothing; may be wrong by any amount.
    blocks: mono float32, not empty, finite, in order of time; can be walked through once, while the recording is open.
    """

    name: str | None
    rate: int
    channels: int
    declared_seconds: float | None
    blocks: Iterator[Block]


def read_audio(source: Source, limits: ReadLimits | None = None) -> Waveform:
    """All samples as one Waveform, without the gaps between them; for recordings of any length use `open_audio`."""
    with open_audio(source, limits) as audio:
        return Waveform(np.concatenate([block.samples for block in audio.blocks]), audio.rate)


@contextmanager
def open_audio(source: Source, limits: ReadLimits | None = None) -> Iterator[Audio]:
    """The opened recording; its blocks raise what only decoding can find out.

    source: a path, "-" for standard input, bytes, a binary file object (seekable or not), or (array, rate)
    with an array of integers or floats, [N], [N, channels] or [channels, N] (the longer axis is time).
    Raises AudioNotFound, AudioUnreadable, AudioRefused, AudioEmpty, and from the blocks AudioNotFinite too.
    """
    limits = limits or ReadLimits()
    if isinstance(source, tuple):
        array, rate = array_and_rate(source)
        samples, channels, _ = array_shape(array)
        _check_kind(rate, channels, "array", limits)
        if samples > limits.seconds * rate:
            raise AudioRefused(f"array: {samples / rate:.0f} s long; at most {limits.seconds:.0f} s are read")
        blocks = _mono_blocks(array_blocks(array), rate, "array", limits)
        yield Audio(None, rate, channels, samples / rate, blocks)
        return
    from enclap.audio.decode import Decoder  # here, so that programs that only pass arrays do not load FFmpeg

    name = source_name(source)
    shown = printable(name or "audio")
    with open_bytes(source, limits) as file:
        reader = file.part(0, file.size - tags_at_end(file))
        with closing(Decoder(reader, shown)) as decoder:
            _check_kind(decoder.rate, decoder.channels, shown, limits)
            blocks = _mono_blocks(decoder.blocks(), decoder.rate, shown, limits)
            yield Audio(name, decoder.rate, decoder.channels, decoder.declared_seconds, blocks)


def _check_kind(rate: int, channels: int, shown: str, limits: ReadLimits) -> None:
    """Raises AudioRefused for a rate or a number of channels outside the limits."""
    if not limits.lowest_rate <= rate <= limits.highest_rate:
        raise AudioRefused(f"{shown}: {rate} Hz; {limits.lowest_rate} to {limits.highest_rate} Hz are read")
    if not 1 <= channels <= limits.channels:
        raise AudioRefused(f"{shown}: {channels} channels; 1 to {limits.channels} are read")


def _mono_blocks(blocks: Iterator[Block], rate: int, shown: str, limits: ReadLimits) -> Iterator[Block]:
    """Blocks of [n, channels] as mono float32.

    Raises AudioNotFinite, AudioRefused for what is too long or too loud to be sound, AudioEmpty when there are none.
    """
    samples, downmix, has_hint = 0, _Downmix(), False
    for block in blocks:
        mono = downmix(block.samples)
        with np.errstate(over="ignore"):
            loud = not np.dot(mono, mono) <= len(mono)  # louder than a full-scale square wave, or NaN
        if loud:
            peak = _checked_peak(mono, block.start / rate, rate, shown)
            are_whole = peak >= 2 and bool((block.samples == np.rint(block.samples)).all())
            if not has_hint and (peak > LIKELY_PEAK or are_whole):  # integers that nobody divided by their full scale
                has_hint = True
                message = "%s: samples up to %.0f, floats are expected within -1 to 1; divide 16-bit values by 32768"
                logger.warning(message, shown, peak)
        samples += len(mono)
        if samples > limits.seconds * rate:
            raise AudioRefused(f"{shown}: longer than {limits.seconds:.0f} s, the most that is read")
        yield Block(mono, block.start)
    if samples == 0:
        raise AudioEmpty(f"{shown}: holds no samples")
    if downmix.cancelled:
        message = "%s: the channels cancel each other out for %.1f s; one of them is used there, not their mean"
        logger.warning(message, shown, downmix.cancelled / rate)


def _checked_peak(mono: FloatArray, start: float, rate: int, shown: str) -> float:
    """The largest absolute sample; raises for what is no sound. start: second at which the block begins."""
    finite, peak = np.isfinite(mono), float(np.abs(mono).max())
    if not finite.all():
        at = start + int(np.argmin(finite)) / rate
        raise AudioNotFinite(f"{shown}: NaN or infinite samples, the first at {at:.3f} s")
    if peak > HIGHEST_PEAK:
        at = start + int(np.argmax(np.abs(mono))) / rate
        raise AudioRefused(f"{shown}: a sample of {peak:.0e} at {at:.3f} s; full scale is 1, this is no sound")
    return peak


class _Downmix:
    """The mean of the channels; where they cancel each other out, one of them.

    A microphone that is wired the wrong way round, or a balanced line taken for two channels, would be silent else.
    cancelled: samples for which one channel was used.
    """

    def __init__(self) -> None:
        self.cancelled = 0
        self._used = 0  # the channel; kept as long as it has sound, so that nothing jumps between blocks

    def __call__(self, samples: NDArray[np.floating]) -> FloatArray:
        """Float32 [n] of float [n, channels]; summed in float64, so that equal channels give exactly themselves."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused afterwards
            channels = samples.shape[1]
            total = samples[:, 0].astype(np.float64)
            for channel in range(1, channels):  # several times as fast as a mean over the short axis
                total += samples[:, channel]
            if channels == 1:
                return total.astype(np.float32)
            # Where nearly nothing is left of audible channels in their sum they cancel; constant offsets do not count.
            left = np.dot(total, total) / len(total) - (total.sum() / len(total)) ** 2
            if left < CANCELLED * np.vdot(samples, samples) / len(total):
                powers = samples.var(axis=0, dtype=np.float64)
                if left < CANCELLED * powers.sum() and powers.max() >= AUDIBLE:
                    if powers[self._used] < powers.max() / 4:
                        self._used = int(powers.argmax())
                    self.cancelled += len(samples)
                    return samples[:, self._used].astype(np.float32)
            total /= channels
            return total.astype(np.float32)
