"""Validation during a training: the caption loss and generated captions of clips that are not learnt from.

The clips are dealt out to the processes, and sentences and sums are gathered before anything is computed of them; so
no clip counts twice, and the figures do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from tokenizers import Tokenizer
from torch import nn

from enclap.data.feature_store import Clip
from enclap.errors import DataError, EnvironmentFault
from enclap.evaluation.captioning import ngrams
from enclap.evaluation.captioning.java import find_java
from enclap.evaluation.captioning.rows import SYSTEM, system_row
from enclap.evaluation.captioning.suite import JAVA_SECONDS, SuiteOptions, score_rows, tokenize_rows
from enclap.training.dataset import plain_item

LOSS = "loss"
METRICS = {LOSS: LOSS, "cider": "cider_d", "spider": "spider"}
"""What the best weights may be chosen by, and what the evaluation calls it."""
EXACT = "exact"
"""Share of the clips whose sentence is word for word one of their captions."""

Collate = Callable[[Sequence[Any]], dict[str, torch.Tensor]]


def is_improved(values: Sequence[float], metric: str) -> bool:
    """Whether the last of the values is better than all before it."""
    return since_best(values, metric) == 0


def since_best(values: Sequence[float], metric: str) -> int:
    """How many values came after the best one, of equals the first."""
    best = min(values) if metric == LOSS else max(values)
    return len(values) - 1 - list(values).index(best)


@dataclass(frozen=True, slots=True)
class Predicted:
    """A clip's generated sentence, the sum of its caption's token losses, and the number of these tokens."""

    number: int
    text: str
    loss: float
    tokens: int


class Validation:
    """Measures a caption model on clips.

    every: steps between two measurements. best: a name in METRICS, by which weights are chosen. patience: measurements
    without gain after which the training ends, None for never. generation: as `generate` takes it.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        tokenizer: Tokenizer,
        collate: Collate,
        *,
        every: int,
        best: str = LOSS,
        patience: int | None = None,
        batch_size: int = 8,
        generation: dict[str, Any] | None = None,
    ) -> None:
        if not len(clips):
            raise DataError("no clips to validate with: the split 'validation' is empty")
        self.clips = clips
        self.every = every
        self.best = best
        self.patience = patience
        self._tokenizer = tokenizer
        self._collate = collate
        self._batch_size = batch_size
        self._generation = generation or {}

    def __call__(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """The metrics by name. All processes call this together, and all get the same."""
        predicted = self.predict(model, accelerator)
        tokens = sum(item.tokens for item in predicted)
        references = [clip.captions for clip in (self.clips[item.number] for item in predicted)]
        pairs = list(zip(predicted, references, strict=True))
        metrics = {
            LOSS: sum(item.loss for item in predicted) / max(1, tokens),
            EXACT: sum(item.text in captions for item, captions in pairs) / len(pairs),
        }
        if self.best != LOSS:
            metrics[self.best] = caption_score([item.text for item in predicted], references, METRICS[self.best])
        return metrics

    @torch.no_grad()
    def predict(self, model: nn.Module, accelerator: Any) -> list[Predicted]:
        """What the model says of every clip, in their order, the same in all processes."""
        model.eval()
        ranks, rank = accelerator.num_processes, accelerator.process_index
        mine = list(range(len(self.clips)))[rank::ranks]
        most = -(-len(self.clips) // ranks)
        mine += [0] * (most - len(mine))  # every process runs as many batches, as sharded weights need it
        found: list[Predicted] = []
        for start in range(0, len(mine), self._batch_size):
            found += self.predict_batch(model, mine[start : start + self._batch_size], accelerator.device)
        gathered = found if ranks == 1 else gather_object(found)
        return [item for _, item in sorted({item.number: item for item in gathered}.items())]

    def predict_batch(self, model: Any, numbers: Sequence[int], device: torch.device) -> list[Predicted]:
        """What the model says of these clips."""
        clips = [self.clips[number] for number in numbers]
        batch = self._collate([plain_item(clip, self._tokenizer) for clip in clips])
        batch = {name: value.to(device) for name, value in batch.items() if name != "mcm_labels"}
        labels = batch.pop("labels")
        logits = model(**batch, labels=labels).logits
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            reduction="none",
            label_smoothing=model.config.label_smoothing,
        ).view_as(labels)  # 0 where a label is padding
        ids = model.generate(**batch, **self._generation).tolist()
        texts = self._tokenizer.decode_batch(ids, skip_special_tokens=True)
        counts = (labels >= 0).sum(dim=1).tolist()
        return [
            Predicted(number, text.strip(), loss, tokens)
            for number, text, loss, tokens in zip(numbers, texts, losses.sum(dim=1).tolist(), counts, strict=True)
        ]


def caption_score(predictions: Sequence[str], references: Sequence[Sequence[str]], metric: str) -> float:
    """A metric of the evaluation of these captions; EnvironmentFault when this machine lacks what it needs."""
    row = system_row(SYSTEM, predictions, references)
    if metric == METRICS["cider"]:  # without SPICE, which takes long
        [tokens], tokenised = tokenize_rows([row], references, find_java(), JAVA_SECONDS)
        frequencies = ngrams.document_frequencies(tokenised)
        return float(ngrams.cider_d(tokens.candidates, tokens.references, frequencies, len(tokenised)).value)
    result = score_rows([row], references, SuiteOptions())
    if metric not in result.scores.get(SYSTEM, {}):
        raise EnvironmentFault(f"{metric}: {result.not_computed.get(metric, 'not computed')}; choose the loss instead")
    return result.scores[SYSTEM][metric].value
