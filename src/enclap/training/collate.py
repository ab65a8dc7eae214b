"""Items to batches of the caption model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from enclap.model.masking import IGNORED
from enclap.model.slots import pad_frames
from enclap.training.dataset import CaptionItem


class CaptionCollator:
    """Pads items into the model's inputs; nothing here is random."""

    def __init__(self, entries: int, limit: int) -> None:
        self._entries = entries
        self._limit = limit

    def __call__(self, items: Sequence[CaptionItem]) -> dict[str, Tensor]:
        """{codes [B, T, K], code_mask [B, T], clap_embedding [B, E], labels [B, S], mcm_labels [B, T, K]}.

        Codes are padded with `entries`, both kinds of labels with -100; clips are cut to the model's frames. Items with
        log-mel frames give log_mel [B, T, M], padded with zeros, in the place of codes and mcm_labels.
        """
        labels = np.full((len(items), max(len(item.labels) for item in items)), IGNORED, dtype=np.int64)
        for row, item in enumerate(items):
            labels[row, : len(item.labels)] = item.labels
        batch: dict[str, NDArray[Any]] = {"labels": labels}
        log_mels = [item.log_mel for item in items if item.log_mel is not None]
        if log_mels:
            batch["log_mel"], batch["code_mask"] = pad_frames(log_mels, 0, self._limit)
        else:
            batch["codes"], batch["code_mask"] = pad_frames([item.codes for item in items], self._entries, self._limit)
            batch["mcm_labels"], _ = pad_frames([item.mcm_labels for item in items], IGNORED, self._limit)
        embeddings = [item.embedding for item in items if item.embedding is not None]
        if embeddings:
            batch["clap_embedding"] = np.stack(embeddings)
        return {name: torch.from_numpy(array) for name, array in batch.items()}
