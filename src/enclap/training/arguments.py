"""A recipe in transformers' terms, and what of it this machine cannot do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from enclap.errors import UsageError
from enclap.training.recipe import Optimisation, OptimiserSettings
from enclap.training.trackers import place_trackers
from enclap.training.validation import Validation

WORKERS_BESIDE_ACCELERATOR = 4


def training_arguments(
    optimisation: Optimisation, output: Path, validation: Validation | None = None
) -> Seq2SeqTrainingArguments:
    """The recipe in transformers' terms; UsageError when this machine cannot divide a step as it asks."""
    require_sharding(optimisation, int(os.environ.get("WORLD_SIZE", "1")))
    accelerated = torch.cuda.is_available()
    workers = optimisation.workers
    place_trackers(optimisation.trackers, output)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=optimisation.steps,
        gradient_accumulation_steps=optimisation.accumulate,
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        warmup_steps=optimisation.warmup_steps,
        lr_scheduler_type=optimisation.schedule,
        lr_scheduler_kwargs=scheduler_settings(optimisation),
        max_grad_norm=optimisation.clip_norm,
        adam_beta2=optimisation.adam_beta2,
        bf16=optimisation.bfloat16,
        activation_checkpointing=optimisation.checkpointing,
        torch_compile=optimisation.compile,
        fsdp=optimisation.fsdp,
        use_cpu=not accelerated,  # without this word bfloat16 is refused there
        seed=optimisation.seed,
        save_steps=optimisation.save_every,
        save_total_limit=2,
        eval_strategy="no" if validation is None else "steps",
        eval_steps=None if validation is None else validation.every,
        logging_steps=optimisation.log_every,
        logging_nan_inf_filter=False,  # which would hide a loss that is no number
        report_to=list(optimisation.trackers),
        remove_unused_columns=False,
        train_sampling_strategy="sequential",  # item n is drawn by n: order and groups of like length are the draw's
        dataloader_num_workers=WORKERS_BESIDE_ACCELERATOR * accelerated if workers is None else workers,
        dataloader_pin_memory=accelerated,
        disable_tqdm=True,
    )
    arguments.per_device_train_batch_size = items_of_a_part(optimisation, arguments)
    return arguments


def scheduler_settings(optimisation: Optimisation) -> dict[str, Any] | None:
    """What transformers' schedule takes beside the warm-up; None for those that take nothing."""
    is_scaled = optimisation.schedule == "inverse_sqrt" and optimisation.time_scale
    return {"timescale": optimisation.time_scale} if is_scaled else None


def items_of_a_part(optimisation: Optimisation, arguments: TrainingArguments) -> int:
    """Items that a process works through at once; UsageError when they cannot be divided equally."""
    if arguments.n_gpu > 1:
        start = f"start one process for each (torchrun --nproc-per-node {arguments.n_gpu} …)"
        raise UsageError(f"{arguments.n_gpu} GPUs for one process: {start}, or choose one with CUDA_VISIBLE_DEVICES=0")
    parts: int = arguments.world_size * optimisation.accumulate
    if optimisation.batch_size % parts:
        divided = f"{arguments.world_size} processes with {optimisation.accumulate} parts each"
        raise UsageError(f"batch_size {optimisation.batch_size} cannot be divided equally among {divided}")
    return optimisation.batch_size // parts


def require_sharding(optimisation: OptimiserSettings, processes: int) -> None:
    """Raises UsageError when weights are to be sharded (FSDP) and cannot be, or only the launcher says so.

    To be asked before transformers is told: it writes FSDP into the environment, where every later loading reads it.
    Accelerate (1.15) shards on accelerators alone: processes on the processor would silently hold all weights each.
    """
    if not optimisation.fsdp:
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
            raise UsageError("the launcher asks for FSDP, not the recipe; use --set optimisation.fsdp=true instead")
        return
    if not torch.cuda.is_available():
        raise UsageError("optimisation.fsdp: Accelerate shards weights on GPUs alone, and none is here; leave it out")
    if processes == 1:
        start = "start one for each GPU (torchrun --nproc-per-node N -m enclap train …)"
        raise UsageError(f"optimisation.fsdp: needs several processes; {start}, or leave it out")
    if optimisation.ema is not None:
        raise UsageError("optimisation.fsdp: weights in shards are not averaged; leave out fsdp or ema")
