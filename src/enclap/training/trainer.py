"""The one training loop: transformers' Trainer with items drawn by number, in one process or many, and resuming.

What is learned depends on the recipe alone. Processes, parts of a batch and workers divide the items of a step among
them, and the losses are divided by what all of them count, so that any division gives the gradients of one large batch.
Models whose training statistics are not gradients (batch norm, moving codebooks) or whose loss compares the items of a
batch are the exception: they learn something else in many processes than in one.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from enclap.errors import EnclapError, EnvironmentFault
from enclap.files import is_full, replacement_folder, write_whole
from enclap.hub.layout import WEIGHTS
from enclap.text import printable
from enclap.training.arguments import training_arguments
from enclap.training.recipe import Optimisation
from enclap.training.validation import Validation, is_improved, since_best
from enclap.training.weights import WeightAverage, copy_to_shard, load_weights, take_weights, unshared

logger = logging.getLogger(__name__)

COMPLETE_FILE = "complete"
"""Written last into a checkpoint; one without it was cut off while it was written."""
BEST = "best"
"""Folder of the weights that validated best."""
SPARED_FROM_DECAY = ("bias", "LayerNorm.weight", "layer_norm.weight")
"""Names of parameters without weight decay in the published loop (EnCLAP, train.py), which misses the two norms called
`layernorm_embedding`: they are decayed there."""

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
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove what a run that was cut off logged after the checkpoint from which this one goes on."""
        logger.info("%s: %d steps", self._path.parent, state.max_steps)
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


class ItemTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trainer for models whose forward returns a mapping with "loss" and named parts, which are logged too.

    count: what each batch's losses are divided by. Its sum over all batches of a step, in all processes, is given to
    forward as `num_items`; the sum of the batches' losses is then the loss of the step. None for losses that are means
    over equally many items: the mean of the batches' losses is the loss of the step. validation: see `train_model`.
    """

    def __init__(
        self,
        *,
        count: CountItems | None,
        validation: Validation | None = None,
        published_decay: bool = False,
        **arguments: Any,
    ) -> None:
        self._published_decay = published_decay
        self.control: TrainerControl
        super().__init__(**arguments, eval_dataset=arguments["train_dataset"])  # at which `evaluate` does not look
        self.remove_callback(PrinterCallback)  # which prints to standard output
        self.loss_is_scaled_for_ga = count is not None  # or the Trainer divides by the number of batches of a step
        self._count = count
        self._validation = validation
        self._parts: dict[str, Tensor] = {}
        self._broken: Tensor | None = None
        self._batches = 0
        self._last_log = (0, time.monotonic())

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """The parameters with weight decay; see `OptimiserSettings.decay_embedding_norms`."""
        if not self._published_decay:
            return cast(list[str], super().get_decay_parameter_names(model))
        names = [name for name, _ in model.named_parameters()]
        return [name for name in names if not any(part in name for part in SPARED_FROM_DECAY)]

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
        broken = ~torch.isfinite(loss.detach())  # looked at when something is logged: looking waits for the device
        self._broken = broken if self._broken is None else self._broken | broken
        if self._count is not None:
            loss = loss * self.accelerator.num_processes  # of whose gradients DistributedDataParallel takes the mean
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *arguments: Any, **keywords: Any) -> None:
        """Add the parts' means over the steps since the last record, and give both to the program's log."""
        self.require_finite()
        batches_of_a_step = self.args.gradient_accumulation_steps * self.accelerator.num_processes
        scale = (1 if self._count is None else batches_of_a_step) / max(1, self._batches)
        parts = {name: scale * self.accelerator.reduce(total, "mean") for name, total in self._parts.items()}
        self._parts, self._batches = {}, 0
        logs = {**logs, **{name: float(value) for name, value in parts.items()}}
        if "loss" in logs and self.is_world_process_zero():
            step, now = self.state.global_step, time.monotonic()
            steps, seconds = step - self._last_log[0], now - self._last_log[1]
            self._last_log = step, now
            left = timedelta(seconds=round((self.state.max_steps - step) * seconds / max(1, steps)))
            rate = steps * self.args.train_batch_size * batches_of_a_step / max(1e-9, seconds)
            shown = "step %d of %d: loss %.4f, %.1f clips/s, %s left"
            logger.info(shown, step, self.state.max_steps, logs["loss"], rate, left)
        super().log(logs, *arguments, **keywords)

    def require_finite(self) -> None:
        """Raise EnclapError when a loss was no number since this was asked last; all processes ask together."""
        if self._broken is None:
            return
        broken = self.accelerator.reduce(self._broken.float(), "sum")
        self._broken = None
        if float(broken) > 0:
            remedy = "lower learning_rate, or set bfloat16=false; --resume goes on from the last checkpoint"
            raise EnclapError(f"the loss is not a number any more at step {self.state.global_step}; {remedy}")

    def _save_checkpoint(self, *arguments: Any, **keywords: Any) -> None:
        """Refuse to keep weights that are no numbers."""
        self.require_finite()
        super()._save_checkpoint(*arguments, **keywords)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The metrics of the validation, logged; the best weights are kept, and a training that gains nothing ends."""
        validation = self._validation
        assert validation is not None
        metrics = {f"eval_{name}": value for name, value in validation(self.model, self.accelerator).items()}
        self.model.train()
        earlier = [record for record in self.state.log_history if f"eval_{validation.best}" in record]
        values = [*(record[f"eval_{validation.best}"] for record in earlier), metrics[f"eval_{validation.best}"]]
        self.log(dict(metrics))
        if is_improved(values, validation.best):
            self.save_best(metrics)
        if validation.patience is not None and since_best(values, validation.best) >= validation.patience:
            self.control.should_training_stop = True
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_best(self, metrics: Mapping[str, float]) -> None:
        """Put the weights and what they were measured at in the place of the best ones so far."""
        target = Path(str(self.args.output_dir)).parent / BEST
        state = self.accelerator.get_state_dict(self.model_wrapped)
        if self.is_world_process_zero():
            with replacement_folder(target) as fresh:
                save_file({name: value.contiguous() for name, value in unshared(state).items()}, fresh / WEIGHTS)
                (fresh / "metrics.json").write_text(json.dumps({"step": self.state.global_step, **metrics}) + "\n")
        self.accelerator.wait_for_everyone()


