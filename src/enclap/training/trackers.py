"""Trackers that a training reports to: checked before it begins, and told where to write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from enclap.errors import EnvironmentFault, UsageError
from enclap.text import first_line, printable

SILENCED = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""What keeps trackers from telling their makers how they are used; read when they are imported."""


def require_trackers(names: Sequence[str]) -> None:
    """Raises UsageError for a name that is no tracker, and EnvironmentFault for one whose package is missing.

    Trackers tell their makers nothing from here on, unless the environment says else.
    """
    for variable, value in SILENCED.items():
        os.environ.setdefault(variable, value)
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UsageError(f"optimisation.trackers: {printable(name)}: no such tracker; there are {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()  # which looks for its package
        except (RuntimeError, ImportError) as error:
            raise EnvironmentFault(f"optimisation.trackers: {name}: {first_line(error)}") from error


def place_trackers(names: Sequence[str], output: Path) -> None:
    """Have trackers write into a run's folder, unless the environment says else."""
    places = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(output / "tensorboard")},
        "wandb": {"WANDB_DIR": str(output), "WANDB_PROJECT": "enclap"},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{(output / 'mlflow.db').absolute()}"},  # 3.17 refuses plain files
    }
    for name in names:
        for variable, value in places.get(name, {}).items():
            os.environ.setdefault(variable, value)
