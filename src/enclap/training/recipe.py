"""Typed recipes: YAML read once into frozen values; unknown keys are refused and all faults are named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enclap.errors import UsageError

RecipeType = TypeVar("RecipeType", bound="Settings")


class Settings(BaseModel):
    """Base of every table in a recipe: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Optimisation(Settings):
    """How a stage is optimised: AdamW with linear warm-up and cosine decay.

    ema: decay of the exponential moving average of the weights that the stage ends with; None keeps the last weights.
    bfloat16: convolutions and matrix products in that precision; twice as fast on processors that have it.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    bfloat16: bool = False
    seed: int = 0
    save_every: int = Field(default=200, gt=0)
    log_every: int = Field(default=25, gt=0)


class HeldOut(Settings):
    """Which training recordings a stage must not see: an ESC-10 fold and a share of all the others' originals."""

    fold: int = 4
    share: float = Field(default=0.15, ge=0, lt=1)


def read_recipe(kind: type[RecipeType], path: Path, overrides: Sequence[str] = ()) -> RecipeType:
    """The recipe in a YAML file, with `overrides` ("table.key=value") applied; UsageError lists all faults."""
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such recipe") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{path}: a recipe is a table of settings")
    for override in overrides:
        _apply(table, override)
    return parse(kind, table, str(path))


def parse(kind: type[RecipeType], table: Mapping[str, Any], where: str) -> RecipeType:
    """`table` as a checked value of `kind`; UsageError with every fault in one line."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UsageError(f"{where}: {faults}") from error


def _apply(table: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as YAML."""
    name, separator, value = override.partition("=")
    if not separator:
        raise UsageError(f"--set {override}: write key=value")
    *path, last = name.split(".")
    for key in path:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override}: {key} is not a table")
    table[last] = yaml.safe_load(value)
