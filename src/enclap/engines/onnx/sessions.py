"""onnxruntime sessions over a model folder's graphs, each loaded when it is first needed, and checked then.

A graph must have the sizes that the folder's config.json names; another would fail in the middle of a run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.hub.layout import INT8_SUFFIX, Graph, cross_names, graph_file
from enclap.hub.model_folder import CaptionTable, ModelFolder
from enclap.text import first_line, printable

onnxruntime.disable_telemetry_events()  # where it was imported before `enclap`, which says so by the environment

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
Provider = str | tuple[str, dict[str, str]]
"""A provider of onnxruntime, by name, with options or without."""
SILENT = 4
"""onnxruntime's log severity that lets only fatal faults through; the others reach the caller as exceptions."""
Sizes = dict[str, dict[int, int]]
"""Of an input or output, by name: the sizes that some of its axes must have."""

FIXED_INPUTS = {
    Graph.CODEC_LATENTS: ("samples",),
    Graph.CODEC_CODES: ("latents",),
    Graph.CLAP_AUDIO: ("mel",),
    Graph.CLAP_FUSED: ("mel",),
    Graph.CLAP_TEXT: ("ids", "mask"),
}
"""Inputs of the graphs that take the same in every model."""


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


def open_session(path: Path, threads: int, providers: Sequence[Provider] = (CPU,), *, quantised: bool = False) -> Any:
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

    def __init__(self, folder: ModelFolder, threads: int, providers: Sequence[Provider]) -> None:
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


def require_sizes(folder: ModelFolder, graph: str, session: Any, path: Path) -> None:
    """Raises ModelError unless the inputs and outputs of a graph that is loaded fit the configuration.

    graph: its name. session: onnxruntime's InferenceSession.
    """
    graph, shown = graph.removesuffix(INT8_SUFFIX), printable(str(path))
    expected = expected_sizes(folder).get(graph, {})
    for item in (*session.get_inputs(), *session.get_outputs()):
        for axis, size in expected.get(item.name, {}).items():
            found = item.shape[axis] if axis < len(item.shape) else None
            if isinstance(found, int) and found != size:  # an axis that may vary has a name instead
                fault = f"the configuration says {size} where this graph has {found} ({item.name}, axis {axis})"
                raise ModelError(f"{shown}: {fault}; fetch or export the model again")
    offered = {item.name for item in session.get_inputs()}
    missing = [name for name in needed_inputs(folder.caption, graph) if name not in offered]
    if missing:
        raise ModelError(f"{shown}: has no input {', '.join(missing)}; fetch or export the model again")


def expected_sizes(folder: ModelFolder) -> dict[str, Sizes]:
    """For each graph, the size that the configuration gives to each axis of its inputs and outputs."""
    caption = folder.caption
    heads = caption.decoder_attention_heads
    width = caption.d_model // heads
    cache = {1: caption.decoder_layers, 5: heads, 6: width}
    codes, embedding = {2: caption.codebooks}, {1: caption.clap_dim}
    cross: Sizes = {}
    for layer in range(caption.decoder_layers):
        cross |= {f"cross_key_{layer}": {1: heads, 2: width}, f"cross_value_{layer}": {1: heads, 3: width}}
    mel = {} if folder.clap is None else {2: folder.clap.frames, 3: folder.clap.bands}
    return {
        Graph.CLAP_AUDIO: {"mel": mel, "embedding": embedding},
        Graph.CLAP_FUSED: {"mel": mel, "embedding": embedding},
        Graph.CLAP_TEXT: {"embedding": embedding},
        Graph.CODEC_CODES: {"codes": codes},
        Graph.ENCODER: {
            "codes": codes,
            "log_mel": {2: caption.log_mel_bands},
            "clap_embedding": embedding,
            **cross,
        },
        Graph.DECODER: {"past": cache, "logits": {2: caption.vocab_size}, **cross},
    }


def needed_inputs(caption: CaptionTable, graph: str) -> list[str]:
    """Names of the inputs that the engine will give to the graph."""
    if graph == Graph.ENCODER:
        acoustic = [] if caption.acoustic_input == "none" else [caption.acoustic_input]
        return acoustic + (["clap_embedding"] if caption.use_clap else [])
    if graph == Graph.DECODER:
        return ["tokens", "past", "cross_bias", *cross_names(caption.decoder_layers)]
    return list(FIXED_INPUTS[Graph(graph)])


def providers(device: str) -> list[Provider]:
    """onnxruntime's execution providers for a device; UsageError or EnvironmentFault when there is none."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda"):
        raise UsageError(f"the onnx engine knows the devices auto, cpu and cuda, not {device!r}")
    offered = CUDA in onnxruntime.get_available_providers()
    if kind == "cuda" and not offered:
        raise EnvironmentFault("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use --device cpu")
    if kind == "cpu" or not offered:
        return [CPU]
    return [(CUDA, {"device_id": number}) if number else CUDA, CPU]
