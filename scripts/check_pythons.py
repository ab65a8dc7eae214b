"""Tests enclap on every supported Python found here, with the newest and with the lowest packages that it allows.

`make test-pythons` runs it: for each Python it makes two fresh environments under build/pythons, installs the wheel and
no extra, captions the examples and runs the tests that need neither PyTorch nor another extra. pip has no option for
the lowest versions, so they are written into a constraint file: every `>=` of pyproject.toml becomes `==`.

The Python that runs this script has the extra `dev`: it builds the wheel and the tiny model that the tests read.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "pythons"
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis", "hatchling")
# fmt: off
EXTRA_MODULES = frozenset({
    "torch", "transformers", "accelerate", "safetensors", "pyarrow", "yaml", "onnx", "matplotlib", "pycocoevalcap",
    "fastapi", "uvicorn", "gradio", "multipart", "mcp", "ray", "lancedb", "zensical", "mkdocstrings",
    "openai", "prometheus_client", "playwright", "krippendorff", "PIL", "axe_playwright_python",
})
# fmt: on
"""What only an extra brings: a test file that imports one of them is not a runtime test."""
CORE = ("test_captioner", "test_decoding", "test_formats", "test_mini", "test_read", "test_window")
"""The runtime tests that --core runs: a recording's whole way to a written caption, in a minute or two."""
NEWEST, LOWEST = "newest", "lowest"
STEP_SECONDS = 1500  # the longest that one step may take
SHOWN_LINES = 60  # of the log of a step that failed


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment under test: a Python version such as 3.13, its interpreter, "newest" or "lowest"."""

    version: str
    interpreter: Path
    packages: str
    core: bool = False

    @property
    def folder(self) -> Path:
        """The virtual environment."""
        return WORK / f"{self.version}-{self.packages}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def beside(self, suffix: str) -> Path:
        """A file beside the environment: `.log` what its steps printed, `.txt` its constraints."""
        return self.folder.with_name(self.folder.name + suffix)


def project() -> dict[str, object]:
    """The table `project` of pyproject.toml."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def supported_versions() -> list[str]:
    """The Python versions that the classifiers name, oldest first: ["3.11", ...]."""
    classifiers = project()["classifiers"]
    assert isinstance(classifiers, list)
    found = [
        match for text in classifiers if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text))
    ]
    return sorted((match[1] for match in found), key=lambda version: int(version.split(".")[1]))


def find_python(version: str) -> Path | None:
    """The interpreter of that version: `python3.X` on PATH, or the newest that pyenv has; None when there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(pyenv.glob(f"{version}.*"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    candidates = [shutil.which(f"python{version}"), *(path / "bin" / "python" for path in reversed(installed))]
    for candidate in filter(None, candidates):
        question = [str(candidate), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(question, capture_output=True, text=True, check=False)  # a pyenv shim may refuse
        if answer.stdout.strip() == version:
            return Path(candidate)
    return None


def lowest_versions(requirements: Sequence[str], version: str) -> list[str]:
    """The requirements that hold for a Python version as `name==lowest`; ValueError for one without a `>=`."""
    lowest = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"python_version": version}):
            continue
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"pyproject.toml: {text!r} has no single lower bound (>=)")
        lowest.append(f"{requirement.name}=={bounds[0]}")
    return lowest


def runtime_tests() -> list[Path]:
    """The test files that need no extra, judged by what they, their helpers and the modules they import import."""
    return [path for path in sorted((ROOT / "tests").glob("test_*.py")) if not needs_extra(path)]


def needs_extra(path: Path, seen: set[Path] | None = None) -> bool:
    """True when importing the file, or for a test calling its functions, imports a module of an extra."""
    seen = set() if seen is None else seen
    seen.add(path)
    in_functions = path.parent.name == "tests"
    for name in _imports_of(path, in_functions):
        if name.split(".")[0] in EXTRA_MODULES:
            return True
        for found in _module_files(name):
            if found not in seen and needs_extra(found, seen):
                return True
    return False


@cache
def _imports_of(path: Path, in_functions: bool) -> tuple[str, ...]:
    return tuple(_imported(ast.parse(path.read_text(encoding="utf-8")), in_functions))


def _imported(tree: ast.AST, in_functions: bool) -> Iterator[str]:
    """Dotted names that a syntax tree imports, `a.b.c` for `from a.b import c`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imported(node, in_functions)


def _module_files(name: str) -> Iterator[Path]:
    """The files of this project that importing a dotted name runs."""
    parts = name.split(".")
    for folder in (ROOT / "src", ROOT / "tests", ROOT / "benchmarks"):
        for length in range(1, len(parts) + 1):
            stem = folder.joinpath(*parts[:length])
            yield from (path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file())


