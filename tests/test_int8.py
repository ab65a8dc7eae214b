"""Quantised graphs: near the float32 ones, a quarter of their size, and free of what other clips are beside a clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from agreement import GREEDY, assert_candidates_agree, random_windows, released_options
from enclap.engines import Engine, load_engine
from enclap.engines.onnx.sessions import open_session
from enclap.errors import ModelError
from enclap.export.folder import export_folder
from enclap.export.int8 import quantise
from enclap.types import Features

ROUNDING = 0.02  # of the norm: two roundings to 8 bits


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("int8") / "model"))
    export_folder(path, int8=True)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(folder, "onnx", precision="int8", threads=1)


@pytest.fixture(scope="module")
def features(engine: Engine) -> list[Features]:
    return engine.extract(random_windows(6, longest=5.0, seed=3))


def product(inputs: int, outputs: int, gemm: bool) -> onnx.ModelProto:
    """A graph of one product with a matrix and a sum with a vector."""
    generator = np.random.default_rng(inputs)
    matrix = generator.standard_normal((outputs, inputs) if gemm else (inputs, outputs)).astype(np.float32)
    vector = generator.standard_normal(outputs).astype(np.float32)
    constants = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(vector, "vector")]
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["xm"]), helper.make_node("Add", ["vector", "xm"], ["y"])]
    if gemm:
        nodes = [helper.make_node("Gemm", ["x", "matrix", "vector"], ["y"], transB=1)]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])
        for name, size in (("x", inputs), ("y", outputs))
    ]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("blockwise", [True, False])
@pytest.mark.parametrize("gemm", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 48), (192, 17), (30, 64)])
def test_a_quantised_product_is_near_the_product(
    tmp_path: Path, inputs: int, outputs: int, gemm: bool, blockwise: bool
) -> None:
    model = product(inputs, outputs, gemm)
    x = np.random.default_rng(0).standard_normal((5, inputs)).astype(np.float32)
    expected = InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    quantise(model, blockwise)
    assert {node.op_type for node in model.graph.node} <= {"DynamicQuantizeMatMul", "MatMulNBits", "Add"}
    assert all(tensor.name != "matrix" for tensor in model.graph.initializer)
    onnx.save(model, tmp_path / "product_int8.onnx")
    session = open_session(tmp_path / "product_int8.onnx", threads=1, quantised=True)
    found = session.run(None, {"x": x})[0]
    assert np.linalg.norm(found - expected) < ROUNDING * np.linalg.norm(expected)
    if blockwise:  # rows that share a step do not change one another
        np.testing.assert_allclose(session.run(None, {"x": x[:1]})[0], found[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blockwise", [True, False])
def test_sums_of_the_largest_bytes_do_not_saturate(tmp_path: Path, blockwise: bool) -> None:
    """Two products of 255 and 127 are more than 16 bits hold, in which processors without VNNI add them."""
    model = product(64, 8, gemm=False)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((64, 8), dtype=np.float32), "matrix"))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(8, dtype=np.float32), "vector"))
    quantise(model, blockwise)
    onnx.save(model, tmp_path / "product_int8.onnx")
    session = open_session(tmp_path / "product_int8.onnx", threads=1, quantised=True)
    found = session.run(None, {"x": np.ones((1, 64), dtype=np.float32)})[0]
    np.testing.assert_allclose(found, np.full((1, 8), 64.0), rtol=0.01)


def test_weight_matrices_become_bytes(folder: Path) -> None:
    for name in ("encoder", "decoder"):
        model = onnx.load(folder / "onnx" / f"{name}_int8.onnx")
        constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in ("MatMul", "Gemm"):
                assert not constants & set(node.input), node.name
        assert any(node.op_type in ("DynamicQuantizeMatMul", "MatMulNBits") for node in model.graph.node)


def test_code_tables_become_bytes_and_their_rows_stay_near(folder: Path) -> None:
    encoder = onnx.load(folder / "onnx" / "encoder_int8.onnx")
    types = {tensor.name: tensor.data_type for tensor in encoder.graph.initializer}
    tables = [node.input[0] for node in encoder.graph.node if node.op_type == "Gather" and node.input[0] in types]
    assert {types[name] for name in tables if not name.endswith(".scales")} == {TensorProto.INT8}
    table = np.random.default_rng(0).standard_normal((7, 24)).astype(np.float32)
    table[3] = 0.0
    node = helper.make_node("Gather", ["table", "rows"], ["y"])
    values = [
        helper.make_tensor_value_info("rows", TensorProto.INT64, [None, None]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, 24]),
    ]
    graph = helper.make_graph([node], "lookup", values[:1], values[1:], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    quantise(model, blockwise=False)
    rows = np.array([[3, 0, 6], [1, 1, 5]])
    found = InferenceSession(model.SerializeToString()).run(None, {"rows": rows})[0]
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table[rows]) <= 0.51 * step[rows]).all() and not np.array_equal(found, table[rows])


def test_features_are_those_of_float32(folder: Path, features: list[Features]) -> None:
    found = load_engine(folder, "onnx", threads=1).extract(random_windows(6, longest=5.0, seed=3))
    for ours, theirs in zip(features, found, strict=True):
        np.testing.assert_array_equal(ours.codes, theirs.codes)
        np.testing.assert_array_equal(ours.embedding, theirs.embedding)


def test_most_sentences_are_those_of_float32(folder: Path, engine: Engine, features: list[Features]) -> None:
    exact = load_engine(folder, "onnx", threads=1).generate(features, GREEDY)
    found = engine.generate(features, GREEDY)
    first = [(ours[0], theirs[0]) for ours, theirs in zip(found, exact, strict=True)]
    equal = [(ours.score, theirs.score) for ours, theirs in first if ours.token_ids == theirs.token_ids]
    assert len(equal) >= 4  # random weights have near ties, which rounding decides
    assert max(abs(ours - theirs) for ours, theirs in equal) < 0.1


def test_a_clip_does_not_depend_on_the_clips_beside_it(engine: Engine, features: list[Features]) -> None:
    options = released_options()
    together = engine.generate(features, options)
    assert_candidates_agree([engine.generate([clip], options)[0] for clip in features], together)


def test_without_quantised_graphs_the_command_is_named(tiny_model: Path) -> None:
    words = "has no int8 graphs: a small model gets none, a large one by `enclap models export`; use float32"
    with pytest.raises(ModelError, match=words):
        load_engine(tiny_model, "onnx", precision="int8")
