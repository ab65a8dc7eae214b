"""The caption model's graphs with matrix products in 8-bit integers: a quarter of the weights, several times as fast.

Weight matrices of encoder and decoder are quantised, and the encoder's code tables, of which a clip reads nearly all
(66 MB in large). Codec and CLAP stay float32, because what they give must not change; so do token and position tables,
normalisations and attention scores. Two operators of onnxruntime are used for products:

- Encoder: DynamicQuantizeMatMul. A scale per output channel for the weights, one per clip for the activations, which
  is the fastest; the engine encodes one clip at a time, so no clip's scale depends on another clip.
- Decoder: MatMulNBits. Scales per block of up to 128 inputs for weights and activations, row by row, so that clips and
  beams that share a step do not share a scale either.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from enclap.export.captioner_graphs import ONNXRUNTIME_DOMAIN
from enclap.export.graph_files import GraphFolder
from enclap.hub.layout import INT8_SUFFIX, Graph
from enclap.types import FloatArray

LARGEST = 127
MIDDLE = 128
"""Stored value of a zero weight in MatMulNBits' unsigned bytes."""
LARGEST_BLOCK = 128
INTEGER_ACTIVATIONS = 4
"""MatMulNBits' accuracy level that quantises activations too, so that the products run in integers."""


def write_int8(graphs: GraphFolder) -> None:
    """Write encoder_int8.onnx and decoder_int8.onnx beside the folder's float32 graphs."""
    for graph in (Graph.ENCODER, Graph.DECODER):
        model = onnx.load(str(graphs.partial / f"{graph}.onnx"))
        quantise(model, blockwise=graph == Graph.DECODER)
        graphs.save(graph + INT8_SUFFIX, model)


def quantise(model: onnx.ModelProto, blockwise: bool) -> None:
    """Replace, in place, every product with a constant matrix by its quantised form."""
    quantiser = _Quantiser(model.graph)
    replace = quantiser.blockwise if blockwise else quantiser.per_channel
    matrices = {node.output[0]: quantiser.matrix_of(node) for node in model.graph.node}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        matrix = matrices[node.output[0]]
        nodes += [node] if matrix is None else replace(node, matrix)
    if not blockwise:
        nodes = quantiser.sums_inside(nodes)
        nodes = [part for node in nodes for part in quantiser.small_lookup(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    quantiser.drop_unused()
    if all(entry.domain != ONNXRUNTIME_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(ONNXRUNTIME_DOMAIN, 1))


class _Quantiser:
    """Nodes of a graph in 8 bits, with new constants; those included that are stored as float16 before a Cast."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._casts = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Cast" and node.input[0] in self._stored
        }

    def float32(self, name: str) -> FloatArray | None:
        """The constant called `name` as float32; None when it is none."""
        stored = self._stored.get(self._casts.get(name, name))
        return None if stored is None else numpy_helper.to_array(stored).astype(np.float32)

    def add(self, name: str, values: NDArray[np.generic]) -> str:
        """The name of a new constant; one that is there already, from a shared matrix, is not stored twice."""
        if name not in self._stored:
            tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
            self.graph.initializer.append(tensor)
            self._stored[name] = tensor
        return name

    def matrix_of(self, node: NodeProto) -> FloatArray | None:
        """The matrix [inputs, outputs] that the node multiplies activations with; None for every other node."""
        if node.op_type not in ("MatMul", "Gemm"):
            return None
        matrix = self.float32(node.input[1])
        if matrix is None or matrix.ndim != 2:
            return None
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return matrix.T if transposed else matrix

    def per_channel(self, node: NodeProto, matrix: FloatArray) -> Iterator[NodeProto]:
        """The node as DynamicQuantizeMatMul."""
        scales = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float32).tiny) / np.float32(LARGEST)  # [outputs]
        rounded = np.rint(matrix / scales).astype(np.int8)
        name = node.input[1]
        constants = [
            self.add(f"{name}.int8", rounded),
            self.add(f"{name}.scales", scales),
            self.add(f"{name}.zeros", np.zeros(matrix.shape[1], dtype=np.int8)),
        ]
        yield from _with_bias(node, "DynamicQuantizeMatMul", constants)

    def blockwise(self, node: NodeProto, matrix: FloatArray) -> Iterator[NodeProto]:
        """The node as MatMulNBits."""
        inputs, outputs = matrix.shape
        block = min(LARGEST_BLOCK, max(16, inputs & -inputs))  # the largest power of two that divides the inputs
        padded = np.pad(matrix.T, ((0, 0), (0, -inputs % block))).reshape(outputs, -1, block)
        scales = np.maximum(np.abs(padded).max(axis=2), np.finfo(np.float32).tiny) / np.float32(LARGEST)
        rounded = (np.rint(padded / scales[..., None]) + MIDDLE).astype(np.uint8)  # [outputs, blocks, block]
        name = node.input[1]
        constants = [self.add(f"{name}.blocks", rounded), self.add(f"{name}.scales", scales.reshape(-1))]
        sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": block, "accuracy_level": INTEGER_ACTIVATIONS}
        yield from _with_bias(node, "MatMulNBits", constants, **sizes)

    def small_lookup(self, node: NodeProto) -> list[NodeProto]:
        """A Gather of a constant table's rows as one of its bytes, times a scale for each row; others as they are."""
        table = self.float32(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2:
            return [node]
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(LARGEST)
        (name, rows), found = node.input, node.output[0]
        rounded = self.add(f"{name}.int8", np.rint(table / scales).astype(np.int8))  # [rows, width]
        factors = self.add(f"{name}.scales", scales)  # [rows, 1]
        return [
            helper.make_node("Gather", [rounded, rows], [f"{found}.bytes"]),
            helper.make_node("Cast", [f"{found}.bytes"], [f"{found}.floats"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [factors, rows], [f"{found}.factors"]),
            helper.make_node("Mul", [f"{found}.floats", f"{found}.factors"], [found]),
        ]

    def sums_inside(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """The nodes, where DynamicQuantizeMatMul adds the bias that an Add added: one pass over memory less."""
        products = {node.output[0]: node for node in nodes if node.op_type == "DynamicQuantizeMatMul"}
        kept = []
        for node in nodes:
            inside = next((name for name in node.input if name in products), None)
            bias = next((name for name in node.input if name != inside), "")
            vector = self.float32(bias) if node.op_type == "Add" and inside else None
            if inside is None or vector is None or vector.ndim != 1:
                kept.append(node)
                continue
            products[inside].input.append(bias)
            products[inside].output[0] = node.output[0]
        return kept

    def drop_unused(self) -> None:
        """Forget Casts and constants that no node reads any more."""
        read = {name for node in self.graph.node for name in node.input}
        nodes = [node for node in self.graph.node if node.output[0] in read or node.output[0] not in self._casts]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(tensors)


def _with_bias(node: NodeProto, kind: str, constants: list[str], **attributes: int) -> Iterator[NodeProto]:
    """The quantised product, and the sum with a Gemm's third input."""
    biased = node.op_type == "Gemm" and len(node.input) > 2
    product = f"{node.output[0]}.product" if biased else node.output[0]
    inputs = [node.input[0], *constants]
    yield helper.make_node(kind, inputs, [product], domain=ONNXRUNTIME_DOMAIN, name=f"{node.name}.int8", **attributes)
    if biased:
        yield helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}.bias")
