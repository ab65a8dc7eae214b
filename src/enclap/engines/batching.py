"""What every engine does around its networks: windows to network inputs, similar lengths together, ids to text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

from enclap.audio.resample import resample
from enclap.decoding.beam import Hypothesis
from enclap.errors import ModelError
from enclap.hub.model_folder import ModelFolder
from enclap.types import Candidate, Features, FloatArray, Window

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH = 16
"""Clips that run together on a processor: more gain nothing there and cost memory."""

LEAST_LENGTH = Fraction(4, 5)
"""Of the longest item of a batch, for those that are padded to its length."""


def in_groups(
    items: Sequence[Item],
    length: Callable[[Item], int],
    run: Callable[[list[Item]], list[Result]],
    together: int = MAX_BATCH,
) -> list[Result]:
    """The results of `run` in the items' order, called with items of one length only, at most so many together.

    Padding changes the last frames of codec and encoder a little, so items of different length never meet.
    """
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(length(item), []).append(index)
    results: dict[int, Result] = {}
    for indices in groups.values():
        for start in range(0, len(indices), together):
            part = indices[start : start + together]
            results |= zip(part, run([items[index] for index in part]), strict=True)
    return [results[index] for index in range(len(items))]


def similar_lengths(
    lengths: Sequence[int], limit: Callable[[int], int], least: Fraction = LEAST_LENGTH
) -> list[list[int]]:
    """Batches of indices of items that may run together, each index once, longest items first.

    limit: how many items of a length may run together. Items are padded to the longest of their batch, so a batch
    holds none of less than `least` times its length.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches = []
    while order:
        longest = lengths[order[0]]
        batches.append([index for index in order[: limit(longest)] if lengths[index] >= least * longest])
        order = order[len(batches[-1]) :]
    return batches


def no_codes(folder: ModelFolder) -> Features:
    """Features without codes or embedding, for models that take neither."""
    return Features(codes=np.zeros((0, folder.caption.codebooks), dtype=np.int64), embedding=None)


def clap_input(folder: ModelFolder, window: Window) -> FloatArray | None:
    """CLAP's mel spectrograms [C, channels, T, M] of a window; None when the model takes no embedding."""
    if folder.clap is None:
        return None
    return folder.clap.tower_input(resample(window.waveform, folder.clap.rate))


def log_mel(folder: ModelFolder, window: Window) -> FloatArray | None:
    """Log-mel frames [T, M] of a window at the frame rate; None unless they are the model's acoustic input."""
    if folder.mel is None:
        return None
    samples = resample(window.waveform, folder.mel.rate)
    frames = max(1, math.ceil(len(samples) / folder.mel.hop))
    return folder.mel.log_mel(samples)[:frames]


def frame_count(folder: ModelFolder, features: Features) -> int:
    """Frames of the acoustic input that the model reads: at most what its positions hold."""
    frames = len(features.codes) if features.log_mel is None else len(features.log_mel)
    return min(frames, folder.max_frames)


def encoder_inputs(folder: ModelFolder, features: Sequence[Features]) -> dict[str, np.ndarray]:
    """The encoder's arrays for clips of equal length, by name; ModelError when the features lack one.

    codes: int64 [B, T, K]. log_mel: float32 [B, T, M]. clap_embedding: float32 [B, E]. Only what the model takes.
    """
    caption = folder.caption
    arrays: dict[str, np.ndarray] = {}
    if caption.acoustic_input == "codes":
        if any(clip.codes.shape[1] != caption.codebooks for clip in features):
            raise ModelError(f"features with another number of codebooks than the model's {caption.codebooks}")
        arrays["codes"] = np.stack([clip.codes[: folder.max_frames] for clip in features])
    if caption.acoustic_input == "log_mel":
        arrays["log_mel"] = np.stack([_present(clip.log_mel, "log_mel")[: folder.max_frames] for clip in features])
    if caption.use_clap:
        arrays["clap_embedding"] = np.stack([_present(clip.embedding, "embedding") for clip in features])
    return arrays


def candidates(folder: ModelFolder, hypotheses: Sequence[Hypothesis]) -> list[Candidate]:
    """Hypotheses with their text."""
    return [
        Candidate(
            token_ids=hypothesis.tokens,
            text=folder.tokenizer.decode(list(hypothesis.tokens), skip_special_tokens=True).strip(),
            score=hypothesis.score,
        )
        for hypothesis in hypotheses
    ]


def _present(array: FloatArray | None, name: str) -> FloatArray:
    if array is None:
        raise ModelError(f"features without {name}, which this model reads; extract them again with this model")
    return array
