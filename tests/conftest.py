"""Fixtures that every test file may use: recordings made on the spot, and the folder of shared data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sounds import noise, write_audio

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared beside the clone; a test that needs it fails where it is missing."""
    if not SHARED.is_dir():
        pytest.fail(f"{SHARED} is missing: run `make test` for the tests that need no shared data")
    return SHARED


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of seeded noise: recording("dog.wav", seconds=1.0, rate=16000, channels=1)."""

    def make(name: str = "noise.wav", *, seconds: float = 1.0, rate: int = 16_000, channels: int = 1) -> Path:
        return write_audio(tmp_path / name, noise(seconds, rate, channels), rate)

    return make
