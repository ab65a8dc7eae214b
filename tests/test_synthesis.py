"""The project's own sounds: seeded, exact in length, and each with the spectrum that its name promises."""

from __future__ import annotations

import numpy as np
import pytest

from enclap.data.synthetic.signals import PEAK, RATE
from enclap.data.synthetic.tones import SOUNDS, synthesise
from enclap.errors import UsageError
from enclap.types import FloatArray


def centroid(samples: FloatArray) -> float:
    """Centre of the power spectrum in Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1.0 / RATE)
    return float(np.sum(frequency * power) / np.sum(power))


def loudness(samples: FloatArray, seconds: float = 0.02) -> np.ndarray:
    """RMS of consecutive stretches."""
    size = round(seconds * RATE)
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    return np.sqrt(np.mean(blocks**2, axis=1))


@pytest.mark.parametrize("name", SOUNDS)
def test_a_seed_fixes_every_sample(name: str) -> None:
    first, again, other = (synthesise(name, 1.5, seed).samples for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.5, 3.21])
def test_any_length_is_exact_finite_and_within_full_scale(name: str, seconds: float) -> None:
    waveform = synthesise(name, seconds)
    assert waveform.rate == RATE
    assert waveform.samples.dtype == np.float32
    assert len(waveform.samples) == round(seconds * RATE)
    assert np.isfinite(waveform.samples).all()
    assert np.max(np.abs(waveform.samples)) <= PEAK + 1e-6


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_heard_and_does_not_click_at_its_ends(name: str) -> None:
    samples = synthesise(name, 4.0).samples
    assert np.max(np.abs(samples)) == pytest.approx(PEAK, rel=1e-5)
    assert abs(samples[0]) < 1e-3
    assert abs(samples[-1]) < 1e-3


def test_the_sounds_differ_as_their_names_say() -> None:
    centre = {name: centroid(synthesise(name, 5.0).samples) for name in SOUNDS}
    assert max(centre["engine"], centre["wind"]) < 700 < centre["bell"] < 2_500
    assert 1_800 < centre["beeps"] < 3_000
    assert 2_500 < centre["bird"] < 6_200
    assert 1_000 < centre["rain"] < 8_000


def test_a_bell_rings_down_between_strikes() -> None:
    samples = synthesise("bell", 1.8).samples
    levels = loudness(samples, 0.2)
    assert levels[1] > 1.5 * levels[7] > 0


def test_footsteps_come_about_every_half_second() -> None:
    levels = loudness(synthesise("footsteps", 12.0).samples)
    levels = levels - levels.mean()
    similarity = np.correlate(levels, levels, "full")[len(levels) - 1 :]
    lags = np.arange(len(similarity)) * 0.02
    window = (lags > 0.35) & (lags < 0.8)
    assert 0.5 <= lags[window][np.argmax(similarity[window])] <= 0.6


@pytest.mark.parametrize(("name", "seconds"), [("dragon", 1.0), ("bell", 0.0), ("bell", -1.0), ("bell", float("nan"))])
def test_what_cannot_be_made_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(UsageError, match="no sound is called 'dragon'" if name == "dragon" else "less than one sample"):
        synthesise(name, seconds)
