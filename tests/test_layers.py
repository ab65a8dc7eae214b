"""The structure of the package, read from the syntax trees: who may import whom, no circles, and budgets of size.

Every package says in its `__init__` what it may import, in a last paragraph "May import: a, b.c." (names inside the
package `enclap`); that line is the table which the imports are held to. Modules beside the packages stand in `MODULES`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "enclap"

MODULES = {
    "version": set(),
    "errors": set(),
    "types": set(),
    "text": set(),
    "prefetch": set(),
    "files": {"errors", "text"},
    "captioner": {"audio", "decoding", "engines", "errors", "hub", "prefetch", "text", "types"},
    "__main__": {"cli"},
}
"""What the modules beside the packages may import; `enclap/__init__.py` names its modules as text, see test_imports."""

RUNTIME = {
    "version",
    "errors",
    "types",
    "text",
    "prefetch",
    "files",
    "captioner",
    "audio",
    "decoding",
    "engines",
    "hub",
}
RUNTIME |= {"output"}
APPLICATIONS = {"cli", "__main__", "data", "evaluation", "extraction", "rating", "serving", "batch", "search"}
TORCH_PACKAGES = {"model", "generation", "export", "convert", "training", "experiments"}
HEAVY = {"torch", "transformers", "pyarrow", "yaml", "accelerate", "safetensors", "onnx", "pycocoevalcap", "matplotlib"}

UPWARD_EDGES = {("engines", "engines.torch"), ("hub.official_release", "convert")}
"""The two ways from the runtime into PyTorch, by name and when asked for: `load_engine` and the converter."""
TORCH_ENGINE = {"engines.torch", "engines.torch_features"}

LONGEST_FUNCTION, LONGEST_FILE = 40, 400
LONG_FUNCTIONS = {
    "cli/batch.py:batch": "one parameter for each option, and the help text that users read",
    "cli/caption.py:caption": "one parameter for each option, and the help text that users read",
    "cli/evaluate.py:evaluate": "one parameter for each option, and the help text that users read",
    "cli/extract.py:extract": "one parameter for each option, and the help text that users read",
    "cli/index.py:index": "one parameter for each option, and the help text that users read",
    "cli/search.py:search": "one parameter for each option, and the help text that users read",
    "cli/tag.py:tag": "one parameter for each option, and the help text that users read",
    "cli/finetune.py:finetune": "one parameter for each option, and the help text that users read",
    "cli/serve.py:serve": "one parameter for each option, and the help text that users read",
    "cli/train.py:train": "one parameter for each option, and the help text that users read",
    "model/captioner.py:forward": "the signature that transformers' generate and trainers call, one line an argument",
}
MOST_PRIVATE_FUNCTIONS_USED_ONCE = 80
"""Of some 1,300 functions."""


@cache
def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(module: str) -> str:
    return module.split(".")[0]


def imports(body: list[ast.stmt], *, everywhere: bool) -> Iterator[str]:
    """Dotted names that statements import: everywhere in them, or only when their module is itself imported."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from imports(getattr(node, field, []), everywhere=everywhere)
            for handler in getattr(node, "handlers", []):
                yield from imports(handler.body, everywhere=everywhere)


def imports_of(path: Path, *, everywhere: bool) -> list[str]:
    return list(imports(tree(path).body, everywhere=everywhere))


@cache
def own_modules_imported(path: Path, *, everywhere: bool) -> set[str]:
    """Modules of enclap that a file imports, by their names inside the package."""
    known = {module_name(other) for other in files()}
    found = set()
    for name in imports_of(path, everywhere=everywhere):
        if name.startswith("enclap."):
            inside = name.removeprefix("enclap.")
            found.add(inside if inside in known else inside.rpartition(".")[0])
    return found - {""}


def packages() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def may_import(name: str) -> set[str]:
    """The table's row: what a package's `__init__` says, or what `MODULES` says of a module beside the packages."""
    if name in MODULES:
        return MODULES[name]
    text = ast.get_docstring(tree(ROOT / name / "__init__.py")) or ""
    lines = re.findall(r"May import:((?:.|\n)*?)\.(?:\n\n|$)", text)
    assert len(lines) == 1, f"enclap/{name}/__init__.py must say once what it may import: 'May import: a, b.'"
    return {item for item in re.split(r"[,\s]+", lines[0]) if item and item != "nothing"}


