"""Typed recipes: YAML read once into frozen values; unknown keys are refused and all faults are named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enclap.errors import UsageError
from enclap.text import printable

RecipeType = TypeVar("RecipeType", bound="Settings")


class Settings(BaseModel):
    """Base of every table in a recipe: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class OptimiserSettings(Settings):
    """How a model is optimised: AdamW with linear warm-up, then a decay of the rate.

    batch_size: items of one optimiser step, over all processes together. schedule: of the rate after the warm-up, down
    along a cosine to zero, or by the inverse square root of the step over `time_scale` (None: the warm-up steps).
    decay_embedding_norms: weight decay as in the published loop, which spares biases and norms but not those of the
    token embeddings. accumulate: parts in which each process works through its share of a batch, one after the other;
    more take less memory. workers: processes that prepare items, beside each training process; None for 0 without an
    accelerator and 4 with one. Neither changes what is learned. ema: decay of the exponential moving average of the
    weights that the training ends with; None keeps the last weights. bfloat16: convolutions and matrix products in that
    precision; twice as fast on processors that have it. checkpointing: compute activations again in the backward pass,
    for less memory. compile: by torch.compile. fsdp: each of many processes holds a share of the weights, gradients and
    moments (fully sharded data parallel) instead of all of them. trackers: as transformers calls them (tensorboard,
    wandb, mlflow).
    """

    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "inverse_sqrt"] = "cosine"
    time_scale: int | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_embedding_norms: bool = False
    adam_beta2: float = Field(default=0.98, gt=0, lt=1)
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    bfloat16: bool = False
    seed: int = 0
    accumulate: int = Field(default=1, gt=0)
    workers: int | None = Field(default=None, ge=0)
    save_every: int = Field(default=200, gt=0)
    log_every: int = Field(default=25, gt=0)
    checkpointing: bool = False
    compile: bool = False
    fsdp: bool = False
    trackers: tuple[str, ...] = ()


class Optimisation(OptimiserSettings):
    """Optimiser settings with the number of steps."""

    steps: int = Field(gt=0)


def read_recipe(kind: type[RecipeType], path: Path, overrides: Sequence[str] = ()) -> RecipeType:
    """The recipe in a YAML file, with `overrides` ("table.key=value") applied; UsageError lists all faults."""
    shown = printable(str(path))
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{shown}: no such recipe") from error
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{shown}: a recipe is a table of settings")
    for override in overrides:
        apply_override(table, override)
    return parse(kind, table, shown)


def parse(kind: type[RecipeType], table: Mapping[str, Any], where: str) -> RecipeType:
    """`table` as a checked value of `kind`; UsageError with every fault in one line."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        faults = "; ".join(describe_fault(kind, fault["loc"], fault["type"], fault["msg"]) for fault in error.errors())
        raise UsageError(f"{where}: {faults}") from error


def describe_fault(kind: type[Settings], location: tuple[int | str, ...], fault: str, message: str) -> str:
    """One fault in words; of an unknown key, which one was probably meant."""
    key = ".".join(map(str, location))
    if fault != "extra_forbidden":
        return f"{key}: {message}"
    known = known_keys(kind, location[:-1])
    close = get_close_matches(str(location[-1]), known, n=1)
    return f"{key}: unknown key; " + (f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}")


def known_keys(kind: type[Settings], location: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at a place inside a recipe of type `kind`."""
    for key in location:
        field = kind.model_fields.get(str(key))
        if field is None:
            continue  # the index of a list or the name of a variant, which pydantic puts between
        inside = [field.annotation, *get_args(field.annotation)]
        kind = next((item for item in inside if isinstance(item, type) and issubclass(item, Settings)), kind)
    return list(kind.model_fields)


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as YAML."""
    name, separator, value = override.partition("=")
    if not separator or not all(name.split(".")):
        raise UsageError(f"--set {printable(override)}: write key=value, the keys of inner tables joined by dots")
    *path, last = name.split(".")
    for key in path:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {printable(override)}: {key} is not a table")
    try:
        table[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--set {printable(override)}: the value is not YAML ({reason})") from error
