"""CLAP's front end in numpy: audio to decibel mel spectrograms, the one implementation that every engine uses.

It computes what `laion_clap` feeds its HTSAT tower (torchaudio's MelSpectrogram with HTK mel bands without area
normalisation, then 10 log10) and what transformers' ClapFeatureExtractor computes when it is set up like the
released model. That extractor cannot be used as it stands: it marks a random clip as "longer" when none is, and its
default lowest frequency is 0 Hz where the released weights saw 50 Hz.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enclap.errors import ModelError
from enclap.types import FloatArray

FLOOR = 1e-10
"""Smallest power before the logarithm: -100 dB (torchaudio's AmplitudeToDB and the released CLAP)."""
FUSED_CHANNELS = 4
"""Spectrograms of a long clip that a fused tower reads: the whole, then crops from its front, middle and back."""
BLOCK_FRAMES = 1024
"""Frames that are transformed together: their spectrum stays in the processor's cache, and an hour in memory."""
FUSION, CROPS = "fusion", "rand_trunc"
"""transformers' names (field `truncation`) for towers that fuse a long clip and for those that read crops of it."""


@dataclass(frozen=True)
class MelFrontEnd:
    """Audio at `rate` samples per second to the CLAP audio tower's input.

    length: samples the tower sees at once (10 s); shorter audio is repeated whole, then padded with zeros
    ("repeatpad", the released setting); longer audio gives three fixed crops.
    fused: whether the tower was trained with feature fusion, as laion/clap-htsat-fused was, so that it reads the whole
    of a longer clip beside the crops.
    """

    rate: int
    length: int
    fft_size: int
    hop: int
    bands: int
    lowest: float
    highest: float
    fused: bool = False

    @classmethod
    def from_folder(cls, folder: Path) -> MelFrontEnd:
        """The front end that `folder`/preprocessor_config.json describes; ModelError when it is missing or unfit."""
        path = folder / "preprocessor_config.json"
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                rate=int(table["sampling_rate"]),
                length=int(table["nb_max_samples"]),
                fft_size=int(table["fft_window_size"]),
                hop=int(table["hop_length"]),
                bands=int(table["feature_size"]),
                lowest=float(table["frequency_min"]),
                highest=float(table["frequency_max"]),
                fused=table.get("truncation") == FUSION,
            )
        except FileNotFoundError as error:
            raise ModelError(f"{path}: missing; the model folder is incomplete, fetch or export it again") from error
        except (KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: not a usable CLAP preprocessor configuration ({error!r})") from error

    def save(self, folder: Path) -> None:
        """Write `folder`/preprocessor_config.json with the field names of transformers' ClapFeatureExtractor."""
        table = {
            "feature_extractor_type": "ClapFeatureExtractor",
            "sampling_rate": self.rate,
            "nb_max_samples": self.length,
            "max_length_s": self.length // self.rate,
            "fft_window_size": self.fft_size,
            "hop_length": self.hop,
            "feature_size": self.bands,
            "frequency_min": self.lowest,
            "frequency_max": self.highest,
            "padding": "repeatpad",
            "truncation": FUSION if self.fused else CROPS,
            "padding_value": 0.0,
            "return_attention_mask": False,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")

    @property
    def frames(self) -> int:
        """Mel frames of one crop: centred frames, so one more than whole hops."""
        return self.length // self.hop + 1

    def tower_input(self, samples: FloatArray) -> FloatArray:
        """What the audio tower takes, float32 [C, channels, T, M] in dB: C inputs whose embeddings are averaged.

        samples: float32 [N], N >= 1, at `rate`. One channel, but for a fused tower's clips of more than `length`
        samples: there C = 1 and the four channels are those of `fusion`.
        """
        if self.fused and len(samples) // self.hop + 1 > self.frames:
            return self.fusion(samples)[None]
        if self.fused and len(samples) > self.length:  # by less than a frame
            return self.log_mel(samples)[None, None]
        return self(samples)[:, None]

    def __call__(self, samples: FloatArray) -> FloatArray:
        """Float32 [C, T, M] in dB: C = 1 up to `length` samples, else 3 crops (front, middle, back).

        samples: float32 [N], N >= 1, at `rate`. The crops are fixed where the published code draws them, so that the
        same file gives the same caption; the caller averages their embeddings.
        """
        if len(samples) <= self.length:
            return self.log_mel(repeat_to(samples, self.length))[None]
        last = len(samples) - self.length
        return np.stack([self.log_mel(samples[start : start + self.length]) for start in (0, last // 2, last)])

    def fusion(self, samples: FloatArray) -> FloatArray:
        """Float32 [4, T, M] in dB of samples [N] whose N // hop + 1 frames are more than T.

        The spectrogram of the whole clip shrunk to T frames, then three segments of T frames: the first, the middle
        and the last. The published code draws each from a third of all positions; these are in those thirds, and fixed,
        so that the same file gives the same caption.
        """
        whole = self.log_mel(samples)
        last = len(whole) - self.frames
        crops = [whole[start : start + self.frames] for start in (0, last // 2, last)]
        return np.stack([shrink(whole, self.frames), *crops])

    def log_mel(self, samples: FloatArray) -> FloatArray:
        """Float32 [1 + N // hop, M] in dB, of samples [N]; frames are centred, the ends reflected."""
        half = self.fft_size // 2
        padded = np.pad(samples, half, mode="reflect") if len(samples) > half else np.pad(samples, half)
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft_size)[:: self.hop]  # [T, fft_size]
        steps = np.arange(self.fft_size) / self.fft_size
        hann = (0.5 - 0.5 * np.cos(2.0 * np.pi * steps)).astype(np.float32)  # periodic
        decibels = np.empty((len(frames), self.bands), dtype=np.float32)
        for start in range(0, len(frames), BLOCK_FRAMES):
            block = slice(start, start + BLOCK_FRAMES)
            spectrum = np.fft.rfft(frames[block] * hann, axis=1)  # [t, fft_size // 2 + 1]
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            decibels[block] = np.float32(10.0) * np.log10(np.maximum(power @ self.filters, np.float32(FLOOR)))
        return decibels

    @cached_property
    def filters(self) -> FloatArray:
        """Triangular HTK mel filters without area normalisation, float32 [fft_size // 2 + 1, M]."""
        edges = mel_to_hertz(np.linspace(hertz_to_mel(self.lowest), hertz_to_mel(self.highest), self.bands + 2))
        bins = np.linspace(0.0, self.rate / 2, self.fft_size // 2 + 1)
        widths = np.diff(edges)
        rising = (bins[:, None] - edges[None, :-2]) / widths[:-1]
        falling = (edges[None, 2:] - bins[:, None]) / widths[1:]
        filters: FloatArray = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
        return filters


def repeat_to(samples: FloatArray, length: int) -> FloatArray:
    """Samples repeated whole as often as they fit into `length`, then zeros: CLAP's "repeatpad", float32 [length]."""
    repeated = np.tile(samples, length // len(samples))
    return np.pad(repeated, (0, length - len(repeated)))


def shrink(frames: FloatArray, count: int) -> FloatArray:
    """Float32 [count, M]: frames [T, M] interpolated along time, each at the middle of its share of the clip.

    This is bilinear interpolation without aligned corners, as the published code resizes spectrograms.
    """
    positions = np.maximum((np.arange(count) + 0.5) * (len(frames) / count) - 0.5, 0.0)
    before = positions.astype(np.int64)
    after = np.minimum(before + 1, len(frames) - 1)
    share = (positions - before).astype(np.float32)[:, None]
    mixed: FloatArray = frames[before] * (1 - share) + frames[after] * share
    return mixed


def hertz_to_mel(hertz: float) -> float:
    """Mel of a frequency in Hz, HTK's formula."""
    return float(2595.0 * np.log10(1.0 + hertz / 700.0))


def mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies in Hz of mels, HTK's formula."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