@pytest.mark.parametrize("path", [path for path in ROOT.rglob("__init__.py") if path.parent != ROOT], ids=module_name)
def test_every_package_says_what_it_holds(path: Path) -> None:
    text = ast.get_docstring(tree(path)) or ""
    assert 40 <= len(text) <= 900, "two or three lines: what the package holds and what it may import"


def test_every_module_has_a_tier() -> None:
    known = RUNTIME | APPLICATIONS | TORCH_PACKAGES
    assert {package(module_name(path)) for path in files()} - {""} <= known
    assert set(MODULES) >= {path.stem for path in ROOT.glob("*.py")} - {"__init__"}


def test_the_table_has_no_circle_and_respects_the_tiers() -> None:
    table = {
        name: may_import(name)
        for name in (*packages(), *(path.stem for path in ROOT.glob("*.py")))
        if name != "__init__"
    }
    for name, allowed in table.items():
        if name in RUNTIME:
            assert allowed <= RUNTIME, f"{name} reaches upwards: {allowed - RUNTIME}"
        if name in TORCH_PACKAGES:
            assert not allowed & {"cli", "serving", "batch", "search"}, name
    try:
        list(TopologicalSorter({name: allowed - {name} for name, allowed in table.items()}).static_order())
    except CycleError as error:
        pytest.fail(f"packages import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", files(), ids=lambda path: module_name(path) or "enclap")
def test_imports_are_those_of_the_table(path: Path) -> None:
    here = module_name(path)
    if not here:
        return  # enclap/__init__.py imports its version alone, which test_imports holds it to
    allowed = may_import(package(here)) | {package(here), "version"}
    strict = here not in TORCH_ENGINE
    for other in own_modules_imported(path, everywhere=True):
        if (here, other) in UPWARD_EDGES or not strict:
            continue
        assert package(other) in allowed, f"{here} imports {other}; its package may import {sorted(allowed)}"
    if package(here) in APPLICATIONS:
        at_import = {package(other) for other in own_modules_imported(path, everywhere=False)}
        assert not at_import & TORCH_PACKAGES, f"{here} imports {sorted(at_import & TORCH_PACKAGES)} when imported"


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {module_name(path): own_modules_imported(path, everywhere=False) for path in files()}
    list(TopologicalSorter({name: others - {name} for name, others in graph.items()}).static_order())


@pytest.mark.parametrize("path", files(), ids=lambda path: module_name(path) or "enclap")
def test_heavy_packages_are_imported_only_where_they_may_be(path: Path) -> None:
    here = module_name(path)
    if package(here) in TORCH_PACKAGES or here in TORCH_ENGINE:
        return
    light = package(here) in RUNTIME or not here
    refused = HEAVY - ({"matplotlib"} if here == "output.plot" else set())
    refused = refused if light or package(here) == "cli" else {"torch", "transformers"}
    found = {name.split(".")[0] for name in imports_of(path, everywhere=light)} & refused
    assert not found, f"{here} imports {sorted(found)}"


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.name}", node


def test_functions_and_files_are_short() -> None:
    long = {name: node.end_lineno - node.lineno + 1 for name, node in functions() if node.end_lineno is not None}
    assert {name for name, lines in long.items() if lines > LONGEST_FUNCTION} == set(LONG_FUNCTIONS)
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FILE} == {}


def test_few_private_functions_are_used_once() -> None:
    """A reader follows a helper that is used once for nothing, unless it hides detail that is worth a name."""
    used_once = []
    for path in files():
        module = tree(path)
        uses: Counter[str] = Counter()
        for node in ast.walk(module):
            if isinstance(node, ast.Name):
                uses[node.id] += 1
            elif isinstance(node, ast.Attribute):
                uses[node.attr] += 1
        private = [node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        used_once += [f"{path.name}:{name}" for name in private if name[:1] == "_" != name[1:2] and uses[name] == 1]
    assert len(used_once) <= MOST_PRIVATE_FUNCTIONS_USED_ONCE, used_once
