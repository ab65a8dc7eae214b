"""Engines run a model folder: onnxruntime by default, PyTorch as the reference; all give the same sentences.

May import: audio, decoding, errors, hub, text, types.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from enclap.engines.base import Engine
from enclap.errors import MissingExtra, ModelError, UsageError

__all__ = ["Engine", "load_engine"]


def load_engine(
    folder: str | Path,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
) -> Engine:
    """An engine for a model folder; ModelError when the folder is incomplete, damaged or of an unknown version.

    engine: "onnx", "torch" or "auto" (onnx where the folder holds its graphs, else torch). threads: None leaves the
    number of threads to the engine's library.
    """
    path = Path(folder)
    if engine == "auto":
        engine = "onnx" if (path / "onnx").is_dir() or not _has_torch_weights(path) else "torch"
    if engine == "onnx":
        from enclap.engines.onnx.engine import OnnxEngine

        return OnnxEngine(path, device=device, precision=precision, threads=threads)
    if engine == "torch":
        if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
            raise MissingExtra("the torch engine", "train")
        from enclap.engines.torch import TorchEngine

        return TorchEngine(path, device=device, precision=precision, threads=threads)
    raise UsageError(f"unknown engine {engine!r}; use auto, onnx or torch")


def _has_torch_weights(path: Path) -> bool:
    if not path.is_dir():
        raise ModelError(f"{path}: no such model folder; check the name, or see `enclap models list`")
    return (path / "model.safetensors").is_file()
