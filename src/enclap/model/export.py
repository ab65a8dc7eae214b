"""A model folder's weights as ONNX graphs, which the default engine runs without PyTorch."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from transformers import ClapModel, EncodecModel

from enclap.audio.mel import ClapFrontEnd
from enclap.errors import ModelError
from enclap.model.clap import Clap, embed_crops
from enclap.model.codec import Codec
from enclap.model.modeling import EnclapForConditionalGeneration
from enclap.model.sequence import POSITION_OFFSET, Inputs

OPSET = 18
SMALLEST_HALVED = 16
"""Tensors with fewer values stay float32: a Cast would cost more than it saves."""
Axes = Mapping[str, Mapping[int, str]]


class CodecGraph(nn.Module):
    """Samples [B, 1, N] to codes int64 [B, T, K]; any N, one sample included."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        model: EncodecModel = copy.deepcopy(codec.model)
        for module in list(model.encoder.modules()):
            for name, child in list(module.named_children()):
                if hasattr(child, "padding_total"):
                    setattr(module, name, BranchFreeConv(child))
        self.encoder = model.encoder
        self.quantizers = model.quantizer.layers[: codec.codebooks]

    def forward(self, samples: Tensor) -> Tensor:
        """Codes of a batch of equally long clips."""
        residual = self.encoder(samples)  # [B, D, T]
        codes = []
        for quantizer in self.quantizers:
            chosen = quantizer.encode(residual)  # [B, T]
            residual = residual - quantizer.decode(chosen)
            codes.append(chosen)
        return torch.stack(codes, dim=-1)


class BranchFreeConv(nn.Module):
    """EnCodec's padded convolution without branches on the length, which tracing would freeze.

    The source (EncodecConv1d) reflects at both ends, and lengthens an input that is shorter than the padding by zeros
    first. Here only the border values are gathered, so long inputs are copied once.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        conv = cast(nn.Conv1d, source.conv)
        if parametrize.is_parametrized(conv):
            parametrize.remove_parametrizations(conv, "weight")
        if source.norm_type != "weight_norm" or source.pad_mode not in ("reflect", "constant"):
            raise ModelError("codec/config.json: only weight_norm codecs with reflect or constant padding export")
        self.conv = conv
        self.stride = conv.stride[0]
        total = int(cast(Tensor, source.padding_total))
        self.right = 0 if source.causal else total // 2
        self.left = total - self.right
        self.reflect = source.pad_mode == "reflect"

    def forward(self, values: Tensor) -> Tensor:
        """The convolution of values [B, C, L], L / stride rounded up."""
        length = torch.ones_like(values[0, 0]).sum().long()  # L, as a tensor that tracing follows
        right = self.right + torch.remainder(-length, self.stride)
        before = torch.arange(self.left, 0, -1)
        after = length + torch.arange(cast(int, right))
        if not self.reflect:
            return self._convolve(values, values[..., before * 0] * 0, values[..., after * 0] * 0)
        widest = torch.clamp(right, min=self.left)
        end = length + torch.clamp(widest - length + 1, min=0)  # length with the zeros that a short input gets
        mirrored = torch.where(after < end, after, 2 * (end - 1) - after)
        return self._convolve(values, _at(values, before, length), _at(values, mirrored, length))

    def _convolve(self, values: Tensor, before: Tensor, after: Tensor) -> Tensor:
        return cast(Tensor, self.conv(torch.cat([before, values, after], dim=-1)))


def _at(values: Tensor, places: Tensor, length: Tensor) -> Tensor:
    """Values [B, C, places], zero behind the end."""
    inside = (places < length).to(values.dtype)
    return values[..., torch.minimum(places, length - 1)] * inside


class ClapAudioGraph(nn.Module):
    """Mel crops [C, 1, T, M] to unit embeddings [C, E]."""

    def __init__(self, model: ClapModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, mel: Tensor) -> Tensor:
        """Embeddings of crops of the front end's fixed length."""
        return embed_crops(self.model, mel)


