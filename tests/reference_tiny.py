"""The tiny reference model of tests/golden/enclap_tiny, read into our class: names and configuration mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from enclap.convert.published_names import CAPTION_NAMES, renamed
from enclap.convert.published_sizes import caption_config
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.types import IntArray

GOLDEN = Path(__file__).parent / "golden" / "enclap_tiny"


def our_tensors(official: dict[str, Tensor], entries: int) -> dict[str, Tensor]:
    """Official tensors under our names; code tables lose the rows after the hidden code's, which no id reaches."""
    ours = {renamed(name, CAPTION_NAMES): tensor for name, tensor in official.items()}
    return {
        name: tensor[: entries + 1] if name.startswith("frame_embedding") else tensor for name, tensor in ours.items()
    }


def reference_config() -> EnclapConfig:
    """Our configuration of the reference model."""
    return caption_config(GOLDEN / "config.json", frame_rate=75.0)[0]


def reference_model() -> EnclapForConditionalGeneration:
    """The reference weights in our class, in evaluation mode."""
    config = reference_config()
    model = EnclapForConditionalGeneration(config)
    model.load_state_dict(our_tensors(load_file(GOLDEN / "model.safetensors"), config.codebook_entries))
    return model.eval()


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def to_official_slots(codes: IntArray, mask: IntArray, pad: int) -> tuple[IntArray, IntArray, IntArray]:
    """Our codes [B, T, K] and mask [B, T] in the official layout: input_ids, encodec_mask, attention_mask per slot."""
    clips, frames, codebooks = codes.shape
    ids = np.full((clips, frames + 3, codebooks), pad)
    encodec = np.ones((clips, frames + 3), dtype=int)
    attention = np.zeros((clips, frames + 3), dtype=int)
    for row, length in enumerate(mask.sum(axis=1)):
        ids[row, :2] = 0
        ids[row, 2 : 2 + length] = codes[row, :length]
        ids[row, 2 + length] = 2
        encodec[row, [0, 1, 2 + length]] = 0
        attention[row, : length + 3] = 1
    return ids, encodec, attention


def from_official_slots(arrays: dict[str, np.ndarray], prefix: str = "in_") -> dict[str, Tensor]:
    """Our forward arguments from the official arrays of a batch."""
    ids, attention = arrays[f"{prefix}input_ids"], arrays[f"{prefix}attention_mask"]
    lengths = attention.sum(axis=1) - 3
    mask = np.arange(ids.shape[1] - 3)[None] < lengths[:, None]
    codes = np.where(mask[..., None], ids[:, 2:-1], ids.max())
    return {
        "codes": torch.from_numpy(codes),
        "code_mask": torch.from_numpy(mask.astype(np.int64)),
        "clap_embedding": torch.from_numpy(arrays[f"{prefix}clap_embedding"]),
    }


def reference_batch() -> dict[str, Tensor]:
    """The inputs and labels of the golden forward pass, in our slots."""
    arrays = golden("forward")
    inputs = from_official_slots(arrays)
    inputs["labels"] = torch.from_numpy(arrays["in_labels"])
    inputs["mcm_labels"] = torch.from_numpy(arrays["in_mcm_labels"][:, 2:-1])
    return inputs
