"""Our front end and wrappers against the published encoder packages' outputs, at full size, from ../shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from enclap.model.audio_encoder import HtsatClap
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.types import FloatArray
from rule_weights import CLAP_FRONT_END, filled, rule_clap, rule_codec

pytestmark = pytest.mark.shared

SOUNDS = ("dog", "rain")


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference"


@pytest.fixture(scope="module")
def outputs(reference: Path) -> dict[str, np.ndarray]:
    with np.load(reference / "encoders" / "encoders.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def codec(reference: Path) -> Codec:
    return rule_codec(reference)


@pytest.fixture(scope="module")
def clap(reference: Path) -> Clap:
    return Clap(HtsatClap(rule_clap(reference), CLAP_FRONT_END), tokenizer=None)


def samples(outputs: dict[str, np.ndarray], name: str) -> FloatArray:
    return outputs[f"{name}_pcm16"].astype(np.float32) / np.float32(32768)


def test_the_rule_gives_the_weights_of_the_reference(reference: Path) -> None:
    lists = json.loads((reference / "encoders" / "filled_tensors.json").read_text())
    shapes = {"encoder.model.0.conv.conv.weight_v": [32, 1, 7], "audio_branch.bn0.running_var": [64]}
    for name, values in lists["check"].items():
        assert filled(name, shapes[name]).flatten()[:3].tolist() == values


@pytest.mark.parametrize("sound", SOUNDS)
def test_codes_equal_those_of_the_published_codec(sound: str, codec: Codec, outputs: dict[str, np.ndarray]) -> None:
    waveform = samples(outputs, f"encodec_{sound}")
    with torch.inference_mode():
        latents = codec.model.encoder(torch.from_numpy(waveform)[None, None])[0].numpy()
    np.testing.assert_allclose(latents, outputs[f"encodec_{sound}_latent"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(codec.encode(waveform).T, outputs[f"encodec_{sound}_codes"])


@pytest.mark.parametrize("sound", SOUNDS)
def test_embeddings_equal_those_of_the_published_clap(sound: str, clap: Clap, outputs: dict[str, np.ndarray]) -> None:
    embedding = clap.embed_audio(CLAP_FRONT_END.tower_input(samples(outputs, f"clap_{sound}")))
    expected = outputs[f"clap_{sound}_embedding"]
    assert embedding @ expected / np.linalg.norm(expected) >= 0.99999
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-5)
