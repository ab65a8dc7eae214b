"""The one training loop: transformers' Trainer with items drawn by number, in one process or many, and resuming.

What is learned depends on the recipe alone. Processes, parts of a batch and workers divide the items of a step among
them, and the losses are divided by what all of them count, so that any division gives the gradients of one large batch.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from enclap.errors import UsageError
from enclap.files import write_whole
from enclap.training.recipe import Optimisation
from enclap.training.weights import WeightAverage

logger = logging.getLogger(__name__)

COMPLETE_FILE = "complete"
"""Written last into a checkpoint; one without it was cut off while it was written."""
WORKERS_BESIDE_ACCELERATOR = 4

Batch = dict[str, Tensor]
CountItems = Callable[[Batch], Tensor]
"""From a batch to what its losses are divided by, float32 [any number of losses]; see `losses.count_items`."""


class SampledDataset(Dataset[Any]):
    """Training items by number: item n is `draw(n)`, so a resumed run goes on with the very items that were left."""

    def __init__(self, draw: Callable[[int], Any], length: int) -> None:
        self._draw = draw
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._draw(index)


class JsonLog(TrainerCallback):  # type: ignore[misc]
    """Each of the trainer's records as a line of JSON in `path`, written by one process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove what a run that was cut off logged after the checkpoint from which this one goes on."""
        if state.is_world_process_zero and self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            records = [json.loads(line) for line in lines if line.endswith("}")]  # the last may have been cut off
            kept = [record for record in records if "loss" in record and record["step"] <= state.global_step]
            write_whole(self._path, "".join(f"{json.dumps(record)}\n" for record in kept))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append the record with its step."""
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, **(kwargs.get("logs") or {})}) + "\n")


class ManyProcesses(TrainerCallback):  # type: ignore[misc]
    """What more than one process needs: other dropout in each, and a mark on checkpoints that all have finished."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seed the processes apart; otherwise dropout would hide the same units of the first item in each of them."""
        if args.process_index > 0:
            set_seed(args.seed + args.process_index)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as complete; this callback stands after those that write into it."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE_FILE).touch()


class ItemTrainer(Trainer):  # type: ignore[misc]
    """Trainer for models whose forward returns a mapping with "loss" and named parts, which are logged too.

    count: what each batch's losses are divided by. Its sum over all batches of a step, in all processes, is given to
    forward as `num_items`; the sum of the batches' losses is then the loss of the step. None for losses that are means
    over equally many items: the mean of the batches' losses is the loss of the step.
    """

    def __init__(self, *, count: CountItems | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss_is_scaled_for_ga = count is not None  # or the Trainer divides by the number of batches of a step
        self._count = count
        self._parts: dict[str, Tensor] = {}
        self._batches = 0

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of the items in their order, dealt out to the processes; the draw itself is what is random."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return cast(DataLoader[Any], self.accelerator.prepare(loader))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor | None]:
        """This process's batches of one step, and what the losses of all processes' batches are divided by."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if self._count is None or not batches:
            return batches, None
        items = torch.stack([self._count(batch) for batch in batches]).sum(dim=0)
        return batches, self.accelerator.reduce(items.to(device), reduction="sum")

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """The scalar loss; with `return_outputs` also the model's outputs."""
        outputs = model(**inputs) if self._count is None else model(**inputs, num_items=num_items_in_batch)
        for name, value in outputs.items():
            if name != "loss" and isinstance(value, Tensor) and value.ndim == 0:
                self._parts[name] = self._parts.get(name, 0.0) + value.detach().float()
        self._batches += 1
        loss = outputs["loss"]
        if self._count is not None:
            loss = loss * self.accelerator.num_processes  # of whose gradients DistributedDataParallel takes the mean
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *arguments: Any, **keywords: Any) -> None:
        """Add the parts' means over the steps since the last record, and give both to the program's log."""
        batches_of_a_step = self.args.gradient_accumulation_steps * self.accelerator.num_processes
        scale = (1 if self._count is None else batches_of_a_step) / max(1, self._batches)
        parts = {name: scale * self.accelerator.reduce(total, "mean") for name, total in self._parts.items()}
        self._parts, self._batches = {}, 0
        logs = {**logs, **{name: float(value) for name, value in parts.items()}}
        if "loss" in logs and self.is_world_process_zero():
            logger.info("step %d of %d: loss %.4f", self.state.global_step, self.state.max_steps, logs["loss"])
        super().log(logs, *arguments, **keywords)


