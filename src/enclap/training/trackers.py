"""Trackers that a training reports to: checked before it begins, and told where to write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from enclap.errors import EnvironmentFault, UsageError
from enclap.text import first_line, printable


def require_trackers(names: Sequence[str]) -> None:
    """Raises UsageError for a name that is no tracker, and EnvironmentFault for one whose package is missing."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UsageError(f"optimisation.trackers: {printable(name)}: no such tracker; there are {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()  # which looks for its package
        except (RuntimeError, ImportError) as error:
            raise EnvironmentFault(f"optimisation.trackers: {name}: {first_line(error)}") from error


def place_trackers(names: Sequence[str], output: Path) -> None:
    """Have trackers write into a run's folder, and MLflow tell its makers nothing, unless the environment says else."""
    places = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(output / "tensorboard")},
        "wandb": {"WANDB_DIR": str(output), "WANDB_PROJECT": "enclap"},
        "mlflow": {"MLFLOW_TRACKING_URI": (output / "mlruns").absolute().as_uri(), "MLFLOW_DISABLE_TELEMETRY": "true"},
    }
    for name in names:
        for variable, value in places.get(name, {}).items():
            os.environ.setdefault(variable, value)
