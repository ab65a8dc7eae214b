"""The silence gate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from enclap.audio.level import is_silent, rms_level
from sounds import tone


def test_levels_are_relative_to_full_scale() -> None:
    assert rms_level(np.ones(100, np.float32)) == pytest.approx(0.0)
    assert rms_level(2 * tone(1.0, 8000)[:, 0]) == pytest.approx(-3.01, abs=0.01)
    assert rms_level(np.full(100, 0.1, np.float32)) == pytest.approx(-20.0, abs=1e-4)


def test_nothing_has_no_level() -> None:
    assert rms_level(np.zeros(100, np.float32)) == -math.inf
    assert rms_level(np.zeros(0, np.float32)) == -math.inf


@pytest.mark.parametrize(("level", "silent"), [(-60.1, True), (-59.9, False), (-120.0, True), (0.0, False)])
def test_the_gate_is_at_minus_sixty(level: float, silent: bool) -> None:
    assert is_silent(np.full(1000, 10 ** (level / 20), np.float32)) is silent


def test_very_quiet_and_very_long_audio_is_summed_exactly() -> None:
    quiet = np.full(3_000_000, 1e-6, np.float32)
    assert rms_level(quiet) == pytest.approx(-120.0, abs=1e-3)
