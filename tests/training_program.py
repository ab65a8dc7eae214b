"""One training of a tiny captioner, in as many processes as start this: what tests/test_trainer.py compares."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.loading import load_pretrained
from enclap.training.captioning import Phase, count_batch, train_captioner
from enclap.training.collate import CaptionCollator
from enclap.training.dataset import CaptionItems, Perturbation
from enclap.training.recipe import Optimisation
from enclap.training.tokenizer import train_tokenizer
from enclap.training.trainer import train_model
from feature_clips import HEADER, clips

STEPS, BATCH = 9, 8


def tiny_captioner(vocabulary: int) -> EnclapForConditionalGeneration:
    """A captioner without dropout, the same on every call."""
    torch.manual_seed(0)
    sizes = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = EnclapConfig(
        **sizes,
        d_model=16,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        vocab_size=vocabulary,
        codebooks=HEADER.codebooks,
        codebook_entries=HEADER.entries,
        clap_dim=HEADER.embedding,
        frame_rate=HEADER.frame_rate,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )
    return EnclapForConditionalGeneration(config)


class Recorder:
    """Draws items and remembers their numbers."""

    def __init__(self, draw: Callable[[int], Any]) -> None:
        self._draw = draw
        self.numbers: list[int] = []

    def __call__(self, number: int) -> Any:
        self.numbers.append(number)
        return self._draw(number)


def train(output: Path, **settings: Any) -> nn.Module:
    """The captioner after a few steps; `output` holds its log, checkpoints, and what each process drew."""
    tokenizer = train_tokenizer(["A dog barks.", "Rain falls."], 280)
    model = tiny_captioner(tokenizer.get_vocab_size())
    plan = {"steps": STEPS, "batch_size": BATCH, "learning_rate": 2e-3, "warmup_steps": 2, "ema": 0.9}
    optimisation = Optimisation.model_validate({**plan, "save_every": 3, "log_every": 1, "seed": 5, **settings})
    perturbation = Perturbation(mask_probability=0.5)
    items = CaptionItems(clips(24), np.ones(24), tokenizer, HEADER.entries, perturbation, batch_size=BATCH, seed=5)
    draw = Recorder(items)
    count = partial(count_batch, codebooks=HEADER.codebooks)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only wait for each other in so small a model
    train_model(model, draw, CaptionCollator(HEADER.entries, model.config.max_frames), optimisation, output, count)
    torch.set_num_threads(threads)
    rank = int(os.environ.get("RANK", "0"))
    facts = {"numbers": draw.numbers, "seed": torch.initial_seed()}
    (output / f"process-{rank}.json").write_text(json.dumps(facts), encoding="utf-8")
    torch.save(model.state_dict(), output / f"weights-{rank}.pt")
    return model


def train_in_two_phases(output: Path) -> Path:
    """The folder of a captioner that was trained in two phases, as one would train a captioner of one's own."""
    tokenizer = train_tokenizer(["A dog barks.", "Rain falls."], 280)
    plan = {"steps": 3, "batch_size": BATCH, "learning_rate": 2e-3, "warmup_steps": 1, "ema": 0.9, "log_every": 1}
    phases = [
        Phase(clips(24), np.ones(24), Perturbation(), Optimisation.model_validate({**plan, "seed": seed}))
        for seed in (1, 2)
    ]
    model = tiny_captioner(tokenizer.get_vocab_size())
    folder = train_captioner(model, tokenizer, phases, output / "progress", output / "model")
    load_pretrained(EnclapForConditionalGeneration, folder, "the captioner")  # in every process
    return folder


def train_all(output: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Each of the runs in a folder of its name, and then the two phases."""
    for name, settings in runs.items():
        train(output / name, **settings)
    train_in_two_phases(output / "phases")
