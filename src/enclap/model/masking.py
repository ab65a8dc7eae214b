"""Which codes masked codec modeling hides while training: spans of frames, drawn per codebook, clip and epoch."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from enclap.types import IntArray

SPAN = 10
"""Frames in a hidden span (EnCLAP, arXiv 2401.17690)."""
PROBABILITY = 0.15
"""Share of the frames hidden per codebook, before spans overlap (same source)."""
IGNORED = -100
"""Label of what no loss counts, as in PyTorch's cross-entropy."""


def clip_generator(seed: int, epoch: int, clip: str) -> np.random.Generator:
    """The random numbers of one clip in one epoch: the same on every run, process and order of clips."""
    digest = hashlib.blake2b(clip.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest, "little")])


def hidden_frames(
    frames: int,
    codebooks: int,
    generator: np.random.Generator,
    *,
    probability: float = PROBABILITY,
    span: int = SPAN,
) -> NDArray[np.bool_]:
    """Bool [T, K], true where a code is hidden; each codebook draws its own spans.

    The number of spans is T * probability / span, rounded up or down at random so that its mean is exact, as
    wav2vec 2.0 does; starts are drawn without replacement. A clip shorter than a span is hidden whole, or not at all.
    """
    hidden = np.zeros((frames, codebooks), dtype=np.bool_)
    length = min(span, frames)
    if length == 0 or codebooks == 0:
        return hidden
    starts = frames - length + 1
    drawn = []
    for _ in range(codebooks):
        spans = min(starts, int(frames * probability / length + generator.random()))
        drawn.append(generator.choice(starts, size=spans, replace=False))
    rows = np.concatenate(drawn)[:, None] + np.arange(length)
    hidden[rows, np.repeat(np.arange(codebooks), [len(part) for part in drawn])[:, None]] = True
    return hidden


def mask_codes(codes: IntArray, hidden: NDArray[np.bool_], entries: int) -> tuple[IntArray, IntArray]:
    """Codes with `entries` where hidden, and labels with the original code there and IGNORED elsewhere.

    codes, hidden: [T, K]; both results int64 [T, K].
    """
    return np.where(hidden, entries, codes), np.where(hidden, codes, IGNORED)
