"""A model folder's weights as ONNX files, which the default engine runs without PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from enclap.audio.mel import FUSED_CHANNELS
from enclap.export.captioner_graphs import DecoderGraph, EncoderGraph
from enclap.export.encoder_graphs import ClapAudioGraph, ClapTextGraph, CodesGraph, ConvEncoderGraph
from enclap.export.fused_clap import traceable_fusion
from enclap.export.graph_files import Axes, GraphFolder
from enclap.export.int8 import write_int8
from enclap.files import replacement_path
from enclap.hub.layout import CLAP, CODEC, CONTEXT_FRAMES, GRAPHS, WEIGHTS, Graph, cross_names
from enclap.model.audio_encoder import HtsatClap
from enclap.model.captioner import EnclapForConditionalGeneration
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.loading import load_caption_model

SMALLEST_QUANTISED = 50_000_000
"""Parameters of a caption model from which quantised graphs are worth their size on the disk."""


def export_folder(folder: Path, int8: bool | None = None) -> None:
    """Write `folder`/onnx/*.onnx from the weights in `folder`: only the graphs that the configuration needs.

    Weights that float16 holds exactly are stored so; all arithmetic is float32. int8: also write quantised graphs of
    the caption model; None does so where its size makes them worth it. The graphs that were there stay until
    the new ones are complete. ModelError when a part is missing.
    """
    model = load_caption_model(folder)
    with GraphFolder(folder / GRAPHS) as graphs:
        export_caption_model(model, graphs)
        if model.num_parameters() >= SMALLEST_QUANTISED if int8 is None else int8:
            write_int8(graphs)
        if model.config.acoustic_input == "codes":
            _export_codec(Codec.from_folder(folder / CODEC, model.config.codebooks), graphs)
        if model.config.use_clap:
            export_clap(Clap.from_folder(folder / CLAP), graphs)


def export_caption_model(model: EnclapForConditionalGeneration, graphs: GraphFolder) -> None:
    """Write the caption model's encoder and decoder; the model computes attention the plain way after that."""
    config = model.config
    model.set_attn_implementation("eager")
    frames, clips, beams = 7, 2, 3  # of the examples that are traced
    examples = {
        "codes": torch.zeros(clips, frames, config.codebooks, dtype=torch.long),
        "log_mel": torch.zeros(clips, frames, config.log_mel_bands),
        "clap_embedding": torch.ones(clips, config.clap_dim),
    }
    encoder, cross = EncoderGraph(model), cross_names(config.decoder_layers)
    cross_axes = {name: {0: "clips", 3 if "key" in name else 2: "slots"} for name in cross}
    inputs = {name: examples[name] for name in encoder.names}
    axes: Axes = {name: {0: "clips"} if name == "clap_embedding" else {0: "clips", 1: "frames"} for name in inputs}
    graphs.write(Graph.ENCODER, encoder, inputs, cross, {**axes, **cross_axes})
    with torch.no_grad():
        keys_and_values = encoder(*inputs.values())
    heads = config.decoder_attention_heads
    past = torch.zeros(2, config.decoder_layers, 2, clips, beams, heads, config.d_model // heads)
    step_inputs = {
        "tokens": torch.zeros(clips, beams, 2, dtype=torch.long),
        "past": past,
        "cross_bias": torch.zeros(clips, keys_and_values[0].shape[-1]),
        **dict(zip(cross, keys_and_values, strict=True)),
    }
    step_axes: Axes = {
        "tokens": {0: "clips", 1: "beams", 2: "new"},
        "past": {0: "steps", 3: "clips", 4: "beams"},
        "cross_bias": {0: "clips", 1: "slots"},
        "logits": {0: "clips", 1: "beams"},
        "present": {0: "new", 3: "clips", 4: "beams"},
    }
    graphs.write(Graph.DECODER, DecoderGraph(model), step_inputs, ["logits", "present"], {**step_axes, **cross_axes})


def export_codec(codec: Codec, target: Path) -> None:
    """Write the folder `target`, which holds the codec's two graphs alone."""
    with GraphFolder(target) as graphs:
        _export_codec(codec, graphs)


def _export_codec(codec: Codec, graphs: GraphFolder) -> None:
    """Two graphs: samples [B, 1, N] to latents [B, D, T] at any length, and those to codes [B, T, K]."""
    encoder = ConvEncoderGraph(codec)
    samples = torch.zeros(2, 1, 20 * codec.hop + 1)
    with torch.no_grad():
        latents = encoder(samples)
    latent_axes = {"latents": {0: "clips", 2: "frames"}}
    metadata = {} if encoder.context is None else {CONTEXT_FRAMES: str(encoder.context)}
    axes = {"samples": {0: "clips", 2: "samples"}, **latent_axes}
    graphs.write(Graph.CODEC_LATENTS, encoder, {"samples": samples}, ["latents"], axes, metadata)
    axes = {"codes": {0: "clips", 1: "frames"}, **latent_axes}
    graphs.write(Graph.CODEC_CODES, CodesGraph(codec), {"latents": latents}, ["codes"], axes)


def export_clap(clap: Clap, graphs: GraphFolder) -> None:
    """Write CLAP's graphs: of crops, of long clips where the encoder fuses them, and of texts where it embeds them."""
    encoder, front_end = clap.encoder, clap.encoder.front_end
    encoder.network.set_attn_implementation("eager")
    towers: dict[Graph, tuple[nn.Module, int]] = {Graph.CLAP_AUDIO: (ClapAudioGraph(encoder), 1)}
    if front_end.fused and isinstance(encoder, HtsatClap):
        towers[Graph.CLAP_FUSED] = (ClapAudioGraph(traceable_fusion(encoder)), FUSED_CHANNELS)
    axes: Axes = {"mel": {0: "crops"}, "embedding": {0: "crops"}}
    for name, (tower, channels) in towers.items():
        mel = torch.zeros(2, channels, front_end.frames, front_end.bands)
        graphs.write(name, tower, {"mel": mel}, ["embedding"], axes)
    if clap.tokenizer is None:
        return
    text = {"ids": torch.full((2, 6), 3), "mask": torch.ones(2, 6, dtype=torch.long)}
    text_axes = {"ids": {0: "texts", 1: "tokens"}, "mask": {0: "texts", 1: "tokens"}, "embedding": {0: "texts"}}
    graphs.write(Graph.CLAP_TEXT, ClapTextGraph(encoder), text, ["embedding"], text_axes)


def round_weights_to_float16(folder: Path) -> None:
    """Round the weights of caption model, codec and CLAP in `folder` to float16 and store them so.

    Halves the folder and lets safetensors and ONNX hold exactly the same values; call it before `export_folder`.
    Tensors that float16 cannot hold (training statistics above 65,504) stay as they are.
    """
    for path in sorted(folder.glob(f"**/{WEIGHTS}")):
        rounded = load_file(path)
        for name, tensor in rounded.items():
            halved = tensor.half() if tensor.dtype == torch.float32 else tensor
            if bool(torch.isfinite(halved).all()):
                rounded[name] = halved
        with replacement_path(path) as temporary:
            save_file(rounded, temporary, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors writes files that only their owner may read
