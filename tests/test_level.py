"""The silence gate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from enclap.audio.window import is_silent, rms_level
from enclap.types import FloatArray
from sounds import tone


def square(level: float, count: int = 1000) -> FloatArray:
    """As many samples up as down, `level` dBFS."""
    return np.resize(np.float32([1, -1]), count) * np.float32(10 ** (level / 20))


def test_levels_are_relative_to_full_scale() -> None:
    assert rms_level(square(0.0)) == pytest.approx(0.0, abs=1e-4)
    assert rms_level(2 * tone(1.0, 8000)[:, 0]) == pytest.approx(-3.01, abs=0.01)
    assert rms_level(square(-20.0)) == pytest.approx(-20.0, abs=1e-4)


def test_nothing_has_no_level() -> None:
    assert rms_level(np.zeros(100, np.float32)) == -math.inf
    assert rms_level(np.zeros(0, np.float32)) == -math.inf


@pytest.mark.parametrize(("level", "silent"), [(-60.1, True), (-59.9, False), (-120.0, True), (0.0, False)])
def test_the_gate_is_at_minus_sixty(level: float, silent: bool) -> None:
    assert is_silent(square(level)) is silent


@pytest.mark.parametrize("offset", [0.01, -0.01, 0.5, 0.99])
@pytest.mark.parametrize(("level", "silent"), [(-80.0, True), (-59.0, False)])
def test_a_constant_offset_is_not_heard(offset: float, level: float, silent: bool) -> None:
    assert is_silent(square(level, 48_000) + np.float32(offset)) is silent


def test_very_quiet_and_very_long_audio_is_summed_exactly() -> None:
    assert rms_level(square(-120.0, 3_000_000)) == pytest.approx(-120.0, abs=1e-3)
