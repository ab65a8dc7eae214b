"""The audio front end as tensors: resampling and mel spectrograms of many clips at once, on any device.

`audio.resample` and `audio.mel` define what is computed, one clip at a time in numpy; here clips of unlike length share
a tensor, in which nothing after a clip's own length is read. The tests hold the one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from enclap.audio.mel import FLOOR, MelFrontEnd
from enclap.audio.resample import convert
from enclap.types import FloatArray

REACH = 112
"""Periods of the lower rate to either side after which soxr's filter is zero; its noise is 1e-7 of the peak there."""
START = 80
"""Periods of the lower rate after which nothing of the start is left."""
MOST_WEIGHTS = 2**22
"""Of a filter matrix: 16 MB. Rates with next to no common divisor need more; soxr converts these."""


class Resampler:
    """soxr's sample-rate conversion as a matrix product.

    Between two rates with a common divisor soxr's filter is the same every few samples, so all of it is in what it
    makes of one impulse at each of these positions. Output blocks are products of overlapping pieces of the input with
    that filter, as polyphase filters are computed; results differ from soxr's by its own rounding, some 1e-7. The first
    samples have weights of their own, because soxr's later stages know nothing of what precedes the first sample.
    """

    def __init__(self, source: int, target: int, device: torch.device) -> None:
        self.source, self.target = source, target
        weights, self._before = filter_matrix(source, target)
        divisor = math.gcd(source, target)
        self._weights = torch.from_numpy(weights).to(device)  # [outputs of a block, inputs it reads]
        self._start = torch.from_numpy(start_matrix(source, target)).to(device)  # [first outputs, inputs they read]
        self._step = weights.shape[0] * (source // divisor) // (target // divisor)  # inputs from block to block

    @staticmethod
    def can_convert(source: int, target: int) -> bool:
        """Whether the filter is small enough; else take soxr itself."""
        rows, columns = matrix_shape(source, target)
        return rows * columns <= MOST_WEIGHTS

    def __call__(self, samples: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Float32 [B, n] at the target rate and the clips' lengths in it; samples: float32 [B, N], zero after a clip.

        As `audio.resample`, a clip too short to yield one sample gives its first.
        """
        exact = [(2 * length * self.target + self.source) // (2 * self.source) for length in lengths]
        found = [max(1, length) for length in exact]
        block, width = self._weights.shape
        blocks = -(-max(found) // block)
        after = (blocks - 1) * self._step + width - self._before - samples.shape[1]
        pieces = functional.pad(samples, (self._before, after)).unfold(1, width, self._step)  # [B, blocks, width]
        converted = (pieces @ self._weights.T).flatten(1)[:, : max(found)]
        first = samples[:, : self._start.shape[1]]
        start = first @ self._start[: converted.shape[1], : first.shape[1]].T
        converted[:, : start.shape[1]] = start
        for row, length in enumerate(exact):
            if length == 0:
                converted[row, 0] = samples[row, 0]
        return converted, found


def matrix_shape(source: int, target: int) -> tuple[int, int]:
    """Rows and columns of `filter_matrix`: outputs of a block, and inputs that it reads."""
    divisor = math.gcd(source, target)
    up, down = target // divisor, source // divisor
    reach = _reach(source, target)
    periods = -(-2 * reach // down)  # in a block, which then advances as far as the filter is long
    return periods * up, 2 * reach + periods * down + 1


@lru_cache(maxsize=16)
def filter_matrix(source: int, target: int) -> tuple[FloatArray, int]:
    """Weights float32 [outputs, inputs] of a block of output samples, and how many inputs precede the block's start."""
    divisor = math.gcd(source, target)
    up, down = target // divisor, source // divisor
    reach = _reach(source, target)
    gap = -(-(2 * reach + 2) // down) * down  # between impulses, so that each meets another phase of the filter
    impulses = gap + np.arange(down) * (gap + 1)
    samples = np.zeros(impulses[-1] + gap + 1, dtype=np.float32)
    samples[impulses] = 1.0
    response = convert(samples, source, target)
    rows, columns = matrix_shape(source, target)
    weights = np.zeros((rows, columns), dtype=np.float32)
    for impulse in impulses.tolist():
        outputs = np.arange(-(-(impulse - reach) * up // down), (impulse + reach) * up // down + 1)
        weights[outputs % up, impulse - outputs // up * down + reach] = response[outputs]
    for period in range(1, rows // up):  # further periods of the block read as many inputs later
        shifted = weights[:up, : columns - period * down]
        weights[period * up : (period + 1) * up, period * down :] = shifted
    return weights, reach


@lru_cache(maxsize=16)
def start_matrix(source: int, target: int) -> FloatArray:
    """Weights float32 [outputs, inputs] of the first output samples, up to where nothing of the start is left."""
    period = max(1.0, source / target)  # of the lower rate, in inputs
    impulses = np.eye(math.ceil((START + REACH) * period), dtype=np.float32)
    outputs = math.ceil(START * period * target / source)
    return np.ascontiguousarray(convert(impulses, source, target)[:outputs])


def _reach(source: int, target: int) -> int:
    return math.ceil(REACH * max(1.0, source / target))


class MelSpectrograms:
    """`MelFrontEnd` for many clips at once, on a device."""

    def __init__(self, front_end: MelFrontEnd, device: torch.device) -> None:
        self.front_end = front_end
        self._filters = torch.from_numpy(front_end.filters).to(device)
        self._window = torch.hann_window(front_end.fft_size, periodic=True, device=device)

    def log_mel(self, samples: Tensor, lengths: Sequence[int]) -> Tensor:
        """Float32 [B, F, M] in dB of samples float32 [B, N]; a clip's own frames are the first 1 + length // hop."""
        size, hop = self.front_end.fft_size, self.front_end.hop
        half = size // 2
        frames = 1 + max(lengths) // hop
        ends = numbers(lengths, samples.device)[:, None] - 1  # [B, 1]
        places = torch.arange(-half, (frames - 1) * hop + size - half, device=samples.device)[None]
        inside = (places >= 0) & (places <= ends)
        reflected = places.abs()
        reflected = torch.where(reflected > ends, 2 * ends - reflected, reflected).clamp(min=0)
        padded = samples.gather(1, torch.minimum(reflected, ends))
        if min(lengths) <= half:  # too short to be reflected
            padded = torch.where(inside | (ends >= half), padded, 0.0)
        spectrum = torch.fft.rfft(padded.unfold(1, size, hop) * self._window)  # [B, F, size / 2 + 1]
        power = spectrum.real.square() + spectrum.imag.square()
        return 10.0 * torch.log10(torch.clamp(power @ self._filters, min=FLOOR))

    def tower_inputs(self, samples: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """What `MelFrontEnd.tower_input` gives for each clip, float32 [C, channels, T, M]. samples: float32 [B, N]."""
        front_end = self.front_end
        hop, length = front_end.hop, front_end.length
        whole = [row for row, count in enumerate(lengths) if front_end.fused and count > length]
        found: dict[int, Tensor] = {}
        if whole:
            longest = max(lengths[row] for row in whole)
            mels = self.log_mel(samples[whole, :longest], [lengths[row] for row in whole])
            for row, mel in zip(whole, mels, strict=True):
                count = lengths[row] // hop + 1
                found[row] = mel[None, None, :count] if count <= front_end.frames else self.fusion(mel[:count])[None]
        starts = {row: crop_starts(lengths[row], length) for row in range(len(lengths)) if row not in found}
        if starts:
            rows = [row for row, crops in starts.items() for _ in crops]
            firsts = [start for crops in starts.values() for start in crops]
            cut = self.segments(samples, [lengths[row] for row in rows], rows, firsts)
            mels = self.log_mel(cut, [length] * len(rows))[:, None]  # [C, 1, T, M]
            parts = torch.split(mels, [len(crops) for crops in starts.values()])
            found |= zip(starts, parts, strict=True)
        return [found[row] for row in range(len(lengths))]

    def segments(self, samples: Tensor, lengths: Sequence[int], rows: Sequence[int], starts: Sequence[int]) -> Tensor:
        """Float32 [C, length]: of each row from its start on; a shorter one repeated whole, then zeros."""
        device, length = samples.device, self.front_end.length
        places = torch.arange(length, device=device)[None]
        counts, firsts = (numbers(values, device)[:, None] for values in (lengths, starts))
        flat = (firsts + places) % counts + numbers(rows, device)[:, None] * samples.shape[1]
        used = torch.where(counts >= length, length, length // counts * counts)
        return torch.where(places < used, samples.flatten()[flat], 0.0)

    def fusion(self, whole: Tensor) -> Tensor:
        """`MelFrontEnd.fusion` of a clip's spectrogram [F, M]: float32 [4, T, M]."""
        count, last = self.front_end.frames, len(whole) - self.front_end.frames
        positions = np.maximum((np.arange(count) + 0.5) * (len(whole) / count) - 0.5, 0.0)
        before = torch.from_numpy(positions.astype(np.int64)).to(whole.device)
        after = (before + 1).clamp(max=len(whole) - 1)
        share = torch.from_numpy((positions % 1.0).astype(np.float32)).to(whole.device)[:, None]
        shrunk = whole[before] * (1 - share) + whole[after] * share
        return torch.stack([shrunk, *(whole[start : start + count] for start in (0, last // 2, last))])


def numbers(values: Sequence[int], device: torch.device) -> Tensor:
    """Int64 [N] on the device, copied there without waiting for what it is doing."""
    return torch.tensor(values, pin_memory=device.type == "cuda").to(device, non_blocking=True)


def crop_starts(samples: int, length: int) -> tuple[int, ...]:
    """Where the pieces start that a tower reads of a clip: all of a short one, else its front, middle and back."""
    last = samples - length
    return (0,) if last <= 0 else (0, last // 2, last)
