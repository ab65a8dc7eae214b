"""The converter at the published sizes: files packed as published, weights from the rule, the published outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from enclap.audio.mel import MelFrontEnd
from enclap.decoding.options import DecodingOptions
from enclap.engines import load_engine
from enclap.hub.official_release import convert_parts
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.types import Features
from rule_weights import filled, published_state

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]

VOCABULARY = 50_265
FORCED = 21  # tokens with the start: 20 generated


def caption_state(reference: Path, size: str) -> dict[str, Tensor]:
    """The published checkpoint of a size, by the rule of ../shared/reference/full_size."""
    keys = json.loads((reference / "enclap_tiny" / f"state_dict_keys_{size}.json").read_text())["tensors"]
    state = {name: filled(name, key["shape"]) for name, key in keys.items() if "embed_tokens" not in name}
    table = state["model.shared.weight"] * 4
    table[1] = 0
    for name in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{name}.weight"] = table
    for name, tensor in state.items():
        if "embed_encodec" in name:
            tensor[1024] = 0
    return state | {"final_logits_bias": torch.zeros(1, VOCABULARY)}


def published_files(reference: Path, folder: Path, size: str) -> tuple[Path, Path, Path, Path]:
    """Caption checkpoint, codec file, CLAP file and tokenizer, named and packed as published."""
    (folder / "ckpt").mkdir()
    torch.save(caption_state(reference, size), folder / "ckpt" / "pytorch_model.bin")
    config = (reference / "full_size" / f"config_{size}.json").read_bytes()
    (folder / "ckpt" / "config.json").write_bytes(config)
    torch.save(published_state(reference, "encodec_24khz"), folder / "encodec_24khz.th")
    clap = {f"module.{name}": value for name, value in published_state(reference, "clap_htsat_tiny_fusion").items()}
    torch.save({"epoch": 1, "best": np.float64(0.1), "state_dict": clap}, folder / "630k-fusion.pt")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2} | {f"word{number}": number for number in range(3, VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="word3")).save(str(folder / "tokenizer.json"))
    return folder / "ckpt", folder / "encodec_24khz.th", folder / "630k-fusion.pt", folder / "tokenizer.json"


@pytest.mark.parametrize("size", ["base", "large"])
def test_published_files_give_the_published_outputs(shared: Path, tmp_path: Path, size: str) -> None:
    reference = shared / "reference"
    convert_parts(published_files(reference, tmp_path, size), tmp_path / "model")
    with np.load(reference / "encoders" / "encoders.npz") as arrays:
        encoders = {name: arrays[name] for name in arrays.files}
    with np.load(reference / "full_size" / "outputs.npz") as arrays:
        outputs = {name: arrays[name] for name in arrays.files}

    codec, clap = Codec.from_folder(tmp_path / "model" / "codec", 16), Clap.from_folder(tmp_path / "model" / "clap")
    front_end = MelFrontEnd.from_folder(tmp_path / "model" / "clap")
    assert (front_end.lowest, front_end.bands) == (50.0, 64)
    engine = load_engine(tmp_path / "model", engine="onnx")
    options = DecodingOptions(min_length=FORCED, max_length=FORCED)
    for sound in ("dog", "rain"):
        samples = encoders[f"encodec_{sound}_pcm16"].astype(np.float32) / np.float32(32768)
        codes = codec.encode(samples)
        np.testing.assert_array_equal(codes.T, encoders[f"encodec_{sound}_codes"])
        samples = encoders[f"clap_{sound}_pcm16"].astype(np.float32) / np.float32(32768)
        embedding = clap.embed_audio(front_end.tower_input(samples))
        expected = encoders[f"clap_{sound}_embedding"]
        assert embedding @ expected / np.linalg.norm(expected) >= 0.99999
        (candidates,) = engine.generate([Features(codes, expected)], options)
        assert list(candidates[0].token_ids) == outputs[f"{size}_{sound}_forced20_ids"].reshape(-1).tolist()
