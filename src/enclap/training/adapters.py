"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft, where there is no memory to train every weight."""

from __future__ import annotations

from typing import Any

from enclap.errors import MissingExtra
from enclap.model import EnclapForConditionalGeneration

ADAPTED = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
"""BART's layers that get adapters, in encoder and decoder."""
SCALE = 2
"""Factor of an adapter's output, in ranks."""


def add_adapters(model: EnclapForConditionalGeneration, rank: int, train_tokens: bool) -> Any:
    """The adapters around the model, in which all other weights are now frozen; see `merge_adapters`.

    train_tokens: train the token table too, as a vocabulary with new tokens needs it.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise MissingExtra("LoRA", "train") from error
    adapters = LoraModel(model, LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=ADAPTED), "default")
    if train_tokens:
        model.get_input_embeddings().weight.requires_grad_(True)
    return adapters


def merge_adapters(adapters: Any) -> EnclapForConditionalGeneration:
    """The model with what its adapters have learnt in its own weights, and no adapters left."""
    merged: EnclapForConditionalGeneration = adapters.merge_and_unload()
    return merged