def train_model(
    model: nn.Module,
    draw: Callable[[int], Any],
    collate: Callable[[Sequence[Any]], Mapping[str, Tensor]],
    optimisation: Optimisation,
    output: Path,
    count: CountItems | None = None,
) -> nn.Module:
    """The trained model (the average of its weights where the recipe asks for one), in evaluation mode.

    Item n of the training is `draw(n)`; it should depend on n alone. Checkpoints are in `output`/checkpoints, the log
    in `output`/log.jsonl; a run that was cut off goes on from its last complete checkpoint and ends with the weights of
    an uninterrupted run. count: see `ItemTrainer`; needed wherever the loss is no mean over equally many items.

    Under `torchrun` every process calls this alike, and all return the trained model. Models whose training statistics
    are not gradients (batch norm, moving codebooks) or whose loss compares the items of a batch learn something else
    in many processes than in one. UsageError when the items of a step cannot be divided equally.
    """
    set_seed(optimisation.seed)
    output.mkdir(parents=True, exist_ok=True)
    arguments = training_arguments(optimisation, output / "checkpoints")
    last = newest_checkpoint(output / "checkpoints", tidy=arguments.process_index == 0)
    average = None if optimisation.ema is None else WeightAverage(model, optimisation.ema, last)
    trainer = ItemTrainer(
        count=count,
        model=model,
        args=arguments,
        train_dataset=SampledDataset(draw, optimisation.steps * optimisation.batch_size),
        data_collator=collate,
        callbacks=[JsonLog(output / "log.jsonl"), *([] if average is None else [average]), ManyProcesses()],
    )
    trainer.remove_callback(PrinterCallback)  # which prints to standard output
    logger.info("%s: %d steps of %d items", output, optimisation.steps, optimisation.batch_size)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    if average is not None:
        average.load_into(model)
    return model.eval()


def newest_checkpoint(folder: Path, tidy: bool) -> Path | None:
    """The newest checkpoint that was written whole, None without one. tidy: remove those that were cut off.

    The Trainer keeps the newest checkpoints by time or number; a remnant would take the place of one that is whole.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    complete = [path for path in found if (path / COMPLETE_FILE).exists()]
    if tidy:
        for path in set(found) - set(complete):
            shutil.rmtree(path)
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def training_arguments(optimisation: Optimisation, checkpoints: Path) -> TrainingArguments:
    """The recipe in transformers' terms; UsageError when this machine cannot divide a step as it asks."""
    accelerated = torch.cuda.is_available()
    workers = optimisation.workers
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=optimisation.steps,
        gradient_accumulation_steps=optimisation.accumulate,
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        warmup_steps=optimisation.warmup_steps,
        lr_scheduler_type="cosine",
        max_grad_norm=optimisation.clip_norm,
        adam_beta2=0.98,
        bf16=optimisation.bfloat16,
        use_cpu=not accelerated,  # without this word bfloat16 is refused there
        seed=optimisation.seed,
        save_steps=optimisation.save_every,
        save_total_limit=2,
        logging_steps=optimisation.log_every,
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=WORKERS_BESIDE_ACCELERATOR * accelerated if workers is None else workers,
        dataloader_pin_memory=accelerated,
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        start = f"start one process for each (torchrun --nproc-per-node {arguments.n_gpu} …)"
        raise UsageError(f"{arguments.n_gpu} GPUs for one process: {start}, or choose one with CUDA_VISIBLE_DEVICES=0")
    parts = arguments.world_size * optimisation.accumulate
    if optimisation.batch_size % parts:
        divided = f"{arguments.world_size} processes with {optimisation.accumulate} parts each"
        raise UsageError(f"batch_size {optimisation.batch_size} cannot be divided equally among {divided}")
    arguments.per_device_train_batch_size = optimisation.batch_size // parts
    return arguments
