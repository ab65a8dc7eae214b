"""Configurations of published models: translated from their own, or read off the weights where a file comes alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import ClapConfig, EncodecConfig

from enclap.audio.mel import MelFrontEnd
from enclap.convert.published_names import CLAP_AUDIO_NAMES, CLAP_TEXT_NAMES, ENCODEC_NAMES, renamed
from enclap.errors import ModelError
from enclap.hub.layout import FRONT_END, read_json
from enclap.model.configuration import EnclapConfig
from enclap.text import printable

SHARED_FIELDS = (
    "activation_dropout",
    "activation_function",
    "attention_dropout",
    "bos_token_id",
    "classifier_dropout",
    "d_model",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "decoder_layerdrop",
    "decoder_layers",
    "decoder_start_token_id",
    "dropout",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "encoder_layerdrop",
    "encoder_layers",
    "eos_token_id",
    "forced_eos_token_id",
    "init_std",
    "label_smoothing",
    "max_position_embeddings",
    "pad_token_id",
    "vocab_size",
)
"""Settings that the published configuration and ours call the same."""
TRANSLATED = {
    "num_rvq": "codebooks",
    "encodec_vocab_size": "codebook_entries",
    "d_clap": "clap_dim",
    "mcm_loss_scale": "mcm_loss_weight",
}
DEFAULT_GENERATION = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "num_beams": 4,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "max_length": 50,
}
"""How the published program searches, where its configuration says nothing else."""

CODEC_RATE = 24_000
"""Samples per second of the published codec, which its weight file does not say."""
HEAD_WIDTH = 64
"""Width of an attention head in RoBERTa, which weights do not show."""
RELEASED_FRONT_END = MelFrontEnd(
    rate=48_000, length=480_000, fft_size=1024, hop=480, bands=64, lowest=50.0, highest=14_000.0
)
"""CLAP's front end as released; transformers' default for the lowest frequency, 0 Hz, is not what the weights saw."""
PLACEHOLDER_TEXT = {
    "vocab_size": 4,
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "max_position_embeddings": 4,
}
"""Sizes of the text tower where none is asked for, since transformers' class cannot be without one."""


def caption_config(path: Path, frame_rate: float) -> tuple[EnclapConfig, dict[str, Any]]:
    """Our configuration and the table of generation_config.json, from a published config.json.

    frame_rate: code frames per second of the codec beside it. ModelError when the file describes another model.
    """
    table, shown = read_json(path), printable(str(path))
    needed = [*TRANSLATED, "d_model", "encoder_layers", "decoder_layers", "vocab_size", "max_position_embeddings"]
    missing = [name for name in needed if name not in table]
    if missing:
        raise ModelError(f"{shown}: not the configuration of a published EnCLAP, {', '.join(missing)} missing")
    if table.get("encodec_pad_token_id", table["encodec_vocab_size"]) != table["encodec_vocab_size"]:
        raise ModelError(f"{shown}: encodec_pad_token_id must equal encodec_vocab_size, as in the published models")
    if table.get("scale_embedding"):
        raise ModelError(f"{shown}: scale_embedding is not supported; the published models do without it")
    settings = {name: table[name] for name in SHARED_FIELDS if name in table}
    settings |= {ours: table[theirs] for theirs, ours in TRANSLATED.items()}
    try:
        config = EnclapConfig(**settings, frame_rate=frame_rate)
    except ModelError:
        raise
    except Exception as error:  # transformers checks types with exceptions of its own
        raise ModelError(f"{shown}: {_line(error)}") from error
    return config, {name: table.get(name, default) for name, default in DEFAULT_GENERATION.items()}


def codec_config(path: Path | None, tensors: Mapping[str, Tensor]) -> EncodecConfig:
    """The codec's configuration: that in the file at `path`, else read off the tensors."""
    return _stored(EncodecConfig, path) if path is not None else _measured(codec_sizes, tensors, "EnCodec")


def clap_config(path: Path | None, tensors: Mapping[str, Tensor], text_tower: bool) -> ClapConfig:
    """CLAP's configuration: that in the file at `path`, else read off the tensors; text_tower false: a placeholder."""
    config = _stored(ClapConfig, path) if path is not None else _measured(clap_sizes, tensors, "CLAP")
    if text_tower:
        return config
    audio = config.audio_config.to_dict()
    return ClapConfig(audio_config=audio, text_config=PLACEHOLDER_TEXT, projection_dim=config.projection_dim)


def front_end(folder: Path | None, tower: Any) -> MelFrontEnd:
    """CLAP's front end: that of the folder's preprocessor_config.json, else the released one as the tower needs it.

    tower: the configuration of the audio tower.
    """
    bands = tower.num_mel_bins
    if folder is not None and (folder / FRONT_END).is_file():
        found = MelFrontEnd.from_folder(folder)
        if found.bands != bands:
            where = printable(str(folder / FRONT_END))
            raise ModelError(f"{where}: {found.bands} mel bands, but the weights read {bands}")
        return found
    return replace(RELEASED_FRONT_END, bands=bands, fused=tower.enable_fusion)