class ShardedTrainer(ItemTrainer):
    """ItemTrainer for weights in shards, which are loaded before they are sharded (`copy_to_shard`)."""

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """Leave the weights as they are: PyTorch fails to load tied ones into shards."""


def train_model(
    model: nn.Module,
    draw: Callable[[int], Any],
    collate: Callable[[Sequence[Any]], Mapping[str, Tensor]],
    optimisation: Optimisation,
    output: Path,
    count: CountItems | None = None,
    validation: Validation | None = None,
) -> nn.Module:
    """The trained model (the average of its weights where the recipe asks for one), in evaluation mode.

    Item n of the training is `draw(n)`; it should depend on n alone. Checkpoints are in `output`/checkpoints, the log
    in `output`/log.jsonl; a run that was cut off goes on from its last complete checkpoint and ends with the weights of
    an uninterrupted run. count: see `ItemTrainer`; needed wherever the loss is no mean over equally many items.
    validation: measures the model at times; the training then ends with the weights that did best.
    Under `torchrun` every process calls this alike, and all return the trained model. UsageError when the items of a
    step cannot be divided equally, EnvironmentFault when the disk is full, EnclapError when the loss is no number.
    """
    set_seed(optimisation.seed)
    args = training_arguments(optimisation, output, validation)
    last = newest_checkpoint(output / "checkpoints", tidy=args.process_index == 0)
    average = None if optimisation.ema is None else WeightAverage(model, optimisation.ema, last)
    trained = copy_to_shard(model, last) if optimisation.fsdp else model
    trainer = (ShardedTrainer if optimisation.fsdp else ItemTrainer)(
        count=count,
        validation=validation,
        published_decay=optimisation.decay_embedding_norms,
        **{"model": trained, "args": args, "data_collator": collate},
        train_dataset=SampledDataset(draw, optimisation.steps * optimisation.batch_size),
        callbacks=[JsonLog(output / "log.jsonl"), *([] if average is None else [average]), ManyProcesses()],
    )
    with full_disk_told(output):
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        trainer.require_finite()
    take_weights(model, trained)
    if average is not None:
        average.load_into(model)
    if validation is not None:
        load_weights(model, output / BEST / WEIGHTS)
    return model.eval()


@contextmanager
def full_disk_told(output: Path) -> Iterator[None]:
    """Turns whatever the libraries say of a full disk into an EnvironmentFault of one line."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            remedy = "free some, then go on from the last checkpoint (--resume)"
            raise EnvironmentFault(f"{printable(str(output))}: no room left on the disk; {remedy}") from error
        raise


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
