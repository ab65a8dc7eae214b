"""The one training loop: transformers' Trainer with seeded draws, an average of the weights, and resuming."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from enclap.training.recipe import Optimisation

logger = logging.getLogger(__name__)

AVERAGE_FILE = "average.pt"
Batch = dict[str, Tensor]


class SampledDataset(Dataset[Any]):
    """Training items by number: item n is `draw(n)`, so a resumed run goes on with the very items that were left."""

    def __init__(self, draw: Callable[[int], Any], length: int) -> None:
        self._draw = draw
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._draw(index)


class WeightAverage(TrainerCallback):  # type: ignore[misc]
    """Exponential moving average of all floating parameters and buffers, saved beside each checkpoint.

    Source: Polyak averaging in its exponential form; the decay grows to its full value over the first steps, so that
    the random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float, resume_from: str | None) -> None:
        self._decay = decay
        self._shadow = {name: value.detach().clone() for name, value in _floats(model).items()}
        if resume_from is not None:
            self._shadow = torch.load(Path(resume_from) / AVERAGE_FILE, weights_only=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the average towards the weights after an optimiser step."""
        decay = min(self._decay, (1 + state.global_step) / (10 + state.global_step))
        with torch.no_grad():
            for name, value in _floats(kwargs["model"]).items():
                self._shadow[name].lerp_(value.to(self._shadow[name].device), 1.0 - decay)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the average into the checkpoint that was just saved."""
        torch.save(self._shadow, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / AVERAGE_FILE)

    def load_into(self, model: nn.Module) -> None:
        """Replace the model's weights by the average."""
        model.load_state_dict(self._shadow, strict=False)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


class JsonLog(TrainerCallback):  # type: ignore[misc]
    """Each of the trainer's log records as a line of JSON in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append the record with its step."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **(kwargs.get("logs") or {})}) + "\n")


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trainer for models whose forward returns a mapping with "loss" and named parts; the parts are logged as means."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._parts: dict[str, float] = {}
        self._parts_count = 0

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        """Items in their order: the draw itself is what is random."""
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The scalar loss; with `return_outputs` also the model's outputs."""
        outputs = model(**inputs)
        for name, value in outputs.items():
            if isinstance(value, Tensor) and value.ndim == 0:
                self._parts[name] = self._parts.get(name, 0.0) + float(value.detach())
        self._parts_count += 1
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *arguments: Any, **keywords: Any) -> None:
        """Add the parts' means since the last record."""
        if self._parts_count:
            means = {name: value / self._parts_count for name, value in self._parts.items() if name != "loss"}
            logs = {**logs, **means}
            self._parts, self._parts_count = {}, 0
        super().log(logs, *arguments, **keywords)


def run_stage(
    model: nn.Module,
    draw: Callable[[int], Any],
    collate: Callable[[Sequence[Any]], Mapping[str, Tensor]],
    optimisation: Optimisation,
    output: Path,
) -> nn.Module:
    """The trained model (the average of its weights where the recipe asks for one).

    Item n of the training is `draw(n)`. Checkpoints lie in `output`/checkpoints and the log in `output`/log.jsonl; a
    run that was cut off goes on from its last checkpoint and ends with the weights of an uninterrupted run.
    """
    set_seed(optimisation.seed)
    output.mkdir(parents=True, exist_ok=True)
    checkpoints = output / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    callbacks: list[TrainerCallback] = [JsonLog(output / "log.jsonl")]
    average = None if optimisation.ema is None else WeightAverage(model, optimisation.ema, last)
    if average is not None:
        callbacks.append(average)
    trainer = StageTrainer(
        model=model,
        args=_arguments(optimisation, checkpoints),
        train_dataset=SampledDataset(draw, optimisation.steps * optimisation.batch_size),
        data_collator=collate,
        callbacks=callbacks,
    )
    logger.info("%s: %d steps of %d items", output, optimisation.steps, optimisation.batch_size)
    trainer.train(resume_from_checkpoint=last)
    if average is not None:
        average.load_into(model)
    return model.eval()


def _arguments(optimisation: Optimisation, checkpoints: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=optimisation.steps,
        per_device_train_batch_size=optimisation.batch_size,
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        warmup_steps=optimisation.warmup_steps,
        lr_scheduler_type="cosine",
        max_grad_norm=optimisation.clip_norm,
        adam_beta2=0.98,
        bf16=optimisation.bfloat16,
        use_cpu=not torch.cuda.is_available(),  # without this word bfloat16 is refused there
        seed=optimisation.seed,
        save_steps=optimisation.save_every,
        save_total_limit=2,
        logging_steps=optimisation.log_every,
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
