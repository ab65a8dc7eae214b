"""What a newcomer reads when something is missing: `make` in a clone, with tools taken away."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("sh", "sed", "awk", "cut", "cksum", "rm", "find", "touch", "cat")
ANSWERS_AS = """#!/bin/sh
case "$*" in
  *"%d.%d"*) echo {version} ;;
  *"sys.exit(sys.version_info"*) exit {too_old} ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with a space in its name that holds what make reads, and no .venv."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def make(clone: Path, *arguments: str, python: str | None = None) -> subprocess.CompletedProcess[str]:
    """`make` with a PATH of its own, on which python3 is absent or the given script."""
    tools = clone.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None, f"this test needs {name}"
        (tools / name).unlink(missing_ok=True)
        (tools / name).symlink_to(found)
    if python is not None:
        (tools / "python3").write_text(python, encoding="utf-8")
        (tools / "python3").chmod(0o755)
    program = shutil.which("make")
    assert program is not None, "this test needs make"
    environment = {"PATH": str(tools), "HOME": os.environ.get("HOME", str(clone))}
    command = [program, *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def test_plain_make_lists_every_target_that_is_meant_for_users(clone: Path) -> None:
    result = make(clone)
    assert result.returncode == 0, result.stderr
    documented = re.findall(r"^([a-z-]+):.*## ", (clone / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test", "test-pythons", "test-shared", "mini", "wheel", "clean"} <= set(documented)
    assert all(f"make {target}" in result.stdout for target in documented)


@pytest.mark.parametrize("target", ["demo", "test", "wheel"])
def test_without_python_it_says_what_to_install(clone: Path, target: str) -> None:
    result = make(clone, target)
    assert result.returncode != 0
    assert "enclap needs Python 3.11 or newer; found: none" in result.stderr
    assert f"make PYTHON=/path/to/python3.12 {target}" in result.stderr


def test_an_old_python_is_named_with_its_version(clone: Path) -> None:
    result = make(clone, "demo", python=ANSWERS_AS.format(version="3.9", too_old=1))
    assert result.returncode != 0
    assert "needs Python 3.11 or newer; found: python3 (3.9)" in result.stderr


def test_a_python_without_venv_gets_the_name_of_the_package_that_brings_it(clone: Path) -> None:
    result = make(clone, "demo", python=ANSWERS_AS.format(version="3.12", too_old=0))
    assert result.returncode != 0
    assert "lacks the modules venv and ensurepip" in result.stderr
    assert "apt install python3.12-venv" in result.stderr


def test_a_python_that_was_named_and_does_not_run_is_not_replaced_by_another(clone: Path) -> None:
    fine = ANSWERS_AS.format(version="3.12", too_old=0)
    result = make(clone, "demo", "PYTHON=/nowhere/python", python=fine)
    assert result.returncode != 0
    assert "found: none (looked for: /nowhere/python)" in result.stderr


def test_missing_recordings_and_references_are_named_before_anything_is_installed(clone: Path) -> None:
    training, shared = make(clone, "mini"), make(clone, "test-shared")
    assert training.returncode != 0 and shared.returncode != 0
    assert "no recordings at ../shared/data/sounds" in training.stderr
    assert "make mini RECORDINGS=/path/to/sounds" in training.stderr
    assert "no folder ../shared" in shared.stderr
    assert not (clone / ".venv").exists()


def test_clean_keeps_a_training_that_took_hours(clone: Path) -> None:
    for folder in ("src", "tests", "benchmarks", "examples", "scripts", "dist", "build/mini", "build/site"):
        (clone / folder).mkdir(parents=True)
    assert make(clone, "clean").returncode == 0
    assert (clone / "build" / "mini").exists()
    assert not (clone / "dist").exists() and not (clone / "build" / "site").exists()
