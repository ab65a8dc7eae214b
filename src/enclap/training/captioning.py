"""The captioner's training, for anyone who has features: values in, a folder with the trained model out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from enclap.convert.published_sizes import DEFAULT_GENERATION
from enclap.data.feature_store import Clip, StoreHeader
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.losses import count_items
from enclap.training.collate import CaptionCollator
from enclap.training.dataset import CaptionItems, Perturbation
from enclap.training.recipe import Optimisation
from enclap.training.trainer import Batch, train_model
from enclap.training.weights import round_to_float16


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One pass of the optimiser; a later phase goes on from the weights of the one before.

    clips: what is trained on. weights: float [N], how often each clip is drawn in proportion to the others.
    """

    clips: Sequence[Clip]
    weights: NDArray[np.float64]
    perturbation: Perturbation
    optimisation: Optimisation


def train_captioner(
    model: EnclapForConditionalGeneration, tokenizer: Tokenizer, phases: Sequence[Phase], progress: Path, output: Path
) -> Path:
    """The folder `output`, which now holds the trained captioner with its tokenizer and generation settings.

    progress: folder for checkpoints and logs, from which a run that was cut off goes on. Weights are rounded
    to float16, in which they are stored. Under `torchrun` every process calls this alike; one of them writes.
    """
    train_phases(model, tokenizer, phases, progress)
    return save_captioner(model, tokenizer, output)


def train_phases(
    model: EnclapForConditionalGeneration, tokenizer: Tokenizer, phases: Sequence[Phase], progress: Path
) -> None:
    """Train the model phase by phase. progress: as of `train_captioner`."""
    config = model.config
    collate = CaptionCollator(config.codebook_entries, config.max_frames)
    for number, phase in enumerate(phases, start=1):
        items = CaptionItems(
            phase.clips,
            phase.weights,
            tokenizer,
            config.codebook_entries,
            phase.perturbation,
            batch_size=phase.optimisation.batch_size,
            seed=phase.optimisation.seed,
        )
        count = partial(count_batch, codebooks=config.codebooks)
        train_model(model, items, collate, phase.optimisation, progress / f"phase-{number}", count)


def save_captioner(model: EnclapForConditionalGeneration, tokenizer: Tokenizer, output: Path) -> Path:
    """The folder `output`, which now holds the model, rounded to float16, its tokenizer and generation settings."""
    round_to_float16(model)
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not together or torch.distributed.get_rank() == 0:
        model.save_pretrained(output)
        tokenizer.save(str(output / "tokenizer.json"))
        settings = json.dumps(DEFAULT_GENERATION, indent=2) + "\n"
        (output / "generation_config.json").write_text(settings, encoding="utf-8")
    if together:
        torch.distributed.barrier()
    return output


def count_batch(batch: Batch, codebooks: int) -> Tensor:
    """What the losses of a batch are divided by, float32 [1 + K]; see `losses.count_items`."""
    return count_items(batch.get("labels"), batch.get("mcm_labels"), codebooks)


def new_captioner(
    sizes: Mapping[str, Any], tokenizer: Tokenizer, header: StoreHeader
) -> EnclapForConditionalGeneration:
    """A captioner with random weights that fits the features. sizes: as EnclapConfig names them."""
    config = EnclapConfig(
        **sizes,
        vocab_size=tokenizer.get_vocab_size(),
        codebooks=header.codebooks,
        codebook_entries=header.entries,
        clap_dim=header.embedding,
        frame_rate=header.frame_rate,
    )
    return EnclapForConditionalGeneration(config)
