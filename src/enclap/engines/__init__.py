"""Engines run a model folder: onnxruntime by default, PyTorch as the reference; all give the same sentences.

May import: audio, decoding, errors, hub, text, types.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from enclap.engines.base import Engine
from enclap.engines.devices import device_names, usable_cores
from enclap.engines.parallel import ParallelEngine
from enclap.errors import MissingExtra, UsageError
from enclap.hub.layout import GRAPHS, WEIGHTS

__all__ = ["ENGINES", "MOST_THREADS", "REFERENCE", "Engine", "load_engine"]

MOST_THREADS = 512
"""More are slower on any machine, and a hundred thousand never get to work."""


def load_engine(
    folder: str | Path,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
) -> Engine:
    """An engine for a model folder; ModelError when the folder is incomplete, damaged or of an unknown version.

    engine: a name in ENGINES, or "auto" (onnx where the folder holds its graphs, else torch). device: "auto" takes the
    first accelerator that the engine can use; "cuda:0,1" takes both, which share each batch. threads: of the processor,
    1 to MOST_THREADS, None for all; several devices divide them. Raises UsageError for a choice that there is not.
    """
    path = Path(folder)
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads: {threads}; give 1 to {MOST_THREADS}, or None for all cores")
    if engine == "auto":
        has_weights_only = (path / WEIGHTS).is_file() and not (path / GRAPHS).is_dir()
        engine = REFERENCE if has_weights_only else DEFAULT
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}; use auto, {' or '.join(ENGINES)}")
    kind, names = ENGINES[engine](), device_names(device)
    if len(names) == 1:
        return kind(path, device=names[0], precision=precision, threads=threads)
    threads = max(1, (threads or usable_cores()) // len(names))
    return ParallelEngine([kind(path, device=name, precision=precision, threads=threads) for name in names])


def _onnx_engine() -> Callable[..., Engine]:
    from enclap.engines.onnx.engine import OnnxEngine

    return OnnxEngine


def _torch_engine() -> Callable[..., Engine]:
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        raise MissingExtra("the torch engine", "train")
    from enclap.engines.torch import TorchEngine

    return TorchEngine


ENGINES: dict[str, Callable[[], Callable[..., Engine]]] = {"onnx": _onnx_engine, "torch": _torch_engine}
"""By name: what imports an engine and gives its class. See `Engine` for how to add one."""
DEFAULT, REFERENCE = "onnx", "torch"
"""The engine that `auto` prefers, and the one that all others are held to."""