def _stored(kind: Any, path: Path) -> Any:
    table = read_json(path)
    try:
        return kind(**table)
    except Exception as error:  # transformers checks types with exceptions of its own
        raise ModelError(f"{printable(str(path))}: not a usable configuration ({_line(error)})") from error


def _measured(read: Any, tensors: Mapping[str, Tensor], model: str) -> Any:
    try:
        return read(tensors)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"these are not the weights of the published {model}, fetch them again ({error!r})") from error


def codec_sizes(tensors: Mapping[str, Tensor]) -> EncodecConfig:
    """EnCodec's sizes from its tensors' shapes; its rate is that of the published 24 kHz model."""
    shapes = {renamed(name, ENCODEC_NAMES): tensor.shape for name, tensor in tensors.items()}
    direct = r"encoder\.layers\.(\d+)\.conv\.parametrizations\.weight\.original1"
    convolutions = sorted((int(match[1]), name) for name in shapes if (match := re.fullmatch(direct, name)))
    first, *strided, last = (shapes[name] for _, name in convolutions)
    ratios = [shape[2] // 2 for shape in strided]  # a kernel spans two strides
    codebooks = _count(shapes, r"quantizer\.layers\.(\d+)\.")
    entries, latent = shapes["quantizer.layers.0.codebook.embed"]
    blocks = _count(shapes, r"encoder\.layers\.(\d+)\.block\.")
    frame_rate = math.ceil(CODEC_RATE / math.prod(ratios))
    return EncodecConfig(
        sampling_rate=CODEC_RATE,
        upsampling_ratios=ratios[::-1],
        num_filters=first[0],
        kernel_size=first[2],
        last_kernel_size=last[2],
        hidden_size=last[0],
        num_residual_layers=blocks // len(ratios),
        num_lstm_layers=_count(shapes, r"encoder\.layers\.\d+\.lstm\.weight_ih_l(\d+)"),
        codebook_size=entries,
        codebook_dim=latent,
        target_bandwidths=[codebooks * math.ceil(math.log2(entries)) * frame_rate / 1000],  # kbit/s
    )


def clap_sizes(tensors: Mapping[str, Tensor]) -> ClapConfig:
    """CLAP's sizes from the shapes of laion-clap's tensors."""
    audio = {renamed(name, CLAP_AUDIO_NAMES): tensor.shape for name, tensor in tensors.items()}
    text = {renamed(name, CLAP_TEXT_NAMES): tensor.shape for name, tensor in tensors.items()}
    projection = int(audio["audio_projection.linear1.weight"][0])
    settings = text_tower_sizes(text) if "text_model.embeddings.word_embeddings.weight" in text else PLACEHOLDER_TEXT
    return ClapConfig(
        audio_config={**audio_tower_sizes(audio), "projection_dim": projection},
        text_config={**settings, "projection_dim": projection},
        projection_dim=projection,
    )


def audio_tower_sizes(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of CLAP's audio tower, from the shapes of its tensors under transformers' names."""
    tower = "audio_model.audio_encoder."
    width, _, patch, _ = shapes[f"{tower}patch_embed.proj.weight"]
    bands = int(shapes[f"{tower}batch_norm.weight"][0])
    stages = range(_count(shapes, rf"{re.escape(tower)}layers\.(\d+)\."))
    tables = [shapes[f"{tower}layers.{i}.blocks.0.attention.self.relative_position_bias_table"] for i in stages]
    reduced = shapes.get(f"{tower}patch_embed.fusion_model.local_att.0.weight")
    return {
        "patch_embeds_hidden_size": width,
        "patch_size": patch,
        "patch_stride": [patch, patch],
        "num_mel_bins": bands,
        "spec_size": 4 * bands,  # HTSAT folds the spectrogram into a square of four bands' height
        "depths": [_count(shapes, rf"{re.escape(tower)}layers\.{i}\.blocks\.(\d+)\.") for i in stages],
        "num_hidden_layers": len(stages),
        "num_attention_heads": [int(table[1]) for table in tables],
        "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
        "hidden_size": int(shapes[f"{tower}norm.weight"][0]),
        "mlp_ratio": shapes[f"{tower}layers.0.blocks.0.intermediate.dense.weight"][0] / width,
        "enable_fusion": reduced is not None,
        "fusion_type": None if reduced is None else "aff_2d",
        "aff_block_r": 4 if reduced is None else width // reduced[0],
    }


def text_tower_sizes(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of CLAP's text tower, from the shapes of its tensors under transformers' names."""
    vocabulary, width = shapes["text_model.embeddings.word_embeddings.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layer.0.intermediate.dense.weight"][0],
        "num_hidden_layers": _count(shapes, r"text_model\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": shapes["text_model.embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes["text_model.embeddings.token_type_embeddings.weight"][0],
    }


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """How many different numbers the pattern's group finds."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or repr(error)
