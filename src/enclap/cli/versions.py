"""What `enclap --version` says: the program, the bundled models, and what runs them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

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
        listed = entry.folder / CHECKSUMS  # its hash changes with every file of the model
        is_listed = listed.is_file()
        digest = hashlib.sha256(listed.read_bytes()).hexdigest()[:DIGITS] if is_listed else "without checksums"
        yield f"model {entry.name} {digest}"
    for name in ENGINES:
        yield f"engine {name} {_package_version(name)}"
    packages = ", ".join(f"{name} {_package_version(name)}" for name in READING)
    yield f"with {packages}"
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _package_version(name: str) -> str:
    """The installed version, without importing the package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