def check(environment: Environment, wheel: Path, tiny_model: Path) -> str:
    """ "ok", or the step that failed; the output of every step stands in the environment's log file."""
    log = environment.beside(".log")
    log.write_bytes(b"")
    for step, command in _steps(environment, wheel):
        settings = os.environ | {"ENCLAP_TINY_MODEL": str(tiny_model), "PYTHONPATH": ""}  # what is installed, not src/
        with log.open("ab") as output:
            output.write(f"$ {' '.join(map(str, command))}\n".encode())
            output.flush()
            try:
                done = subprocess.run(
                    command, cwd=ROOT, env=settings, stdout=output, stderr=output, timeout=STEP_SECONDS, check=False
                )
                code = done.returncode
            except subprocess.TimeoutExpired:
                code = -1
        if code != 0:
            print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]))
            return f"FAILED at {step}, see {log.relative_to(ROOT)}"
    return "ok, " + _count_of_tests(log)


def _steps(environment: Environment, wheel: Path) -> Iterator[tuple[str, list[str | Path]]]:
    """Name and command of each step."""
    table = project()
    dependencies, extras = table["dependencies"], table["optional-dependencies"]
    assert isinstance(dependencies, list) and isinstance(extras, dict)
    yield "venv", [environment.interpreter, "-m", "venv", "--clear", environment.folder]
    pip: list[str | Path] = [environment.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--only-binary", ":all:"]
    if environment.packages == LOWEST:
        constraints = environment.beside(".txt")
        constraints.write_text("\n".join(lowest_versions(dependencies, environment.version)) + "\n", encoding="utf-8")
        pip += ["--constraint", constraints]
    yield "install", [*pip, wheel]
    yield "demo", [environment.folder / "bin" / "enclap", "caption", "examples"]
    tools = [text for text in extras["dev"] if Requirement(text).name in TEST_TOOLS]
    yield "install test tools", [*pip, *tools]
    yield "list of packages", [environment.python, "-m", "pip", "list", "--disable-pip-version-check"]
    tests = [path.relative_to(ROOT) for path in runtime_tests() if not environment.core or path.stem in CORE]
    left_out = ("train", "shared", "full", "gpu", "slow", "soak", "browser", "spice")
    selection = " and ".join(f"not {marker}" for marker in left_out)
    yield "tests", [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", selection, *tests]


def _count_of_tests(log: Path) -> str:
    counts = re.findall(r"^(?:=+ )?(\d+ passed.*? in [\d.]+s)", log.read_text(encoding="utf-8"), re.MULTILINE)
    return counts[-1] if counts else "no test counted"


def _build() -> tuple[Path, Path]:
    """The wheel and the tiny model folder, both made anew."""
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    shutil.rmtree(WORK / "tiny", ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(WORK / "dist")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    program = (
        f"from pathlib import Path; from tiny import tiny_model_folder; tiny_model_folder(Path({str(WORK / 'tiny')!r}))"
    )
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    subprocess.run([sys.executable, "-c", program], env=settings, check=True, capture_output=True)
    (wheel,) = (WORK / "dist").glob("*.whl")
    return wheel, WORK / "tiny"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every environment passes, 1 when one fails, 2 when no supported Python is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "versions", nargs="*", help='such as 3.13, or "newest" for the newest that is here; default: all'
    )
    parser.add_argument("--core", action="store_true", help="only the tests of the way from a recording to a caption")
    parser.add_argument("--packages", choices=(NEWEST, LOWEST), action="append", help="default: both")
    options = parser.parse_args(arguments)
    found = {version: find_python(version) for version in supported_versions()}
    here = [version for version, path in found.items() if path]
    wanted = {here[-1] if version == NEWEST and here else version for version in options.versions or here}
    if unknown := wanted - set(here) or (set() if here else {"any of " + ", ".join(found)}):
        print(f"error: not installed: {', '.join(sorted(unknown))}; here: {', '.join(here) or 'none'}", file=sys.stderr)
        return 2
    WORK.mkdir(parents=True, exist_ok=True)
    wheel, tiny_model = _build()
    failed = False
    for version in sorted(wanted, key=here.index):
        for packages in options.packages or (NEWEST, LOWEST):
            start = time.monotonic()
            interpreter = found[version]
            assert interpreter is not None
            outcome = check(Environment(version, interpreter, packages, options.core), wheel, tiny_model)
            failed |= outcome.startswith("FAILED")
            print(f"Python {version}, {packages} packages: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    missing = [version for version, path in found.items() if path is None]
    print(
        f"Not installed here, so not tried: Python {', '.join(missing)}."
        if missing
        else "No supported Python is missing."
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
