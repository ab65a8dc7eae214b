"""Model names to folders, and the checks that a folder is whole."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from enclap.errors import ModelError
from enclap.hub import integrity
from enclap.hub import resolve as hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "small"
    (made / "onnx").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "enclap"}')
    (made / "onnx" / "encoder.onnx").write_bytes(b"graph")
    integrity.write_checksums(made)
    return made


def test_a_folder_is_its_own_name(folder: Path) -> None:
    assert hub.find_model(folder) == folder
    assert hub.find_model(str(folder)) == folder


def test_bundled_models_are_found_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "BUNDLED_FOLDER", folder.parent)
    assert hub.find_model("small") == folder
    (entry,) = hub.bundled_models()
    assert (entry.name, entry.folder, entry.size) == ("small", folder, 24 + 5)


def test_checksums_are_those_of_sha256sum(folder: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.fail("sha256sum is missing; install coreutils")
    checked = subprocess.run(["sha256sum", "--check", "--strict", integrity.CHECKSUMS], cwd=folder, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_sizes_are_checked_always_and_contents_on_request(folder: Path) -> None:
    graph = folder / "onnx" / "encoder.onnx"
    graph.write_bytes(b"GRAPH")
    integrity.check_folder(folder)
    with pytest.raises(ModelError, match=r"encoder\.onnx: wrong checksum"):
        integrity.check_folder(folder, hashes=True)
    graph.write_bytes(b"cut")
    with pytest.raises(ModelError, match="has 3 bytes where 5 belong"):
        hub.find_model(folder)
    graph.unlink()
    with pytest.raises(ModelError, match="is missing"):
        hub.find_model(folder)


@pytest.mark.parametrize("content", ["{", "[]", "\xff\xfe"])
def test_a_damaged_configuration_is_named(folder: Path, content: str) -> None:
    (folder / integrity.CHECKSUMS).unlink()
    (folder / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json: damaged"):
        hub.find_model(folder)


@pytest.mark.parametrize("line", ["nonsense", "0" * 64 + "  ../outside", "0" * 64 + "  config.json"])
def test_a_damaged_checksum_file_is_named(folder: Path, line: str) -> None:
    (folder / integrity.CHECKSUMS).write_text(f"# 3 ../outside\n{line}\n")
    with pytest.raises(ModelError, match="cannot be read"):
        hub.find_model(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown", "no such model"),
        ("../models", "no such model"),
        ("a/b/c", "no such model"),
        ("", "no such model"),
        ("red\x1b[31m", r"red\\x1b\[31m: no such model"),
    ],
)
def test_names_that_lead_nowhere(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        hub.find_model(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a model folder, config\.json is missing"):
        hub.find_model(tmp_path)


def test_a_hub_model_that_is_not_cached_says_so_offline(tmp_path: Path) -> None:
    import sys

    script = "from enclap.hub.resolve import find_model\nfind_model('nobody/nothing')"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "ModelError: nobody/nothing: is not in the local cache" in done.stderr.splitlines()[-1]
