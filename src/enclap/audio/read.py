"""Any recording -> mono float32 blocks at its own rate, streamed, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np

from enclap.audio.array import AnyArray, ArraySource, array_and_rate, array_shape, mono_blocks
from enclap.audio.source import ByteSource, ReadLimits, open_bytes, source_name
from enclap.errors import AudioEmpty, AudioNotFinite, AudioRefused
from enclap.text import printable
from enclap.types import FloatArray, Waveform

Source = ByteSource | ArraySource


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """An opened recording.

    name: what the caller named it, None for arrays and bytes. rate: samples per second.
    channels: before the downmix.
    declared_seconds: what the container says about its length, None when it says nothing; may be wrong.
    blocks: mono float32 [n], all n > 0, finite; can be walked through once, while the recording is open.
    """

    name: str | None
    rate: int
    channels: int
    declared_seconds: float | None
    blocks: Iterator[FloatArray]


def read_audio(source: Source, limits: ReadLimits | None = None) -> Waveform:
    """The whole recording as one Waveform; for recordings of any length use `open_audio`."""
    with open_audio(source, limits) as audio:
        return Waveform(np.concatenate(list(audio.blocks)), audio.rate)


@contextmanager
def open_audio(source: Source, limits: ReadLimits | None = None) -> Iterator[Audio]:
    """The opened recording; its blocks raise what only decoding can find out.

    source: a path, "-" for standard input, bytes, a binary file object (seekable or not), or (array, rate)
    with an array of integers or floats, [N], [N, channels] or [channels, N] (the longer axis is time).
    Raises AudioNotFound, AudioUnreadable, AudioRefused, AudioEmpty, and from the blocks AudioNotFinite too.
    """
    limits = limits or ReadLimits()
    if isinstance(source, tuple):
        yield _open_array(*array_and_rate(source), limits)
        return
    from enclap.audio.decode import Decoder  # here, so that programs that only pass arrays do not load FFmpeg

    name = source_name(source)
    shown = printable(name or "audio")
    with open_bytes(source, limits) as reader, closing(Decoder(reader, shown)) as decoder:
        _check_kind(decoder.rate, decoder.channels, decoder.declared_seconds or 0.0, shown, limits)
        blocks = _checked(decoder.blocks(), decoder.rate, shown, limits)
        yield Audio(name, decoder.rate, decoder.channels, decoder.declared_seconds, blocks)


def _open_array(array: AnyArray, rate: int, limits: ReadLimits) -> Audio:
    samples, channels, _ = array_shape(array)
    _check_kind(rate, channels, samples / rate, "array", limits)
    return Audio(None, rate, channels, samples / rate, _checked(mono_blocks(array), rate, "array", limits))


def _check_kind(rate: int, channels: int, seconds: float, shown: str, limits: ReadLimits) -> None:
    """Raises AudioRefused for what a header already shows to be outside the limits."""
    if not limits.lowest_rate <= rate <= limits.highest_rate:
        raise AudioRefused(f"{shown}: {rate} Hz; {limits.lowest_rate} to {limits.highest_rate} Hz are read")
    if not 1 <= channels <= limits.channels:
        raise AudioRefused(f"{shown}: {channels} channels; 1 to {limits.channels} are read")
    if seconds > limits.seconds:
        raise AudioRefused(f"{shown}: {seconds:.0f} s long; at most {limits.seconds:.0f} s are read")


def _checked(blocks: Iterator[FloatArray], rate: int, shown: str, limits: ReadLimits) -> Iterator[FloatArray]:
    """The blocks; raises AudioNotFinite, AudioRefused past the limit, AudioEmpty when there are none."""
    samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            at = samples + int(np.argmin(np.isfinite(block)))
            raise AudioNotFinite(f"{shown}: NaN or infinite samples, the first at {at / rate:.3f} s")
        samples += len(block)
        if samples > limits.seconds * rate:
            raise AudioRefused(f"{shown}: longer than {limits.seconds:.0f} s, the most that is read")
        yield block
    if samples == 0:
        raise AudioEmpty(f"{shown}: holds no samples")
