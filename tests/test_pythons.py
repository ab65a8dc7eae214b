"""Which Pythons and packages enclap is tested with: the bounds of pyproject.toml, and the tests that need no extra."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import check_pythons

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"data", "train", "eval", "serve", "batch", "ray", "search", "plot", "docs", "all", "dev"}
BROKEN_BY_A_MAJOR_VERSION = {"numpy", "av", "huggingface_hub", "pydantic", "transformers", "pyyaml", "gradio", "mcp"}


def requirements(extra: str | None = None) -> list[Requirement]:
    table = check_pythons.project()
    lines = table["dependencies"] if extra is None else table["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def test_the_extras_are_those_that_the_documents_name() -> None:
    assert set(check_pythons.project()["optional-dependencies"]) == EXTRAS


def test_all_holds_every_extra_for_users() -> None:
    (every,) = requirements("all")
    assert every.extras == EXTRAS - {"all", "docs", "dev"}


@pytest.mark.parametrize("version", check_pythons.supported_versions())
def test_every_supported_python_has_one_range_for_each_package(version: str) -> None:
    lowest = check_pythons.lowest_versions([str(item) for item in requirements()], version)
    names = [line.split("==")[0] for line in lowest]
    assert sorted(names) == sorted({item.name for item in requirements()})


def test_a_lower_bound_is_read_for_the_right_python() -> None:
    lines = ["numpy>=1.26,<3; python_version < '3.13'", "numpy>=2.1; python_version >= '3.13'", "rich>=13"]
    assert check_pythons.lowest_versions(lines, "3.12") == ["numpy==1.26", "rich==13"]
    assert check_pythons.lowest_versions(lines, "3.14") == ["numpy==2.1", "rich==13"]
    with pytest.raises(ValueError, match="'rich<15' has no single lower bound"):
        check_pythons.lowest_versions(["rich<15"], "3.12")


def test_what_a_major_version_has_broken_before_has_an_upper_bound() -> None:
    found = {item.name: item for extra in (None, "train", "serve") for item in requirements(extra)}
    assert set(found) >= BROKEN_BY_A_MAJOR_VERSION
    for name in BROKEN_BY_A_MAJOR_VERSION:
        upper = [Version(bound.version) for bound in found[name].specifier if bound.operator == "<"]
        assert [(bound.minor, bound.micro) for bound in upper] == [(0, 0)], name


def test_the_oldest_supported_python_is_the_oldest_that_pip_accepts() -> None:
    assert check_pythons.project()["requires-python"] == f">={check_pythons.supported_versions()[0]}"


def test_runtime_tests_are_those_that_import_no_extra() -> None:
    names = {path.name for path in check_pythons.runtime_tests()}
    assert {"test_captioner.py", "test_cli_caption.py", "test_read.py", "test_resume.py", "test_docs.py"} <= names
    assert not names & {"test_export.py", "test_losses.py", "test_training_stages.py", "test_model_reference.py"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("import numpy\n", False),
        ("import torch\n", True),
        ("def test() -> None:\n    from transformers import BartConfig\n", True),
        ("from enclap.model import EnclapConfig\n", True),
        ("from tiny import tiny_model_folder\n", True),
        ("from cli import Run\n", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n", False),
    ],
)
def test_a_test_file_is_judged_by_all_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: bool
) -> None:
    path = tmp_path / "tests" / "test_new.py"
    path.parent.mkdir()
    path.write_text(content)
    assert check_pythons.needs_extra(path) is expected


def test_a_python_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_pythons.main(["3.99"]) == 2
    assert "error: not installed: 3.99; here: 3." in capsys.readouterr().err
