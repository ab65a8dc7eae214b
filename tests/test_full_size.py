"""Base and large at full size, in both engines, against the published code's outputs (../shared/reference).

The weights are rebuilt from the reference's rule and the graphs exported on the fly: `make test-full`. The same laws
hold on small models in test_engines.py, test_export.py and test_tiny_reference.py, which run by default.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from enclap.decoding.options import DecodingOptions
from enclap.engines import Engine, load_engine
from enclap.engines.onnx.threads import CLIPS_PER_CORE
from enclap.model.loading import load_caption_model
from enclap.model.slots import EncoderInputs
from enclap.types import Features, Waveform, Window
from rule_weights import SIZES, rule_folder

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

SOUNDS = ("dog", "rain")
ENGINES = ("torch", "onnx")
SEARCHES = {"forced20": DecodingOptions(min_length=21, max_length=21), "free": DecodingOptions(max_length=50)}
SLOTS = 1e-3  # largest difference in an encoder slot
SCORE = 1e-3  # largest difference in a mean log-probability
COSINE = 0.99999

Arrays = dict[str, np.ndarray]


def arrays(path: Path) -> Arrays:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def encoders(shared: Path) -> Arrays:
    return arrays(shared / "reference" / "encoders" / "encoders.npz")


@pytest.fixture(scope="module")
def outputs(shared: Path) -> Arrays:
    return arrays(shared / "reference" / "full_size" / "outputs.npz")


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(size: str, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model folder of gigabytes, deleted as soon as its tests are over."""
    path = tmp_path_factory.mktemp("full") / size
    yield rule_folder(path, size, shared / "reference")
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, folder: Path) -> Engine:
    return load_engine(folder, request.param, device="cpu")


def window(encoders: Arrays, kind: str, sound: str) -> Window:
    """The reference's recording at one encoder's own rate, so that nothing is resampled for that encoder."""
    rate = {"encodec": 24_000, "clap": 48_000}[kind]
    samples = encoders[f"{kind}_{sound}_pcm16"].astype(np.float32) / np.float32(32768)
    return Window(Waveform(samples, rate), 0.0, len(samples) / rate)


def features(encoders: Arrays, sound: str) -> Features:
    codes = encoders[f"encodec_{sound}_codes"].T.astype(np.int64)
    return Features(codes, encoders[f"clap_{sound}_embedding"])


@pytest.mark.parametrize("sound", SOUNDS)
def test_every_code_is_that_of_the_published_codec(engine: Engine, encoders: Arrays, sound: str) -> None:
    found = engine.extract([window(encoders, "encodec", sound)])[0].codes
    np.testing.assert_array_equal(found.T, encoders[f"encodec_{sound}_codes"])


@pytest.mark.parametrize("sound", SOUNDS)
def test_embeddings_are_those_of_the_published_clap(engine: Engine, encoders: Arrays, sound: str) -> None:
    found = engine.extract([window(encoders, "clap", sound)])[0].embedding
    expected = encoders[f"clap_{sound}_embedding"]
    assert found is not None
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) >= COSINE


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("sound", SOUNDS)
def test_sentences_are_those_of_the_published_model(
    engine: Engine, size: str, encoders: Arrays, outputs: Arrays, sound: str, search: str
) -> None:
    best = engine.generate([features(encoders, sound)], SEARCHES[search])[0][0]
    assert list(best.token_ids) == outputs[f"{size}_{sound}_{search}_ids"].ravel().tolist()
    if search == "forced20":
        assert abs(best.score - float(outputs[f"{size}_{sound}_forced20_score"].item())) < SCORE


@pytest.mark.parametrize("search", SEARCHES)
def test_clips_of_different_length_caption_alike_together(
    engine: Engine, encoders: Arrays, outputs: Arrays, size: str, search: str
) -> None:
    found = engine.generate([features(encoders, sound) for sound in SOUNDS], SEARCHES[search])
    expected = [outputs[f"{size}_{sound}_{search}_ids"].ravel().tolist() for sound in SOUNDS]
    assert [list(clip[0].token_ids) for clip in found] == expected


def test_with_a_core_for_each_clip_the_sentences_are_the_same(
    folder: Path, encoders: Arrays, outputs: Arrays, size: str
) -> None:
    engine = load_engine(folder, "onnx", device="cpu", threads=2)
    sounds = SOUNDS * CLIPS_PER_CORE  # so many that two cores take batches of their own
    found = engine.generate([features(encoders, sound) for sound in sounds], SEARCHES["forced20"])
    expected = [outputs[f"{size}_{sound}_forced20_ids"].ravel().tolist() for sound in sounds]
    assert [list(clip[0].token_ids) for clip in found] == expected


@pytest.mark.parametrize("sound", SOUNDS)
def test_encoder_slots_are_those_of_the_published_model(
    folder: Path, size: str, encoders: Arrays, outputs: Arrays, sound: str
) -> None:
    model, clip = load_caption_model(folder), features(encoders, sound)
    assert clip.embedding is not None
    inputs = EncoderInputs(torch.from_numpy(clip.codes)[None], None, torch.from_numpy(clip.embedding)[None])
    with torch.inference_mode():
        found = model.encode(inputs)[0].last_hidden_state[0]
    frames = len(clip.codes)
    slots = [0, 1, 2, frames // 2, frames + 2]
    np.testing.assert_allclose(found[slots].numpy(), outputs[f"{size}_{sound}_encoder_slots"], rtol=0, atol=SLOTS)
