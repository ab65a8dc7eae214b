"""The published encoders' name maps and fusion, on small models; full size is in test_encoder_references.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import ClapFeatureExtractor

from enclap.audio.mel import MelFrontEnd
from enclap.convert.published_names import clap_audio_state, encodec_state
from enclap.errors import ModelError
from enclap.export.folder import export_clap
from enclap.export.graph_files import GraphFolder
from enclap.model.audio_encoder import HtsatClap
from enclap.model.clap import Clap
from published import State, published_clap, published_encodec, small_clap, small_encodec

FUSED_FRONT_END = MelFrontEnd(
    rate=8000, length=80_000, fft_size=512, hop=320, bands=16, lowest=50.0, highest=3800.0, fused=True
)

Case = tuple[Callable[[State, State], State], State, State]


@pytest.fixture(params=["encodec", "clap"])
def case(request: pytest.FixtureRequest) -> Case:
    """A map, a published state dict and the state dict of the model that is to take it."""
    with torch.device("meta"):
        model = small_encodec() if request.param == "encodec" else small_clap()
    if request.param == "encodec":
        return encodec_state, published_encodec(), model.state_dict()
    return clap_audio_state, published_clap(), model.state_dict()


def test_every_encodec_tensor_gets_its_name() -> None:
    model, official = small_encodec(), published_encodec()
    state = encodec_state(official, model.state_dict())
    model.load_state_dict(state)
    assert len(state) == len(official)
    names = {
        "encoder.model.3.conv.conv.weight_g": "encoder.layers.3.conv.parametrizations.weight.original0",
        "encoder.model.1.block.1.conv.conv.weight_v": "encoder.layers.1.block.1.conv.parametrizations.weight.original1",
        "decoder.model.3.convtr.convtr.bias": "decoder.layers.3.conv.bias",
        "encoder.model.4.lstm.bias_hh_l0": "encoder.layers.4.lstm.bias_hh_l0",
        "quantizer.vq.layers.1._codebook.embed": "quantizer.layers.1.codebook.embed",
    }
    assert all(torch.equal(state[ours], official[theirs]) for theirs, ours in names.items())


def test_every_clap_audio_tensor_gets_its_name() -> None:
    model, official = small_clap(), published_clap()
    state = clap_audio_state(official, model.state_dict())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith("audio_")]
    tower = "audio_model.audio_encoder."
    names = {
        "audio_branch.bn0.running_var": f"{tower}batch_norm.running_var",
        "audio_branch.norm.bias": f"{tower}norm.bias",
        "audio_branch.layers.0.blocks.1.norm1.weight": f"{tower}layers.0.blocks.1.layernorm_before.weight",
        "audio_branch.layers.0.blocks.1.norm2.weight": f"{tower}layers.0.blocks.1.layernorm_after.weight",
        "audio_branch.layers.1.blocks.0.attn.proj.bias": f"{tower}layers.1.blocks.0.attention.output.dense.bias",
        "audio_branch.layers.1.blocks.0.mlp.fc1.bias": f"{tower}layers.1.blocks.0.intermediate.dense.bias",
        "audio_branch.layers.1.blocks.0.mlp.fc2.bias": f"{tower}layers.1.blocks.0.output.dense.bias",
        "audio_projection.0.weight": "audio_projection.linear1.weight",
        "audio_projection.2.weight": "audio_projection.linear2.weight",
    }
    assert all(torch.equal(state[ours], official[theirs]) for theirs, ours in names.items())


def test_stacked_projections_are_taken_apart() -> None:
    official = published_clap()
    state = clap_audio_state(official, small_clap().state_dict())
    ours, theirs = "audio_model.audio_encoder.layers.0.blocks.1.attention.self", "audio_branch.layers.0.blocks.1.attn"
    for kind in ("weight", "bias"):
        parts = [state[f"{ours}.{part}.{kind}"] for part in ("query", "key", "value")]
        assert torch.equal(torch.cat(parts), official[f"{theirs}.qkv.{kind}"])


def test_names_of_published_files_may_begin_with_module() -> None:
    official, expected = published_clap(), small_clap().state_dict()
    prefixed = {f"module.{name}": tensor for name, tensor in official.items()}
    plain, stripped = clap_audio_state(official, expected), clap_audio_state(prefixed, expected)
    assert list(plain) == list(stripped)
    assert all(torch.equal(plain[name], stripped[name]) for name in plain)


def test_the_order_of_names_does_not_matter_and_the_input_stays(case: Case) -> None:
    mapped, official, expected = case
    before = {name: tensor.clone() for name, tensor in official.items()}
    forward, backward = mapped(official, expected), mapped(dict(reversed(official.items())), expected)
    assert forward.keys() == backward.keys()
    assert all(torch.equal(forward[name], backward[name]) for name in forward)
    assert list(official) == list(before)
    assert all(torch.equal(official[name], before[name]) for name in before)


def test_each_tensor_that_is_taken_away_is_missed(case: Case) -> None:
    mapped, official, expected = case
    used = mapped(official, expected)
    missed = set()
    for name in official:
        rest = {other: tensor for other, tensor in official.items() if other != name}
        try:
            assert mapped(rest, expected).keys() == used.keys()
        except ModelError as error:
            missed |= {target for target in used if target in str(error)}
    assert missed == set(used)


def test_one_error_names_every_tensor_that_does_not_fit(case: Case) -> None:
    mapped, official, expected = case
    first, second, third = [name for name in mapped(official, expected) if name.endswith("bias")][:3]
    wrong = dict(expected) | {first: torch.empty(3, 7), second: torch.empty(5), "audio_new": torch.empty(1)}
    del wrong[third]
    with pytest.raises(ModelError) as raised:
        mapped({**official, "surprise.weight": torch.zeros(2)}, wrong)
    line = str(raised.value)
    assert "\n" not in line
    assert "missing: audio_new; left over:" in line and "surprise.weight" in line
    assert f"{first} {list(expected[first].shape)} instead of [3, 7]" in line
    assert f"{second} {list(expected[second].shape)} instead of [5]" in line


def test_two_tensors_for_one_name_are_an_error() -> None:
    official, expected = published_clap(), small_clap().state_dict()
    with pytest.raises(ModelError, match=r"\(left over: module\.audio_branch\.bn0\.bias\)"):
        clap_audio_state({**official, "module.audio_branch.bn0.bias": torch.zeros(16)}, expected)


@pytest.mark.parametrize("shape", [(), (23,), (24, 3), (0,)])
def test_stacked_projections_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    name = "audio_branch.layers.0.blocks.0.attn.qkv.bias"
    with pytest.raises(ModelError, match=r"of another shape: .*layers\.0\.blocks\.0\.attention\.self\.value\.bias"):
        clap_audio_state({**published_clap(), name: torch.zeros(shape)}, small_clap().state_dict())


@torch.inference_mode()
def test_a_fused_tower_reads_one_channel_as_four_equal_ones() -> None:
    model, mels = small_clap().eval(), torch.randn(3, 1, 251, 16)
    longer = torch.zeros(3, 1, dtype=torch.bool)
    stacked = model.get_audio_features(mels.repeat(1, 4, 1, 1), is_longer=longer).pooler_output
    torch.testing.assert_close(HtsatClap(model, FUSED_FRONT_END).embed(mels), stacked)


def export_clap_alone(folder: Path, target: Path) -> None:
    with GraphFolder(target) as graphs:
        export_clap(Clap.from_folder(folder), graphs)


@torch.inference_mode()
def test_a_fused_tower_is_exported_for_any_number_of_crops(tmp_path: Path) -> None:
    model = small_clap().eval()
    model.save_pretrained(tmp_path)
    front_end = FUSED_FRONT_END
    front_end.save(tmp_path)
    assert MelFrontEnd.from_folder(tmp_path) == front_end
    export_clap_alone(tmp_path, tmp_path / "onnx")
    embed = HtsatClap(model, front_end).embed
    graph = onnxruntime.InferenceSession(tmp_path / "onnx" / "clap_audio.onnx")
    for crops in (1, 3):
        mels = torch.randn(crops, 1, front_end.frames, front_end.bands)
        (embeddings,) = graph.run(None, {"mel": mels.numpy()})
        np.testing.assert_allclose(embeddings, embed(mels).numpy(), rtol=0, atol=1e-5)
    fused = onnxruntime.InferenceSession(tmp_path / "onnx" / "clap_fused.onnx")
    for clips in (1, 3):
        mels = torch.randn(clips, 4, front_end.frames, front_end.bands)
        longer = torch.ones(clips, 1, dtype=torch.bool)
        expected = model.get_audio_features(mels, is_longer=longer).pooler_output
        torch.testing.assert_close(embed(mels), expected)
        (embeddings,) = fused.run(None, {"mel": mels.numpy()})
        np.testing.assert_allclose(embeddings, expected.numpy(), rtol=0, atol=1e-5)


def test_long_clips_are_fused_as_the_published_extractor_does_but_for_its_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its draws are made to fall where ours are fixed: first of the first third, middle, last of the last third."""
    front_end = MelFrontEnd(
        rate=48_000, length=480_000, fft_size=1024, hop=480, bands=64, lowest=50.0, highest=14_000.0, fused=True
    )
    samples = (np.random.default_rng(0).standard_normal(48_000 * 17 + 77) * 0.1).astype(np.float32)
    last = len(samples) // front_end.hop + 1 - front_end.frames
    draws = iter([0, last // 2, last])

    def fixed(choices: np.ndarray) -> int:
        place = next(draws)
        assert place in choices
        return place

    monkeypatch.setattr(np.random, "choice", fixed)
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation="fusion", padding="repeatpad")
    expected, longer = extractor._get_input_mel(samples.astype(np.float64), 480_000, "fusion", "repeatpad")
    found = front_end.tower_input(samples)
    assert longer and found.shape == (1, 4, front_end.frames, 64)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=0.02)  # decibels


@pytest.mark.parametrize("extra", [-1, 0, 1, 319])
def test_clips_within_a_frame_of_the_length_are_not_fused(extra: int) -> None:
    samples = np.random.default_rng(0).standard_normal(80_000 + extra).astype(np.float32)
    assert FUSED_FRONT_END.tower_input(samples).shape == (1, 1, FUSED_FRONT_END.frames, 16)
    assert FUSED_FRONT_END.tower_input(np.append(samples, samples[:320])).shape == (1, 1 if extra < 0 else 4, 251, 16)


def test_a_front_end_that_fuses_for_a_tower_that_does_not_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model / "clap", tmp_path / "clap"))
    FUSED_FRONT_END.save(folder)
    with pytest.raises(ModelError, match="says truncation fusion, but the audio tower has none"):
        export_clap_alone(folder, tmp_path / "onnx")
    assert not list(tmp_path.glob("onnx*"))
