"""CLAP's front end: transformers' extractor set up like the released model, and the definition, frame by frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclap.audio.mel import FLOOR, MelFrontEnd, repeat_to
from enclap.errors import ModelError

RELEASED = MelFrontEnd(rate=48_000, length=480_000, fft_size=1_024, hop=480, bands=64, lowest=50.0, highest=14_000.0)
SMALL = MelFrontEnd(rate=8_000, length=8_000, fft_size=256, hop=80, bands=20, lowest=50.0, highest=3_800.0)


def noise(count: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.02, 1.0, 3.3, 10.0])
def test_it_is_transformers_extractor_set_up_like_the_released_model(seconds: float) -> None:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=48_000,
        hop_length=480,
        fft_window_size=1_024,
        frequency_min=50,
        frequency_max=14_000,
        truncation="fusion",
        padding="repeatpad",
    )
    samples = noise(int(seconds * 48_000))
    theirs = extractor(samples, sampling_rate=48_000, return_tensors="np")["input_features"][0, 0]
    np.testing.assert_allclose(RELEASED(samples)[0], theirs, atol=2e-3)  # dB; float32 against float64 spectra


def slow_log_mel(front_end: MelFrontEnd, samples: np.ndarray) -> np.ndarray:
    """The definition, frame by frame in float64."""
    padded = np.pad(samples.astype(np.float64), front_end.fft_size // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(front_end.fft_size) / front_end.fft_size)
    rows = []
    for start in range(0, len(padded) - front_end.fft_size + 1, front_end.hop):
        power = np.abs(np.fft.rfft(padded[start : start + front_end.fft_size] * hann)) ** 2
        rows.append(10 * np.log10(np.maximum(power @ front_end.filters.astype(np.float64), FLOOR)))
    return np.stack(rows)


def test_it_is_the_definition() -> None:
    samples = noise(4_321)
    np.testing.assert_allclose(SMALL.log_mel(samples), slow_log_mel(SMALL, samples), atol=1e-3)


@given(length=st.integers(1, 30_000))
@settings(max_examples=30, deadline=None)
def test_any_length_gives_crops_of_one_shape(length: int) -> None:
    crops = SMALL(noise(length))
    assert crops.shape == (1 if length <= SMALL.length else 3, SMALL.frames, SMALL.bands)
    assert crops.dtype == np.float32 and np.isfinite(crops).all()


def test_long_audio_gives_its_front_middle_and_back() -> None:
    samples = noise(20_001)
    front, middle, back = SMALL(samples)
    assert np.array_equal(front, SMALL(samples[:8_000])[0])
    assert np.array_equal(middle, SMALL(samples[6_000:14_000])[0])
    assert np.array_equal(back, SMALL(samples[-8_000:])[0])


def test_short_audio_is_repeated_whole_then_padded() -> None:
    assert repeat_to(np.float32([1, 2, 3]), 8).tolist() == [1, 2, 3, 1, 2, 3, 0, 0]


def test_its_settings_survive_the_folder(tmp_path: Path) -> None:
    SMALL.save(tmp_path)
    assert MelFrontEnd.from_folder(tmp_path) == SMALL
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8_000}))
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        MelFrontEnd.from_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="missing"):
        MelFrontEnd.from_folder(tmp_path)
