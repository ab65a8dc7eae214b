"""Recipes of the caption model: what it starts from, how long and how it is trained, and how it is validated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from enclap.errors import UsageError
from enclap.text import printable
from enclap.training.dataset import Perturbation
from enclap.training.recipe import Optimisation, OptimiserSettings, Settings, read_recipe
from enclap.training.validation import METRICS

RECIPE_FOLDERS = (Path(__file__).parent / "recipes", Path(__file__).parents[3] / "recipes")
"""Where recipes lie that are named without a path: in the installed package, and in a clone."""

GROUP_BY_LENGTH: Literal["group_by_length"] = "group_by_length"


class ValidationSettings(Settings):
    """best: loss, cider or spider, by which weights are chosen. beams: of the generated captions. patience: epochs
    without gain after which the training ends; None for never. batch_size: clips that are measured together.
    """

    best: str = Field(default="loss", pattern="|".join(METRICS))
    beams: int = Field(default=4, gt=0)
    patience: int | None = Field(default=None, gt=0)
    batch_size: int = Field(default=16, gt=0)


class CaptionTraining(Settings):
    """A training of the caption model on features.

    start: a BART on the hub or in a folder; None when `--from` names a model of this program. epochs: passes over all
    captions. train_sampling_strategy: as transformers calls it, "group_by_length" for batches of clips of like length,
    which hold little padding, or "random"; every epoch has the same items either way. lora: rank of the adapters that
    are trained in the place of all weights; None trains all.
    """

    start: str | None = None
    epochs: int = Field(gt=0)
    train_sampling_strategy: Literal["group_by_length", "random"] = GROUP_BY_LENGTH
    label_smoothing: float = Field(default=0.2, ge=0, lt=1)
    mcm_loss_weight: float = Field(default=0.7, ge=0)
    lora: int | None = Field(default=None, gt=0)
    perturbation: Perturbation = Perturbation()
    validation: ValidationSettings = ValidationSettings()
    optimisation: OptimiserSettings

    def planned(self, steps_per_epoch: int) -> Optimisation:
        """The optimiser settings with the number of steps."""
        return Optimisation(steps=self.epochs * steps_per_epoch, **dict(self.optimisation))


def recipe_path(name: str) -> Path:
    """The file of a recipe that is named by its path or, if it is one of ours, by its name."""
    if Path(name).suffix in (".yaml", ".yml") or Path(name).exists():
        return Path(name)
    folders = [folder for folder in RECIPE_FOLDERS if folder.is_dir()]
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise UsageError(f"{printable(name)}: no such recipe; give a .yaml file or one of {', '.join(sorted(known))}")
    return known[name]


def read_caption_recipe(name: str, overrides: Sequence[str] = ()) -> CaptionTraining:
    """The checked recipe, with `overrides` ("optimisation.seed=3") applied; UsageError lists all faults."""
    return read_recipe(CaptionTraining, recipe_path(name), overrides)
