"""Whether a folder's graphs have the sizes that its config.json names; others would fail in the middle of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enclap.errors import ModelError
from enclap.hub.model_folder import CaptionTable, ModelFolder

Sizes = dict[str, dict[int, int]]
"""Of an input or output, by name: the sizes that some of its axes must have."""


def require_sizes(folder: ModelFolder, graph: str, session: Any, path: Path) -> None:
    """Raises ModelError unless the inputs and outputs of a graph that is loaded fit the configuration.

    graph: its name, without the suffix. session: onnxruntime's InferenceSession.
    """
    graph = graph.removesuffix("_int8")
    expected = _expected(folder).get(graph, {})
    for item in (*session.get_inputs(), *session.get_outputs()):
        for axis, size in expected.get(item.name, {}).items():
            found = item.shape[axis] if axis < len(item.shape) else None
            if isinstance(found, int) and found != size:  # an axis that may vary has a name instead
                fault = f"the configuration says {size} where this graph has {found} ({item.name}, axis {axis})"
                raise ModelError(f"{path}: {fault}; fetch or export the model again")
    offered = {item.name for item in session.get_inputs()}
    missing = [name for name in _needed(folder.caption, graph) if name not in offered]
    if missing:
        raise ModelError(f"{path}: has no input {', '.join(missing)}; fetch or export the model again")


def _expected(folder: ModelFolder) -> dict[str, Sizes]:
    caption = folder.caption
    heads = caption.decoder_attention_heads
    width = caption.d_model // heads
    memory = {1: caption.decoder_layers, 5: heads, 6: width}
    codes = {2: caption.codebooks}
    cross: Sizes = {}
    for layer in range(caption.decoder_layers):
        cross |= {f"cross_key_{layer}": {1: heads, 2: width}, f"cross_value_{layer}": {1: heads, 3: width}}
    mel = {} if folder.clap is None else {2: folder.clap.frames, 3: folder.clap.bands}
    return {
        "clap_audio": {"mel": mel},
        "clap_fused": {"mel": mel},
        "codec_codes": {"codes": codes},
        "encoder": {"codes": codes, "log_mel": {2: caption.log_mel_bands}, **cross},
        "decoder": {"past": memory, "logits": {2: caption.vocab_size}, **cross},
    }


def _needed(caption: CaptionTable, graph: str) -> list[str]:
    """Names of the inputs that the engine will give to the graph."""
    if graph == "decoder":
        return [f"cross_{kind}_{layer}" for layer in range(caption.decoder_layers) for kind in ("key", "value")]
    if graph == "encoder":
        acoustic = [] if caption.acoustic_input == "none" else [caption.acoustic_input]
        return acoustic + (["clap_embedding"] if caption.use_clap else [])
    return []
