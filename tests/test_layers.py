"""The tiers of the project, read from the syntax trees: nothing imports what stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "enclap"
RUNTIME_ORDER = [
    "version",
    "types",
    "errors",
    "names",
    "folders",
    "fetching",
    "releases",
    "hub",
    "audio",
    "decoding",
    "engines",
    "formats",
    "captioner",
]
APPLICATIONS = {"cli", "data", "evaluation", "serving", "batch"}
TORCH_ROOMS = {"model", "training"}
HEAVY = {"torch", "transformers", "pyarrow", "yaml", "accelerate", "safetensors", "onnx", "pycocoevalcap", "matplotlib"}
ENGINE_OF_TORCH = "engines/torch.py"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Dotted names that a file imports: everywhere in it, or only when it is itself imported."""
    return _imports(ast.parse(path.read_text()).body, everywhere)


def _imports(body: list[ast.stmt], everywhere: bool) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(node, field, []), everywhere)
            for handler in getattr(node, "handlers", []):
                yield from _imports(handler.body, everywhere)


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def rooms_imported(path: Path, *, everywhere: bool) -> set[str]:
    names = (name.split(".") for name in imports(path, everywhere=everywhere))
    return {parts[1] for parts in names if parts[0] == "enclap" and len(parts) > 1}


def test_every_file_has_a_room_that_is_known() -> None:
    known = {*RUNTIME_ORDER, *APPLICATIONS, *TORCH_ROOMS, "__init__"}
    assert {room(path) for path in modules()} <= known


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_respect_the_tiers(path: Path) -> None:
    here, name = room(path), path.relative_to(PACKAGE).as_posix()
    if here == "__init__" or name == ENGINE_OF_TORCH:
        return
    at_import = rooms_imported(path, everywhere=False)
    ever = rooms_imported(path, everywhere=True)
    if here in RUNTIME_ORDER:
        lower = set(RUNTIME_ORDER[: RUNTIME_ORDER.index(here) + 1])
        assert ever <= lower, f"{name} imports {sorted(ever - lower)}"
    if here in APPLICATIONS:
        assert not at_import & TORCH_ROOMS, f"{name} imports {sorted(at_import & TORCH_ROOMS)} when imported"
    if here in TORCH_ROOMS:
        assert "cli" not in ever


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_only_where_they_may_be(path: Path) -> None:
    here, name = room(path), path.relative_to(PACKAGE).as_posix()
    if here in TORCH_ROOMS or name == ENGINE_OF_TORCH:
        return
    light = here in RUNTIME_ORDER
    refused = HEAVY if light or here == "cli" else {"torch", "transformers"}
    found = {imported.split(".")[0] for imported in imports(path, everywhere=light)} & refused
    assert not found, f"{name} imports {sorted(found)}"
