"""A model folder's weights as ONNX files, which the default engine runs without PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from enclap.audio.mel import ClapFrontEnd
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.graphs import ClapAudioGraph, ClapTextGraph, CodecGraph, DecoderGraph, EncoderGraph
from enclap.model.loading import load_pretrained
from enclap.model.modeling import EnclapForConditionalGeneration

OPSET = 18
SILENT = 4
"""onnxruntime's log severity that lets only fatal faults through."""
SMALLEST_HALVED = 16
"""Tensors with fewer values stay float32: a Cast would cost more than it saves."""
Axes = Mapping[str, Mapping[int, str]]


def export_folder(folder: Path) -> None:
    """Write `folder`/onnx/*.onnx from the weights in `folder`: only the graphs that the configuration needs.

    Weights that float16 holds exactly are stored so; all arithmetic is float32. ModelError when a part is missing.
    """
    target = folder / "onnx"
    target.mkdir(exist_ok=True)
    model = load_caption_model(folder)
    _export_caption_model(model, target)
    if model.config.acoustic_input == "codes":
        codec = Codec.from_folder(folder / "codec", model.config.codebooks)
        export_codec(codec, target)
    if model.config.use_clap:
        _export_clap(folder / "clap", target)


def load_caption_model(folder: Path) -> EnclapForConditionalGeneration:
    """The caption model in `folder`, float32, in evaluation mode; ModelError when it cannot be loaded."""
    model = load_pretrained(EnclapForConditionalGeneration, folder, "the caption model")
    return cast(EnclapForConditionalGeneration, model.eval())


def _export_caption_model(model: EnclapForConditionalGeneration, target: Path) -> None:
    config = model.config
    model.set_attn_implementation("eager")
    frames, clips, beams = 7, 2, 3
    examples = {
        "codes": torch.zeros(clips, frames, config.codebooks, dtype=torch.long),
        "log_mel": torch.zeros(clips, frames, config.log_mel_bands),
        "clap_embedding": torch.ones(clips, config.clap_dim),
    }
    encoder = EncoderGraph(model)
    cross_names = [f"cross_{kind}_{layer}" for layer in range(config.decoder_layers) for kind in ("key", "value")]
    cross_axes = {name: {0: "clips", 3: "slots"} if "key" in name else {0: "clips", 2: "slots"} for name in cross_names}
    inputs = {name: examples[name] for name in encoder.names}
    axes: Axes = {name: {0: "clips"} if name == "clap_embedding" else {0: "clips", 1: "frames"} for name in inputs}
    _write(encoder, inputs, cross_names, {**axes, **cross_axes}, target / "encoder.onnx")
    with torch.no_grad():
        cross = encoder(*inputs.values())
    heads = config.decoder_attention_heads
    past = torch.zeros(2, config.decoder_layers, 2, clips, beams, heads, config.d_model // heads)
    step_inputs = {"tokens": torch.zeros(clips, beams, dtype=torch.long), "past": past}
    step_inputs |= dict(zip(cross_names, cross, strict=True))
    step_axes: Axes = {
        "tokens": {0: "clips", 1: "beams"},
        "past": {0: "steps", 3: "clips", 4: "beams"},
        "logits": {0: "clips", 1: "beams"},
        "present": {3: "clips", 4: "beams"},
    }
    names = ["logits", "present"]
    _write(DecoderGraph(model), step_inputs, names, {**step_axes, **cross_axes}, target / "decoder.onnx")


def export_codec(codec: Codec, target: Path) -> None:
    """Write `target`/codec.onnx: samples [B, 1, N] -> codes [B, T, K], at any length."""
    samples = torch.zeros(2, 1, 20 * codec.hop + 1)
    axes = {"samples": {0: "clips", 2: "samples"}, "codes": {0: "clips", 1: "frames"}}
    _write(CodecGraph(codec), {"samples": samples}, ["codes"], axes, target / "codec.onnx")


def _export_clap(folder: Path, target: Path) -> None:
    clap = Clap.from_folder(folder)
    clap.model.set_attn_implementation("eager")
    front_end = ClapFrontEnd.from_folder(folder)
    mel = torch.zeros(2, 1, front_end.frames, front_end.bands)
    axes = {"mel": {0: "crops"}, "embedding": {0: "crops"}}
    _write(ClapAudioGraph(clap.model), {"mel": mel}, ["embedding"], axes, target / "clap_audio.onnx")
    if clap.tokenizer is None:
        return
    text = {"ids": torch.full((2, 6), 3), "mask": torch.ones(2, 6, dtype=torch.long)}
    text_axes = {"ids": {0: "texts", 1: "tokens"}, "mask": {0: "texts", 1: "tokens"}, "embedding": {0: "texts"}}
    _write(ClapTextGraph(clap.model), text, ["embedding"], text_axes, target / "clap_text.onnx")


def _write(graph: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Axes, path: Path) -> None:
    """Trace the graph and write it to `path`, by way of a temporary name."""
    temporary = path.with_suffix(".partial")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every constant; tests hold the graphs to other shapes
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(temporary),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(names) for name, names in axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )
    simplify(temporary)
    model = onnx.load(str(temporary))
    halve_exact_weights(model)
    onnx.save(model, str(temporary))
    temporary.replace(path)


def simplify(path: Path) -> None:
    """Fold the constants of the graph at `path` and drop what they leave unused, once, here, not at every load.

    onnxruntime's basic level is used because its result holds standard operators only, which any version and device
    runs; it loads in less than half the time.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = SILENT
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def halve_exact_weights(model: onnx.ModelProto) -> None:
    """Store every float32 weight that float16 holds exactly as float16, followed by a Cast back to float32.

    The runtime folds the Cast when it loads the graph, so results stay those of the float32 weights.
    """
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if values.size < SMALLEST_HALVED or not np.array_equal(halved.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def round_weights_to_float16(folder: Path) -> None:
    """Round the weights of caption model, codec and CLAP in `folder` to float16 and store them so.

    Halves the folder and lets safetensors and ONNX hold exactly the same values; call it before `export_folder`.
    Tensors that float16 cannot hold (training statistics above 65,504) stay as they are.
    """
    for path in sorted(folder.glob("**/model.safetensors")):
        rounded = {name: _rounded(tensor) for name, tensor in load_file(path).items()}
        temporary = path.with_suffix(".partial")
        save_file(rounded, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors writes files that only their owner may read
        temporary.replace(path)


def _rounded(tensor: Tensor) -> Tensor:
    """The tensor in float16 where that is finite, else as it is."""
    if tensor.dtype != torch.float32:
        return tensor
    halved = tensor.half()
    return halved if bool(torch.isfinite(halved).all()) else tensor