class ClapTextGraph(nn.Module):
    """Token ids and attention mask [N, S] to unit embeddings [N, E]."""

    def __init__(self, model: ClapModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of padded texts."""
        hidden = mask[:, None, None, :].to(self.model.dtype)
        bias = (1.0 - hidden) * torch.finfo(self.model.dtype).min  # [N, 1, 1, S]
        return cast(Tensor, self.model.get_text_features(ids, attention_mask=bias).pooler_output)


class EncoderGraph(nn.Module):
    """A clip's inputs to the cross-attention keys and values of every decoder layer, computed once per clip.

    Keys [B, H, D / H, S] lie transposed, ready for the decoder's products; values are [B, H, S, D / H].
    """

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.names = [name for name, used in _encoder_inputs(model).items() if used]

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Key, value, key, value, … of the layers, first layer first."""
        encoded, _ = self.model.encode(Inputs(**dict(zip(self.names, values, strict=True))))
        states = encoded.last_hidden_state  # [B, S, D]
        heads = self.model.config.decoder_attention_heads
        results = []
        for layer in self.model.get_decoder().layers:
            attention = layer.encoder_attn
            key = attention.k_proj(states).unflatten(-1, (heads, -1))  # [B, S, H, D / H]
            value = attention.v_proj(states).unflatten(-1, (heads, -1))
            results += [key.permute(0, 2, 3, 1), value.permute(0, 2, 1, 3)]
        return tuple(results)


class DecoderGraph(nn.Module):
    """One decoding step for W beams of each of B clips.

    The beams of a clip are query positions of one cross-attention, so they share its keys and values without a copy.
    past: self-attention keys and values [P, layers, 2, B, W, H, D / H]; steps lie outermost, so that the caller can
    append in place; P = 0 in the first step.
    """

    def __init__(self, model: EnclapForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.decoder = model.get_decoder()
        self.heads: int = model.config.decoder_attention_heads

    def forward(self, tokens: Tensor, past: Tensor, *cross: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, W, V] and this step's keys and values [1, layers, 2, B, W, H, D / H]."""
        decoder = self.decoder
        position = torch.arange(past.shape[0], past.shape[0] + 1) + POSITION_OFFSET
        vectors = decoder.embed_tokens(tokens) + functional.embedding(position, decoder.embed_positions.weight)
        states = decoder.layernorm_embedding(vectors)  # [B, W, D]
        fresh = []
        for index, layer in enumerate(decoder.layers):
            states, keys_values = self._self_attention(layer, states, past[:, index])
            fresh.append(keys_values)
            states = self._cross_attention(layer, states, cross[2 * index], cross[2 * index + 1])
            inner = layer.activation_fn(layer.fc1(states))
            states = layer.final_layer_norm(states + layer.fc2(inner))
        clips, beams, width = states.shape
        flat = functional.linear(
            states.reshape(clips * beams, width), self.model.lm_head.weight, self.model.final_logits_bias[0]
        )  # flat, so that it becomes a Gemm that reads the tied token table as it lies
        return flat.reshape(clips, beams, -1), torch.stack(fresh)[None]

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1))  # [B, W, H, D / H]

    def _self_attention(self, layer: nn.Module, states: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, W, D] and fresh keys and values [2, B, W, H, D / H]; past: [P, 2, B, W, H, D / H]."""
        attention = cast(nn.Module, layer.self_attn)
        query = self._split(attention.q_proj(states)) * attention.scaling
        fresh = torch.stack([self._split(attention.k_proj(states)), self._split(attention.v_proj(states))])
        both = torch.cat([past, fresh[None]], dim=0)  # [P + 1, 2, B, W, H, D / H]
        keys, values = both[:, 0].permute(1, 2, 3, 4, 0), both[:, 1].permute(1, 2, 3, 0, 4)
        weights = (query[..., None, :] @ keys).softmax(-1)  # [B, W, H, 1, P + 1]
        mixed = (weights @ values).flatten(2)  # [B, W, D]
        return layer.self_attn_layer_norm(states + attention.out_proj(mixed)), fresh

    def _cross_attention(self, layer: nn.Module, states: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """States [B, W, D] after attending to a clip's keys [B, H, D / H, S] and values [B, H, S, D / H]."""
        attention = cast(nn.Module, layer.encoder_attn)
        query = (self._split(attention.q_proj(states)) * attention.scaling).transpose(1, 2)  # [B, H, W, D / H]
        mixed = ((query @ keys).softmax(-1) @ values).transpose(1, 2).flatten(2)  # [B, W, D]
        return cast(Tensor, layer.encoder_attn_layer_norm(states + attention.out_proj(mixed)))


def _encoder_inputs(model: EnclapForConditionalGeneration) -> dict[str, bool]:
    """The encoder graph's possible inputs, in order, and whether the model takes each."""
    config = model.config
    return {
        "codes": config.acoustic_input == "codes",
        "log_mel": config.acoustic_input == "log_mel",
        "clap_embedding": config.use_clap,
    }


def export_folder(folder: Path) -> None:
    """Write `folder`/onnx/*.onnx from the weights in `folder`: only the graphs that the configuration needs.

    Weights that float16 holds exactly are stored so; all arithmetic is float32. ModelError when a part is missing.
    """
    target = folder / "onnx"
    target.mkdir(exist_ok=True)
    model = load_caption_model(folder)
    _export_caption_model(model, target)
    if model.config.acoustic_input == "codes":
        codec = Codec.from_folder(folder / "codec", model.config.codebooks)
        _export_codec(codec, target)
    if model.config.use_clap:
        _export_clap(folder / "clap", target)


def load_caption_model(folder: Path) -> EnclapForConditionalGeneration:
    """The caption model in `folder`, float32, in evaluation mode; ModelError when it cannot be loaded."""
    try:
        model = EnclapForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged file makes of the readers below
        line = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise ModelError(f"{folder}: the caption model cannot be loaded ({line})") from error
    return cast(EnclapForConditionalGeneration, model.eval())


