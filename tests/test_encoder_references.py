"""Our front end and wrappers against the published encoder packages' outputs, at full size, from ../shared."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ClapConfig, ClapModel, EncodecConfig, EncodecModel

from enclap.audio.mel import ClapFrontEnd
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.official import clap_audio_state, encodec_state
from enclap.types import FloatArray

pytestmark = pytest.mark.shared

SOUNDS = ("dog", "rain")
CODEBOOKS = 16  # 12 kbps


def filled(name: str, shape: list[int]) -> Tensor:
    """The float32 tensor that the reference's rule gives for a name and a shape."""
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean"):
        noise *= 0.1
    elif len(shape) >= 2 and not name.endswith("weight_g"):
        noise /= math.sqrt(math.prod(shape[1:]))
    elif name.endswith(("weight", "weight_g")):
        noise = 1 + 0.1 * noise
    else:
        noise *= 0.02
    return torch.from_numpy(noise.astype(np.float32))


def window_index(window: int) -> Tensor:
    """Row of the relative position table for each pair of places in a square window, int64 [window², window²]."""
    rows, columns = np.divmod(np.arange(window**2), window)
    down = rows[:, None] - rows + window - 1
    right = columns[:, None] - columns + window - 1
    return torch.from_numpy(down * (2 * window - 1) + right)


def initial(name: str, shape: list[int], dtype: str) -> Tensor:
    """The value of a tensor that the rule leaves alone; zeros where nothing reads it."""
    if name.endswith("relative_position_index"):
        return window_index(math.isqrt(shape[0]))
    return torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)


def published_state(reference: Path, model: str) -> dict[str, Tensor]:
    """The published package's whole state dict, with the reference's weights."""
    keys = json.loads((reference / "enclap_tiny" / f"state_dict_keys_{model}.json").read_text())["tensors"]
    by_rule = set(json.loads((reference / "encoders" / "filled_tensors.json").read_text())[model])
    assert by_rule <= set(keys)
    return {
        name: filled(name, key["shape"]) if name in by_rule else initial(name, key["shape"], key["dtype"])
        for name, key in keys.items()
    }


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference"


@pytest.fixture(scope="module")
def outputs(reference: Path) -> dict[str, np.ndarray]:
    with np.load(reference / "encoders" / "encoders.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def codec(reference: Path) -> Codec:
    """EnCodec 24 kHz as published: transformers' default configuration is its configuration."""
    model = EncodecModel(EncodecConfig())
    model.load_state_dict(encodec_state(published_state(reference, "encodec_24khz"), model.state_dict()))
    return Codec(model, codebooks=CODEBOOKS)


@pytest.fixture(scope="module")
def clap(reference: Path) -> Clap:
    """CLAP as in laion/clap-htsat-fused, but for a tiny text tower, which nothing here reads."""
    audio = {
        "spec_size": 256,
        "window_size": 8,
        "num_mel_bins": 64,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 96,
        "depths": [2, 2, 6, 2],
        "num_attention_heads": [4, 8, 16, 32],
        "hidden_size": 768,
        "projection_dim": 512,
        "enable_fusion": True,
        "fusion_type": "aff_2d",
        "aff_block_r": 4,
    }
    text = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=512))
    state = clap_audio_state(published_state(reference, "clap_htsat_tiny_fusion"), model.state_dict())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith("audio_")]
    return Clap(model, tokenizer=None)


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
    front_end = ClapFrontEnd(rate=48_000, length=480_000, window=1024, hop=480, bands=64, lowest=50.0, highest=14_000.0)
    embedding = clap.embed_audio(front_end(samples(outputs, f"clap_{sound}")))
    expected = outputs[f"clap_{sound}_embedding"]
    assert embedding @ expected / np.linalg.norm(expected) >= 0.99999
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-5)
