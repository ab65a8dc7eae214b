"""What is done to a model's weights beside the optimiser's steps: their average, and rounding to what is stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from enclap.hub.layout import WEIGHTS

AVERAGE_FILE = "average.pt"


class WeightAverage(TrainerCallback):  # type: ignore[misc]
    """Exponential moving average of all floating parameters and buffers, saved into each checkpoint.

    Source: Polyak averaging in its exponential form; the decay grows to its full value over the first steps, so that
    the random start is forgotten. Every process keeps the average of its own weights, which are the same everywhere;
    one of them writes it.
    """

    def __init__(self, model: nn.Module, decay: float, resume_from: Path | None) -> None:
        self._decay = decay
        self._average = {name: value.detach().clone() for name, value in _floats(model).items()}
        if resume_from is not None:
            self._average = torch.load(resume_from / AVERAGE_FILE, map_location="cpu", weights_only=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the average towards the weights after an optimiser step."""
        decay = min(self._decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, value in _floats(kwargs["model"]).items():
                if self._average[name].device != value.device:
                    self._average[name] = self._average[name].to(value.device)
                self._average[name].lerp_(value, 1.0 - decay)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the average into the checkpoint that was just saved."""
        if state.is_world_process_zero:
            torch.save(self._average, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / AVERAGE_FILE)

    def load_into(self, model: nn.Module) -> None:
        """Replace the model's weights by the average."""
        model.load_state_dict(self._average, strict=False)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model's state that can be averaged."""
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


def round_to_float16(model: nn.Module) -> None:
    """Round all weights to what float16 holds: they are stored in that size, and later stages are to see the same."""
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.copy_(value.half().float())


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the names whose tensors lie where an earlier one does, as safetensors wants it."""
    seen: set[tuple[int, torch.Size]] = set()
    kept = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape)
        if value.numel() == 0 or place not in seen:
            kept[name] = value
            seen.add(place)
    return kept


def copy_to_shard(model: nn.Module, checkpoint: Path | None) -> nn.Module:
    """A copy of a model, with the weights of a checkpoint if there is one: a model stays sharded once it is.

    The tied token table becomes one module in all its places: what several modules hold cannot be sharded.
    """
    copied = copy.deepcopy(model)
    if checkpoint is not None:
        load_weights(copied, checkpoint / WEIGHTS)
    if isinstance(copied, PreTrainedModel):
        copied.set_input_embeddings(copied.get_input_embeddings())
    return copied


def take_weights(model: nn.Module, trained: nn.Module) -> None:
    """Put the weights of a sharded copy into the model that it was made of; all processes call this together."""
    if trained is not model:
        state = trained.state_dict().items()
        whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state}
        model.load_state_dict(whole)


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the tensors of a safetensors file, as `unshared` left them, into the model."""
    model.load_state_dict(load_file(path), strict=False)
