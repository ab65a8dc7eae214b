"""The wheel and the source archive: what they hold, and that the wheel works away from the clone.

Built offline with the hatchling that is installed, without build isolation, from a copy of the tracked files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from enclap.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PAGE_EXAMPLES = ("siren.ogg", "steam_whistle.ogg", "long_scene.mp3")  # test_serving_page holds the page to them
LARGEST_WHEEL = 40_000_000  # bytes; the bundled model has 30 MB at most


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The paths of a freshly built (wheel, source archive)."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "sdist", "-t", "wheel"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def package_files() -> set[str]:
    """Every file of the package in this clone, as it should stand in the wheel; recipes and examples go with it."""
    source = ROOT / "src"
    recipes = {f"enclap/training/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    examples = {f"enclap/serving/examples/{name}" for name in PAGE_EXAMPLES}
    return (
        recipes
        | examples
        | {
            path.relative_to(source).as_posix()
            for path in (source / "enclap").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
    )


def test_the_wheel_holds_the_whole_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    wheel, _ = archives
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"enclap-{__version__}.dist-info/")}
    assert names == package_files()
    assert "enclap/py.typed" in names
    assert wheel.stat().st_size < LARGEST_WHEEL


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "README.md",
        "ATTRIBUTION.csv",
    ],
)
def test_the_wheel_carries_the_bundled_model(archives: tuple[Path, Path], name: str) -> None:
    with zipfile.ZipFile(archives[0]) as archive:
        assert f"enclap/bundled/mini/{name}" in archive.namelist()


def test_the_metadata_says_what_it_is_and_asks_for_the_runtime_alone(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as archive:
        folder = f"enclap-{__version__}.dist-info"
        metadata = HeaderParser().parsestr(archive.read(f"{folder}/METADATA").decode())
        assert "enclap = enclap.cli.main:main" in archive.read(f"{folder}/entry_points.txt").decode()
        assert {f"{folder}/licenses/LICENSE", f"{folder}/licenses/NOTICE"} <= set(archive.namelist())
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT AND CC-BY-SA-4.0"
    lines = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    runtime = {Requirement(line).name for line in lines}
    assert not runtime & {"torch", "transformers", "pyarrow", "pyyaml", "safetensors"}
    assert {"numpy", "av", "soxr", "onnxruntime", "tokenizers"} <= runtime


def test_the_source_archive_can_run_the_tests_and_build_the_wheel(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    wanted = {
        "pyproject.toml",
        "LICENSE",
        "NOTICE",
        "CHANGELOG.md",
        "README.md",
        "Makefile",
        "constraints.txt",
        "CONTRIBUTING.md",
    }
    in_wheel_alone = ("enclap/training/recipes/", "enclap/serving/examples/")  # in the archive: recipes/ and examples/
    wanted |= {f"src/{name}" for name in package_files() if not name.startswith(in_wheel_alone)}
    wanted |= {"tests/test_packaging.py", "examples/rebuild.py", "examples/siren.ogg", "benchmarks/speed.py"}
    wanted |= {"docs/licences.md", "scripts/check_pythons.py", "CITATION.cff"}
    assert wanted <= names
    assert not any(name.startswith((".venv", "build/", "dist/")) or "__pycache__" in name for name in names)
    assert not any(name.endswith((".pt", ".pth", ".whl")) for name in names), "others' weights are never given away"


def test_the_wheel_works_outside_the_clone(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed into an environment of its own, which borrows the dependencies of this one."""
    environment = tmp_path / "an environment"
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    site = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(archives[0]) as archive:
        archive.extractall(site)
    program = "import sys; from enclap.cli.main import main; sys.argv[0] = 'enclap'; main()"
    borrowed = os.pathsep.join(entry for entry in sys.path if entry.endswith("site-packages"))
    # Appended to sys.path, .pth files are not read: this clone's editable installation stays out of sight.
    program = f"import sys; sys.path += {borrowed.split(os.pathsep)!r}; " + program
    command = [
        str(environment / "bin" / "python"),
        "-I",
        "-c",
        program,
        "caption",
        str(ROOT / "examples" / "fire.wav"),
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
