"""The encoder's slots, `[CLAP] <s> frame_1 … frame_T </s>`, as vectors, with the quirks of the released models.

There are P slots for CLAP's embedding, one in the released models, so T + P + 2 in all.

How many slots there are is written in `hub.layout`, which the engines without PyTorch read too.

Released weights depend on three quirks of the official model (EnCLAP, arXiv 2401.17690, modeling/enclap_bart.py):
slot 0 gets no position and slot k the position row k - 1; the id that hides a code equals the padding id, and its
vector is zero; the start and end slots use BART's token vectors, not code vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from enclap.hub.layout import leading_slots, special_slots
from enclap.types import IntArray

POSITION_OFFSET = 2
"""Rows at the head of BART's position tables that no slot uses."""


def slot_mask(frame_mask: Tensor, clap_slots: int) -> Tensor:
    """Int64 [B, T + P + 2], 1 on every slot of a clip, from its frame mask [B, T] (1 = frame, 0 = padding)."""
    return functional.pad(frame_mask.long(), (special_slots(clap_slots), 0), value=1)


def pad_frames(clips: Sequence[NDArray[Any]], filling: int, limit: int) -> tuple[NDArray[Any], IntArray]:
    """Frames [B, T, K] of codes or of a spectrogram, padded with `filling`, and their mask int64 [B, T] (1 = frame).

    clips: [T_i, K] each, of one dtype, cut to the first `limit` frames.
    """
    cut = [clip[:limit] for clip in clips]
    frames = max(len(clip) for clip in cut)
    padded = np.full((len(cut), frames, cut[0].shape[1]), filling, dtype=cut[0].dtype)
    mask: NDArray[np.int64] = np.zeros((len(cut), frames), dtype=np.int64)
    for row, clip in enumerate(cut):
        padded[row, : len(clip)] = clip
        mask[row, : len(clip)] = 1
    return padded, mask


@dataclass(frozen=True, slots=True)
class EncoderInputs:
    """A batch of clips as the encoder takes it; what the configuration does not use is None.

    codes: int64 [B, T, K]. log_mel: float [B, T, M], decibels. frame_mask: [B, T], None when nothing is padding.
    clap_embedding: float [B, E].
    """

    codes: Tensor | None = None
    frame_mask: Tensor | None = None
    clap_embedding: Tensor | None = None
    log_mel: Tensor | None = None


class SlotPositions(nn.Embedding):
    """BART's position table [positions + 2, D], read one slot later: none for slot 0, row k - 1 + 2 for slot k."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__(positions + POSITION_OFFSET, width)

    def forward(self, slots: Tensor) -> Tensor:
        """Position vectors [slots, D] for an array [B, slots], of which only the shape counts."""
        rows = self.weight[POSITION_OFFSET : POSITION_OFFSET + slots.shape[1] - 1]  # [slots - 1, D]
        return functional.pad(rows, (0, 0, 1, 0))


class FrameEmbedding(nn.Module):
    """Frames to vectors [B, T, D]: the sum of one vector per codebook, a hidden code's being zero."""

    def __init__(self, codebooks: int, entries: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(entries + 1, width, padding_idx=entries) for _ in range(codebooks))

    def forward(self, codes: Tensor) -> Tensor:
        """Vectors [B, T, D] of codes [B, T, K]."""
        frames: Tensor = self.tables[0](codes[..., 0])
        for index in range(1, len(self.tables)):
            frames = frames + self.tables[index](codes[..., index])
        return frames


class MelProjection(nn.Module):
    """Log-mel frames [B, T, M] in decibels to vectors [B, T, D]: standardised, then projected."""

    def __init__(self, bands: int, width: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.projection = nn.Linear(bands, width)
        self.mean = mean
        self.deviation = deviation

    def forward(self, log_mel: Tensor) -> Tensor:
        """Vectors [B, T, D]."""
        standard = (log_mel - self.mean) / self.deviation
        projected: Tensor = self.projection(standard.to(self.projection.weight.dtype))
        return projected


def assemble_slots(first: Tensor, frames: Tensor, frame_mask: Tensor | None, start: Tensor, end: Tensor) -> Tensor:
    """Slot vectors [B, T + P + 2, D]; a clip's end comes right after its last frame, its padding slots are zero.

    first: [B, P, D]. frames: [B, T, D]. frame_mask: [B, T], padding at the right; None when there is none.
    start, end: [D], the token vectors of <s> and </s>.
    """
    clips, _, width = frames.shape
    start, last = start.expand(clips, 1, width), end.expand(clips, 1, width)
    if frame_mask is None:
        return torch.cat([first, start, frames, last], dim=1)
    kept = frames * frame_mask[..., None].to(frames.dtype)
    slots = torch.cat([first, start, kept, torch.zeros_like(last)], dim=1)  # [B, T + P + 2, D]
    end_slot = leading_slots(first.shape[1]) + frame_mask.long().sum(dim=1, keepdim=True)  # [B, 1]
    is_end = torch.arange(slots.shape[1], device=slots.device)[None] == end_slot  # [B, T + P + 2]
    return torch.where(is_end[..., None], last, slots)
