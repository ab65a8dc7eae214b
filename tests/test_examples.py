"""The committed example sounds: what their script makes, small, and long enough to show windows."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from enclap.data.synthetic.tones import RATE
from enclap.types import FloatArray

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LARGEST_FILE = 300_000  # bytes
DELAY = 0.1  # seconds by which a lossy codec may shift a sound


def load_script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("rebuild_examples", EXAMPLES / "rebuild.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up by name
    specification.loader.exec_module(module)
    return module


rebuild = load_script()


def decode(path: Path) -> FloatArray:
    """Mono float32 at the rate of the synthesis."""
    resampler = av.AudioResampler("flt", "mono", RATE)
    with av.open(str(path)) as container:
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)


def best_similarity(first: FloatArray, second: FloatArray) -> float:
    """The largest normalised correlation over shifts of up to `DELAY`: 1 for the same sound."""
    size = 1 << int(len(first) + len(second)).bit_length()
    product = np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size))
    correlation = np.fft.irfft(product, size)
    reach = round(DELAY * RATE)
    near = np.concatenate([correlation[:reach], correlation[-reach:]])
    return float(near.max() / (np.linalg.norm(first) * np.linalg.norm(second)))


@pytest.mark.parametrize("example", rebuild.EXAMPLES, ids=lambda example: example.name)
def test_a_committed_file_holds_what_the_script_makes(example: object) -> None:
    path = EXAMPLES / example.name
    made, stored = example.samples(), decode(path)
    assert len(stored) / RATE == pytest.approx(example.seconds, abs=DELAY)
    assert best_similarity(made, stored) > 0.97
    assert path.stat().st_size <= LARGEST_FILE


@pytest.mark.parametrize("name", ["bell.wav", "footsteps.flac"])
def test_lossless_files_are_exact_to_one_step_of_sixteen_bits(name: str) -> None:
    example = next(example for example in rebuild.EXAMPLES if example.name == name)
    np.testing.assert_allclose(decode(EXAMPLES / name), example.samples(), atol=1.01 / 32_768)


def test_rebuilding_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    for example in rebuild.EXAMPLES[:4]:
        for copy in ("first", "second"):
            (tmp_path / copy).mkdir(exist_ok=True)
            rebuild.write(example, tmp_path / copy / example.name)
        assert (tmp_path / "first" / example.name).read_bytes() == (tmp_path / "second" / example.name).read_bytes()


def test_the_folder_holds_these_files_and_nothing_else_to_caption() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix not in (".py", ".md", "")}
    assert found == {example.name for example in rebuild.EXAMPLES}


def test_one_example_is_long_enough_for_several_windows() -> None:
    assert max(example.seconds for example in rebuild.EXAMPLES) > 20.0
