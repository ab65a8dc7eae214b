"""The tiny reference model of tests/golden/enclap_tiny, read into our class: names and configuration mapped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.types import IntArray

GOLDEN = Path(__file__).parent / "golden" / "enclap_tiny"

RENAMED = {
    r"^model\.encoder\.clap_projection\.": "clap_projection.",
    r"^model\.encoder\.embed_encodec\.(\d+)\.": r"frame_embedding.tables.\1.",
    r"^model\.": "bart.",
}


def our_name(name: str) -> str:
    """Our state-dict name of an official tensor."""
    for pattern, replacement in RENAMED.items():
        name, replaced = re.subn(pattern, replacement, name)
        if replaced:
            return name
    return name


def our_tensors(official: dict[str, Tensor], entries: int) -> dict[str, Tensor]:
    """Official tensors under our names; code tables lose the rows behind the hidden code's, which no id reaches."""
    renamed = {our_name(name): tensor for name, tensor in official.items()}
    return {
        name: tensor[: entries + 1] if name.startswith("frame_embedding") else tensor
        for name, tensor in renamed.items()
    }


def reference_config() -> EnclapConfig:
    """Our configuration of the reference model."""
    table = json.loads((GOLDEN / "config.json").read_text())
    same = [
        "activation_dropout",
        "attention_dropout",
        "d_model",
        "decoder_attention_heads",
        "decoder_ffn_dim",
        "decoder_layers",
        "dropout",
        "encoder_attention_heads",
        "encoder_ffn_dim",
        "encoder_layers",
        "label_smoothing",
        "max_position_embeddings",
        "vocab_size",
        "forced_eos_token_id",
    ]
    return EnclapConfig(
        **{name: table[name] for name in same},
        codebooks=table["num_rvq"],
        codebook_entries=table["encodec_vocab_size"],
        clap_dim=table["d_clap"],
        mcm_loss_weight=table["mcm_loss_scale"],
    )


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
