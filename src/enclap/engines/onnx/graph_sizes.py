"""Whether a folder's graphs have the sizes that its config.json names; others would fail in the middle of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enclap.errors import ModelError
from enclap.hub.layout import INT8_SUFFIX, Graph, cross_names
from enclap.hub.model_folder import CaptionTable, ModelFolder
from enclap.text import printable

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
