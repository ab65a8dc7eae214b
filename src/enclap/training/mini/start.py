"""Where the captioner starts: from random weights, or from those of an earlier mini."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.loading import load_caption_model
from enclap.model.slots import POSITION_OFFSET


def widened_captioner(folder: Path, clap_slots: int) -> EnclapForConditionalGeneration:
    """The captioner in a model folder with `clap_slots` slots for CLAP's embedding in the place of its one.

    The first slot keeps its projection. Slot k gets what the first would hold if the whole clip were like part k of the
    embedding (mini's parts are the whole, the first half, the second half). Positions move with their frames. With one
    slot it is the captioner as it was.
    """
    model = load_caption_model(folder)
    if clap_slots == model.config.clap_slots:
        return model
    if model.config.clap_slots != 1:
        raise ValueError(f"{folder}: has {model.config.clap_slots} slots for CLAP; only one slot can become many")
    wide = EnclapForConditionalGeneration(EnclapConfig.from_dict({**model.config.to_dict(), "clap_slots": clap_slots}))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["clap_projection.weight"] = widen_projection(state["clap_projection.weight"], clap_slots)
    state["clap_projection.bias"] = state["clap_projection.bias"].repeat(clap_slots)
    positions, added = "bart.encoder.embed_positions.weight", clap_slots - 1
    unused, used = state[positions][:POSITION_OFFSET], state[positions][POSITION_OFFSET:]
    state[positions] = torch.cat([unused, torch.zeros_like(used[:added]), used[:-added]])
    wide.load_state_dict(state)
    return wide


def widen_projection(weight: Tensor, slots: int) -> Tensor:
    """Weights [slots * D, E] of a projection to several slots from those [D, E] to one."""
    parts = weight.reshape(len(weight), slots, -1)  # [D, slots, E / slots]
    rows = torch.zeros(slots, *parts.shape)  # [slots, D, slots, E / slots]
    for part in range(1, slots):
        rows[part, :, part] = parts.sum(dim=1)
    rows[0] = parts
    return rows.flatten(2).flatten(0, 1)
