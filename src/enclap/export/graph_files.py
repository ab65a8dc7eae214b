"""Traced graphs as ONNX files in one folder, with their large weights in one file that is memory-mapped and shared."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from enclap.engines.onnx.sessions import SILENT
from enclap.files import replacement_folder
from enclap.hub.layout import EXTERNAL_WEIGHTS

OPSET = 20
"""The first with GELU as one operator; onnxruntime reads it since 1.17."""
SMALLEST_HALVED = 16
"""Tensors with fewer values stay float32: a Cast would cost more than it saves."""
LARGEST_INSIDE = 32 * 2**20
"""Bytes of weights up to which a graph's file holds them itself, so that a small model needs no weight file."""
SMALLEST_OUTSIDE = 4096
"""Bytes from which a weight of a larger graph lies in the weight file."""
PAGE = 4096
"""Weights begin at whole pages, as memory mapping wants them."""
NORM_FUSIONS = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion")
"""onnxruntime's rules that fold a normalisation into the convolution before it."""

Axes = Mapping[str, Mapping[int, str]]


class GraphFolder:
    """A folder of graphs, written under a temporary name and renamed when all are done: `with GraphFolder(path)`.

    Equal weights of several graphs are stored once. A block that raises leaves the old folder as it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._replacement = replacement_folder(folder)
        self._offsets: dict[bytes, int] = {}
        self._weights: BinaryIO | None = None

    def __enter__(self) -> Self:
        self.partial = self._replacement.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):  # type: ignore[no-untyped-def]
        if self._weights is not None:
            self._weights.close()
        self._replacement.__exit__(kind, error, trace)

    def write(
        self,
        name: str,
        graph: nn.Module,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        axes: Axes,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Trace the graph with the example inputs and write it to `name`.onnx, with its metadata."""
        scratch = self.partial / "traced"
        scratch.mkdir()
        model = trace(graph, inputs, outputs, axes, scratch)
        shutil.rmtree(scratch)
        helper.set_model_props(model, dict(metadata or {}))
        self.save(name, model)

    def save(self, name: str, model: onnx.ModelProto) -> None:
        """Write a model, whose weights it holds itself, to `name`.onnx; the model is left without large weights."""
        weights = model.graph.initializer
        if sum(len(tensor.raw_data) for tensor in weights) > LARGEST_INSIDE:
            separate_lookups(model.graph)
            if self._weights is None:
                self._weights = (self.partial / EXTERNAL_WEIGHTS).open("wb")
            for tensor in weights:
                length = len(tensor.raw_data)
                if length < SMALLEST_OUTSIDE:
                    continue
                key = hashlib.sha256(tensor.raw_data).digest()
                if key not in self._offsets:  # what the weight file holds already is not stored again
                    self._weights.write(b"\0" * (-self._weights.tell() % PAGE))
                    self._offsets[key] = self._weights.tell()
                    self._weights.write(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                place = {"location": EXTERNAL_WEIGHTS, "offset": self._offsets[key], "length": length}
                for entry, value in place.items():
                    tensor.external_data.add(key=entry, value=str(value))
        onnx.save(model, str(self.partial / f"{name}.onnx"))


def separate_lookups(graph: onnx.GraphProto) -> None:
    """Give every Gather a constant of its own, where it shares one with a matrix product.

    The file holds the bytes once. But the runtime packs the matrix and lets its mapped bytes go, while the lookup
    touches few rows of its own: shared, all of the table would stay in memory twice.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    others = {name for node in graph.node if node.op_type != "Gather" for name in node.input}
    for node in graph.node:
        table = node.input[0] if node.op_type == "Gather" else ""
        if table in stored and table in others:
            node.input[0] = f"{table}.lookup"
            if node.input[0] not in stored:
                stored[node.input[0]] = graph.initializer.add()
                stored[node.input[0]].CopyFrom(stored[table])
                stored[node.input[0]].name = node.input[0]


def trace(
    graph: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Axes, scratch: Path
) -> onnx.ModelProto:
    """The graph as a simplified model that holds all its weights; scratch: an empty folder for intermediate files."""
    path = scratch / "graph.onnx"
    keep_norms = bool(getattr(graph, "keep_norms", False))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every constant; tests hold the graphs to other shapes
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(names) for name, names in axes.items()},
            opset_version=OPSET,
            custom_opsets=getattr(graph, "custom_opsets", {}),
            # in evaluation mode the exporter folds norms into convolutions, whose weights float16 then cannot hold
            training=torch.onnx.TrainingMode.PRESERVE if keep_norms else torch.onnx.TrainingMode.EVAL,
            dynamo=False,
        )
    model = onnx.load(str(simplify(path, NORM_FUSIONS if keep_norms else ())))
    halve_exact_weights(model)
    return model


def simplify(path: Path, without: Sequence[str] = ()) -> Path:
    """The path of a new graph beside the one at `path`, its constants folded and what they leave unused dropped.

    without: names of onnxruntime's rewriting rules that are left out.

    Done once, here, not at every load. onnxruntime's basic level is used because its result runs on any device.
    Weights lie in a file of their own, without which nothing above two gigabytes could be written.
    """
    target = path.with_name("simple.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "simple.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.disable_prepacking", "1")  # it is never run
    options.log_severity_level = SILENT
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )
    return target


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
