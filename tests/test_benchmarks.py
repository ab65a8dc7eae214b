"""Figures travel from their measurement to the documents unchanged, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MARKERS = "<!-- numbers:begin -->\nold\n<!-- numbers:end -->"
SAVE = """
import sys
from pathlib import Path
from tables import Table, save
for order, title in ((2, "Second"), (1, "First | one")):
    table = Table(title, ("what", "figure"), (("a|b", "7 s"),), "make x", "2026-01-31", "2 cores", order)
    save(table, title[0], Path(sys.argv[1]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(str(BENCHMARKS / "report.py"), "--results", str(folder / "results"), *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result = run("-c", SAVE, str(tmp_path / "results"))
    assert result.returncode == 0, result.stderr
    return tmp_path


def test_stored_tables_fill_a_document_in_their_order_and_only_between_the_markers(folder: Path) -> None:
    document = folder / "README.md"
    document.write_text(f"before\n{MARKERS}\nafter\n", encoding="utf-8")
    assert report(folder, "--check", str(document)).returncode == 1
    assert "old" in document.read_text(encoding="utf-8")
    assert report(folder, str(document)).returncode == 0
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- numbers:begin -->\n**First") and text.endswith("<!-- numbers:end -->\nafter\n")
    assert text.index("First") < text.index("Second")
    assert "| a\\|b | 7 s |" in text
    assert "Measured 2026-01-31 with `make x` on 2 cores." in text
    assert report(folder, "--check", str(document)).returncode == 0


@pytest.mark.parametrize("content", ["no markers", MARKERS + MARKERS, "<!-- numbers:end --><!-- numbers:begin -->"])
def test_a_document_without_one_pair_of_markers_is_left_alone(folder: Path, content: str) -> None:
    document = folder / "README.md"
    document.write_text(content, encoding="utf-8")
    result = report(folder, str(document), str(folder / "missing.md"))
    assert result.returncode == 1
    assert "it needs <!-- numbers:begin -->" in result.stderr and "missing.md" in result.stderr
    assert document.read_text(encoding="utf-8") == content


def test_checksums_of_a_model_folder_follow_its_card(folder: Path) -> None:
    from enclap.hub.integrity import check_folder, write_checksums

    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "README.md").write_text(MARKERS, encoding="utf-8")
    write_checksums(folder)
    assert report(folder, str(folder / "README.md")).returncode == 0
    check_folder(folder, hashes=True)


def test_a_damaged_table_is_named(folder: Path) -> None:
    (folder / "results" / "bad.json").write_text('{"schema": 7}', encoding="utf-8")
    result = report(folder, str(folder / "README.md"))
    assert result.returncode != 0
    assert "bad.json" in result.stderr
