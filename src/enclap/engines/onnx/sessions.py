"""onnxruntime sessions over a model folder's graphs, each loaded when it is first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from enclap.engines.onnx.graph_sizes import require_sizes
from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.hub.layout import INT8_SUFFIX, graph_file
from enclap.hub.model_folder import ModelFolder
from enclap.text import first_line, printable

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
SILENT = 4
"""onnxruntime's log severity that lets only fatal faults through; the others reach the caller as exceptions."""


@cache
def share_memory() -> None:
    """Let all sessions of this process take their buffers from one arena: stages run one after the other, so what one
    has released serves the next, and new memory, which is slow to touch, is seldom needed.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # the numbers: no limit; grow by powers of two; onnxruntime's own choice twice
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(0, 0, -1, -1))


def open_session(path: Path, threads: int, providers: Sequence[str] = (CPU,), *, quantised: bool = False) -> Any:
    """A session over the graph at `path`; ModelError when it is damaged.

    threads: per operator, 0 for all cores. quantised: whether the graph multiplies 8-bit matrices.
    """
    share_memory()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    # The export has simplified the graphs already; the next level costs more at load than a short file gains.
    # But 8-bit sums saturate on processors without VNNI unless the weights are made unsigned, and the rule that does
    # so belongs to that level. In base it takes 0.25 s and 30 MB of the encoder's load; the level's other rules take
    # 0.02 s, so leaving them out gains nothing. Where there is VNNI the rule does nothing.
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if quantised else levels.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Threads that wait by spinning make a decoding step on a busy machine four times slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime's own types share no base but this
        fault = f"damaged or not for this onnxruntime ({first_line(error)}); export the model again"
        raise ModelError(f"{printable(str(path))}: {fault}") from error


class Sessions:
    """The sessions of one engine. threads: of the processor; providers: of onnxruntime, the first that can is used."""

    def __init__(self, folder: ModelFolder, threads: int, providers: Sequence[str]) -> None:
        self.folder = folder
        self.threads = threads
        self.providers = tuple(providers)
        self._sessions: dict[str, tuple[int, Any]] = {}
        self._loading = threading.Lock()

    def get(self, name: str, threads: int | None = None) -> Any:
        """The session over the graph `name`, on so many threads (None: all), loaded unless it is there.

        One that is there with another number of threads is closed before this one opens. May be called by several
        threads at once.
        """
        count = threads or self.threads
        with self._loading:
            loaded, session = self._sessions.get(name, (None, None))
            if loaded != count:
                self._sessions.pop(name, None)
                del session
                path = self.folder.require(graph_file(name))
                session = open_session(path, count, self.providers, quantised=name.endswith(INT8_SUFFIX))
                require_sizes(self.folder, name, session, path)
                self._sessions[name] = (count, session)
            return session


def providers(device: str) -> list[str]:
    """onnxruntime's execution providers for a device; UsageError or EnvironmentFault when there is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"the onnx engine knows the devices auto, cpu and cuda, not {device!r}")
    offered = CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not offered:
        raise EnvironmentFault("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use --device cpu")
    return [CPU] if device == "cpu" or not offered else [CUDA, CPU]


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
