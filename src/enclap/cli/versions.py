"""What `enclap --version` says: the program, the bundled models, and what runs them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from enclap.hub.integrity import CHECKSUMS
from enclap.hub.resolve import bundled_models
from enclap.version import __version__

ENGINES = ("onnxruntime", "torch")
READING = ("av", "soxr", "tokenizers", "numpy")
DIGITS = 12  # of a model's hash: enough to tell two apart


def version_lines() -> Iterator[str]:
    """The program's version, then a line for each bundled model, each engine, and what else captions depend on."""
    yield f"enclap {__version__}"
    for entry in bundled_models():
        yield f"model {entry.name} {_model_version(entry.folder)}"
    for name in ENGINES:
        yield f"engine {name} {_package_version(name)}"
    packages = ", ".join(f"{name} {_package_version(name)}" for name in READING)
    yield f"with {packages}"
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _model_version(folder: Path) -> str:
    """The beginning of the hash of the folder's list of hashes, which changes with every file of the model."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return "without checksums"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]


def _package_version(name: str) -> str:
    """The installed version, without importing the package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