def _export_caption_model(model: EnclapForConditionalGeneration, target: Path) -> None:
    config = model.config
    model.set_attn_implementation("eager")
    frames, clips, beams = 7, 2, 3
    examples = {
        "codes": torch.zeros(clips, frames, config.codebooks, dtype=torch.long),
        "log_mel": torch.zeros(clips, frames, config.log_mel_bands),
        "clap_embedding": torch.ones(clips, config.clap_dim),
    }
    encoder = EncoderGraph(model)
    cross_names = [f"cross_{kind}_{layer}" for layer in range(config.decoder_layers) for kind in ("key", "value")]
    cross_axes = {
        name: {0: "clips", 3: "slots"} if "key" in name else {0: "clips", 2: "slots"} for name in cross_names
    }
    inputs = {name: examples[name] for name in encoder.names}
    axes: Axes = {name: {0: "clips"} if name == "clap_embedding" else {0: "clips", 1: "frames"} for name in inputs}
    _write(encoder, inputs, cross_names, {**axes, **cross_axes}, target / "encoder.onnx")
    with torch.no_grad():
        cross = encoder(*inputs.values())
    heads = config.decoder_attention_heads
    past = torch.zeros(2, config.decoder_layers, 2, clips, beams, heads, config.d_model // heads)
    step_inputs = {"tokens": torch.zeros(clips, beams, dtype=torch.long), "past": past}
    step_inputs |= dict(zip(cross_names, cross, strict=True))
    step_axes: Axes = {
        "tokens": {0: "clips", 1: "beams"},
        "past": {0: "steps", 3: "clips", 4: "beams"},
        "logits": {0: "clips", 1: "beams"},
        "present": {3: "clips", 4: "beams"},
    }
    names = ["logits", "present"]
    _write(DecoderGraph(model), step_inputs, names, {**step_axes, **cross_axes}, target / "decoder.onnx")


def _export_codec(codec: Codec, target: Path) -> None:
    samples = torch.zeros(2, 1, 20 * codec.hop + 1)
    axes = {"samples": {0: "clips", 2: "samples"}, "codes": {0: "clips", 1: "frames"}}
    _write(CodecGraph(codec), {"samples": samples}, ["codes"], axes, target / "codec.onnx")


def _export_clap(folder: Path, target: Path) -> None:
    clap = Clap.from_folder(folder)
    clap.model.set_attn_implementation("eager")
    front_end = ClapFrontEnd.from_folder(folder)
    mel = torch.zeros(2, 1, front_end.frames, front_end.bands)
    axes = {"mel": {0: "crops"}, "embedding": {0: "crops"}}
    _write(ClapAudioGraph(clap.model), {"mel": mel}, ["embedding"], axes, target / "clap_audio.onnx")
    if clap.tokenizer is None:
        return
    text = {"ids": torch.full((2, 6), 3), "mask": torch.ones(2, 6, dtype=torch.long)}
    text_axes = {"ids": {0: "texts", 1: "tokens"}, "mask": {0: "texts", 1: "tokens"}, "embedding": {0: "texts"}}
    _write(ClapTextGraph(clap.model), text, ["embedding"], text_axes, target / "clap_text.onnx")


def _write(
    graph: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Axes, path: Path
) -> None:
    """Trace the graph and write it to `path`, by way of a temporary name."""
    temporary = path.with_suffix(".partial")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every constant; tests hold the graphs to other shapes
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(temporary),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(names) for name, names in axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(temporary))
    halve_exact_weights(model)
    onnx.save(model, str(temporary))
    os.replace(temporary, path)


def halve_exact_weights(model: onnx.ModelProto) -> None:
    """Store every float32 weight that float16 holds exactly as float16, followed by a Cast back to float32.

    The runtime folds the Cast when it loads the graph, so results stay those of the float32 weights.
    """
    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if values.size < SMALLEST_HALVED or not np.array_equal(halved.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def round_weights_to_float16(folder: Path) -> None:
    """Round the weights of caption model, codec and CLAP in `folder` to float16 and store them so.

    Halves the folder and lets safetensors and ONNX hold exactly the same values; call it before `export_folder`.
    Tensors that float16 cannot hold (training statistics above 65,504) stay as they are.
    """
    for path in sorted(folder.glob("**/model.safetensors")):
        rounded = {name: _rounded(tensor) for name, tensor in load_file(path).items()}
        temporary = path.with_suffix(".partial")
        save_file(rounded, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors writes files that only their owner may read
        os.replace(temporary, path)


def _rounded(tensor: Tensor) -> Tensor:
    """The tensor in float16 where that is finite, else as it is."""
    if tensor.dtype != torch.float32:
        return tensor
    halved = tensor.half()
    return halved if bool(torch.isfinite(halved).all()) else tensor
