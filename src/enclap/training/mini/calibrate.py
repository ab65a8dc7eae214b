"""The last stage: mini's scores become probabilities, measured on recordings that no other stage saw."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from enclap.data.splits import VALIDATION
from enclap.decoding.calibration import Calibration
from enclap.decoding.memory import SoundMemory
from enclap.engines import load_engine
from enclap.evaluation.calibration import (
    calibration_error,
    cross_fitted,
    fit_calibration,
    reliability,
    score_captions,
)
from enclap.evaluation.sound_pairs import calibration_clips
from enclap.training.mini.context import MiniRun

logger = logging.getLogger(__name__)


def calibrate(run: MiniRun) -> None:
    """Write model/confidence.json."""
    measure_calibration(run.model, run.recordings).write(run.model)


def measure_calibration(model: Path, recordings: Path) -> Calibration:
    """The calibration of the model in a folder on the validation recordings, alone and in pairs of two kinds.

    Computed by one thread, so that it does not depend on the number of cores; it still differs between processors, in
    the seventh digit.
    """
    engine = load_engine(model, engine="onnx", threads=1)
    captions = score_captions(engine, calibration_clips(recordings, VALIDATION), SoundMemory.read(model))
    if len({source for caption in captions for source in caption.sources}) > 2:
        correct = np.array([float(caption.is_correct) for caption in captions])
        error = calibration_error(reliability(cross_fitted(captions), correct))
        logger.info("expected calibration error by curves that were fitted without a recording's source: %.3f", error)
    return fit_calibration(captions)
