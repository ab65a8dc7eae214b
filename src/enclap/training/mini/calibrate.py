"""The last stage: mini's scores become probabilities, measured on recordings that no other stage saw."""

from __future__ import annotations

from pathlib import Path

from enclap.data.splits import VALIDATION
from enclap.decoding.calibration import Calibration
from enclap.engines import load_engine
from enclap.evaluation.calibration import fit_calibration, score_captions
from enclap.evaluation.sound_pairs import labelled_clips
from enclap.training.mini.context import MiniRun


def calibrate(run: MiniRun) -> None:
    """Write model/confidence.json."""
    measure_calibration(run.model, run.recordings).write(run.model)


def measure_calibration(model: Path, recordings: Path) -> Calibration:
    """The calibration of the model in a folder on the validation recordings, alone and in pairs.

    Computed by one thread, so that it does not depend on the number of cores; it still differs between processors, in
    the seventh digit.
    """
    engine = load_engine(model, engine="onnx", threads=1)
    return fit_calibration(score_captions(engine, labelled_clips(recordings, VALIDATION)))
