"""ONNX graphs: exact at unseen lengths and batches, small on disk, and of the modules' own weights."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from transformers import EncodecConfig, EncodecModel

from enclap.engines.onnx.codec import OnnxCodec
from enclap.errors import ModelError
from enclap.export import graph_files
from enclap.export.encoder_graphs import BranchFreeConv
from enclap.export.folder import export_codec, export_folder, round_weights_to_float16
from enclap.export.graph_files import GraphFolder, halve_exact_weights
from enclap.hub.layout import EXTERNAL_WEIGHTS
from enclap.model.codec import Codec
from enclap.model.loading import load_caption_model
from tiny import CODEBOOKS, ENTRIES


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path)


@pytest.mark.parametrize("samples", [1, 5, 640, 641, 1919, 4480, 4481, 30_001])
def test_codec_at_unseen_lengths(tiny_model: Path, samples: int) -> None:
    values = (np.random.default_rng(samples).standard_normal((3, samples)) * 0.2).astype(np.float32)
    codec = Codec.from_folder(tiny_model / "codec", CODEBOOKS)
    expected = np.stack([codec.encode(clip) for clip in values])
    latents, codes = (session(tiny_model / "onnx" / f"codec_{part}.onnx") for part in ("latents", "codes"))
    found = codes.run(None, {"latents": latents.run(None, {"samples": values[:, None]})[0]})[0]
    assert found.shape == expected.shape == (3, -(-samples // 640), CODEBOOKS)
    assert (found == expected).mean() > 0.99  # a residual between two entries may round either way


@pytest.mark.parametrize("samples", [1, 639, 6400, 16_001, 47_999])
def test_segments_give_the_latents_of_the_whole(tiny_model: Path, samples: int) -> None:
    latents, codes = (session(tiny_model / "onnx" / f"codec_{part}.onnx") for part in ("latents", "codes"))
    values = (np.random.default_rng(samples).standard_normal(samples) * 0.2).astype(np.float32)
    expected = latents.run(None, {"samples": values[None, None]})[0][0]
    for segment in (1, 7, 25):
        codec = OnnxCodec(latents, codes, hop=640, segment=segment)
        assert not codec.looks_ahead
        with ThreadPoolExecutor(2) as pool:
            found = np.concatenate([part.result() for part in codec.begin(values, pool)], axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_codec_that_looks_ahead_is_not_convolved_in_segments(tmp_path: Path) -> None:
    config = EncodecConfig(use_causal_conv=False, num_filters=2, hidden_size=4, codebook_size=4)
    export_codec(Codec(EncodecModel(config)), tmp_path / "onnx")
    latents, codes = (session(tmp_path / "onnx" / f"codec_{part}.onnx") for part in ("latents", "codes"))
    assert OnnxCodec(latents, codes, hop=320, segment=75).looks_ahead


def test_weights_of_large_graphs_are_stored_once_in_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_files, "LARGEST_INSIDE", 1000)
    table = numpy_helper.from_array(np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32), "table")
    indices = helper.make_tensor_value_info("indices", TensorProto.INT64, [2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 300])
    nodes = [
        helper.make_node("Gather", ["table", "indices"], ["rows"]),
        helper.make_node("Gemm", ["rows", "table"], ["y"], transB=1),
    ]
    graph = helper.make_graph(nodes, "tied", [indices], [result], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"indices": np.array([3, 7])})[0]
    with GraphFolder(tmp_path / "onnx") as graphs:
        graphs.save("one", onnx.ModelProto.FromString(model.SerializeToString()))
        graphs.save("two", model)
    assert (tmp_path / "onnx" / EXTERNAL_WEIGHTS).stat().st_size == 300 * 8 * 4
    for name in ("one", "two"):
        found = session(tmp_path / "onnx" / f"{name}.onnx").run(None, {"indices": np.array([3, 7])})[0]
        np.testing.assert_array_equal(found, expected)


def test_an_export_that_fails_leaves_the_old_graphs(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (folder / "clap" / "model.safetensors").unlink()
    before = {path.name: path.read_bytes() for path in (folder / "onnx").iterdir()}
    with pytest.raises(ModelError):
        export_folder(folder)
    assert {path.name: path.read_bytes() for path in (folder / "onnx").iterdir()} == before
    assert not list(folder.glob("onnx.*"))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_branch_free_convolution_equals_its_source(causal: bool, pad_mode: str) -> None:
    torch.manual_seed(0)
    config = EncodecConfig(
        use_causal_conv=causal, pad_mode=pad_mode, num_filters=2, hidden_size=4, upsampling_ratios=[5, 2]
    )
    sources = [module for module in EncodecModel(config).encoder.modules() if hasattr(module, "padding_total")]
    for source in sources:
        ours = BranchFreeConv(source)
        for length in (1, 2, 3, 6, 7, 8, 9, 40):
            values = torch.randn(2, source.conv.in_channels, length)
            expected = source(values)
            torch.testing.assert_close(ours(values), expected)


@pytest.mark.parametrize(("clips", "frames", "beams"), [(1, 1, 1), (2, 50, 4), (3, 297, 2)])
def test_decoder_steps_equal_one_forward_pass(tiny_model: Path, clips: int, frames: int, beams: int) -> None:
    model = load_caption_model(tiny_model)
    generator = np.random.default_rng(0)
    codes = generator.integers(0, ENTRIES, (clips, frames, CODEBOOKS))
    embedding = generator.standard_normal((clips, 16)).astype(np.float32)
    tokens = generator.integers(0, 300, (clips, beams, 6))
    encoder, decoder = (session(tiny_model / "onnx" / f"{name}.onnx") for name in ("encoder", "decoder"))
    cross = encoder.run(None, {"codes": codes, "clap_embedding": embedding})
    shared = {item.name: array for item, array in zip(encoder.get_outputs(), cross, strict=True)}
    shared["cross_bias"] = np.zeros((clips, frames + 3), dtype=np.float32)
    past = np.zeros((0, 2, 2, clips, beams, 4, 8), dtype=np.float32)
    steps = []
    for step in range(tokens.shape[-1]):
        logits, present = decoder.run(None, {"tokens": tokens[..., step, None], "past": past, **shared})
        past = np.concatenate([past, present])
        steps.append(logits)
    several = decoder.run(None, {"tokens": tokens, "past": past[:0], **shared})
    np.testing.assert_allclose(several[0], steps[-1], atol=5e-5)
    np.testing.assert_allclose(several[1], past, atol=5e-5)
    with torch.no_grad():
        expected = model(
            codes=torch.from_numpy(codes).repeat_interleave(beams, 0),
            clap_embedding=torch.from_numpy(embedding).repeat_interleave(beams, 0),
            decoder_input_ids=torch.from_numpy(tokens.reshape(clips * beams, -1)),
        ).logits
    found = np.stack(steps, axis=2).reshape(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), atol=5e-5)


def test_weights_are_stored_as_float16_once(tiny_model: Path) -> None:
    sizes = {path.stem: path.stat().st_size for path in (tiny_model / "onnx").iterdir()}
    assert set(sizes) == {"codec_latents", "codec_codes", "clap_audio", "clap_text", "encoder", "decoder"}
    decoder = onnx.load(tiny_model / "onnx" / "decoder.onnx")
    full = [tensor for tensor in decoder.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert all(np.prod(tensor.dims) < 1000 for tensor in full)
    model = load_caption_model(tiny_model)
    table = tuple(model.get_input_embeddings().weight.shape)
    assert sum(tuple(tensor.dims) in (table, table[::-1]) for tensor in decoder.graph.initializer) == 1


def test_rounding_is_idempotent_and_what_loads(tiny_model: Path) -> None:
    tensors = load_file(tiny_model / "model.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    loaded = load_caption_model(tiny_model).state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in tensors.items())


def test_large_statistics_stay_float32(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"count": torch.tensor([1e6]), "weight": torch.tensor([0.1])}, tmp_path / "model.safetensors")
    round_weights_to_float16(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["count"].dtype == torch.float32 and tensors["weight"].dtype == torch.float16


def test_only_exact_weights_are_halved() -> None:
    exact = numpy_helper.from_array(np.linspace(0, 31, 32, dtype=np.float32), "exact")
    inexact = numpy_helper.from_array(np.full(32, 0.1, dtype=np.float32), "inexact")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [32])
    node = helper.make_node("Add", ["exact", "inexact"], ["y"])
    graph = helper.make_graph([node], "sum", [], [result], [exact, inexact])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    halve_exact_weights(model)
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["exact.float16", "inexact"]
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})[0]
    np.testing.assert_array_equal(found, np.linspace(0, 31, 32, dtype=np.float32) + np.float32(0.1))


def test_an_incomplete_folder_does_not_export(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (folder / "codec" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="the codec cannot be loaded"):
        export_folder(folder)


def test_stereo_codecs_are_refused() -> None:
    with pytest.raises(ModelError, match="only mono codecs"):
        Codec(EncodecModel(EncodecConfig(audio_channels=2, num_filters=2, hidden_size=4, codebook_size=4)))
