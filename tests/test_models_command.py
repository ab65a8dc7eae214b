"""`enclap models`: cards and graphs of folders that are there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import Run
from enclap.convert import convert
from enclap.hub import integrity


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    integrity.write_checksums(copy)
    return copy


def test_graphs_are_made_again_from_the_weights(enclap: Run, folder: Path, recording: Callable[..., Path]) -> None:
    sound = recording()
    before = enclap("caption", sound, "--model", folder, "--engine", "onnx").stdout
    for path in (folder / "onnx").iterdir():
        path.write_bytes(b"worn out")
    done = enclap("models", "export", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder / 'onnx'}\n", "")
    integrity.check_folder(folder, hashes=True)
    assert "onnx/encoder.onnx" in integrity.read_checksums(folder)
    assert enclap("caption", sound, "--model", folder, "--engine", "onnx").stdout == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_an_export_that_fails_leaves_the_graphs_that_were_there(
    enclap: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(scratch: Path) -> None:
        (scratch / "onnx").mkdir()
        (scratch / "onnx" / "encoder.onnx").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "export_folder", full)
    done = enclap("models", "export", folder)
    assert (done.returncode, done.stderr) == (
        3,
        f"enclap: {folder}: no room left on the disk; free some and try again\n",
    )
    integrity.check_folder(folder, hashes=True)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]


def test_a_folder_without_weights_cannot_be_exported(enclap: Run, folder: Path) -> None:
    (folder / "codec" / "model.safetensors").unlink()
    done = enclap("models", "export", folder)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "the codec cannot be loaded" in done.stderr
    assert (folder / "onnx" / "encoder.onnx").is_file()


def test_a_folder_of_a_newer_format_is_not_exported(enclap: Run, folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    (folder / integrity.CHECKSUMS).unlink()
    done = enclap("models", "export", folder)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "format_version 2 is not known" in done.stderr


def test_a_card_is_shown_without_terminal_escapes(enclap: Run, folder: Path) -> None:
    (folder / integrity.CHECKSUMS).unlink()
    (folder / "README.md").write_text("# A model\nred \x1b[31m words\n")
    done = enclap("models", "card", folder)
    assert (done.returncode, done.stdout) == (0, "# A model\nred \\x1b[31m words\n")


def test_the_bundled_card_is_shown_whole(enclap: Run) -> None:
    from enclap.hub.resolve import BUNDLED_FOLDER

    card = (BUNDLED_FOLDER / "mini" / "README.md").read_text(encoding="utf-8")
    assert enclap("models", "card", "mini").stdout.splitlines() == card.splitlines()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "absent: no such model; give a folder, a hub id, official or a bundled name (mini)"),
        ("no/card", "no/card: not on this machine yet; fetch it with `enclap models pull no/card`"),
    ],
)
def test_a_card_of_nothing(enclap: Run, name: str, words: str) -> None:
    done = enclap("models", "card", name)
    assert (done.returncode, done.stderr) == (3, f"enclap: {words}\n")


def test_a_folder_without_a_card(enclap: Run, folder: Path) -> None:
    (folder / integrity.CHECKSUMS).unlink()
    (folder / "README.md").unlink()
    assert enclap("models", "card", folder).stderr == f"enclap: {folder}: has no card (README.md)\n"


def test_a_bundled_model_is_verified_by_pull(enclap: Run) -> None:
    done = enclap("models", "pull", "mini")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("mini\n")
    assert enclap("models", "pull", "mini", "--text-tower").returncode == 2
