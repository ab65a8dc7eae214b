"""Published checkpoints in small: the official layouts of files, names and configurations, with tensors at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ClapConfig, ClapModel, EncodecConfig, EncodecModel

from hubserver import Hub

State = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


def tensors(shapes: Shapes) -> State:
    """A different random tensor for each name."""
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def conv(name: str, *shape: int, bias: int | None = None) -> Shapes:
    """encodec's weight-normalised convolution."""
    return {f"{name}.bias": (bias or shape[0],), f"{name}.weight_g": (shape[0], 1, 1), f"{name}.weight_v": shape}


def residual(name: str, width: int) -> Shapes:
    return {
        **conv(f"{name}.block.1.conv.conv", width // 2, width, 3),
        **conv(f"{name}.block.3.conv.conv", width, width // 2, 1),
        **conv(f"{name}.shortcut.conv.conv", width, width, 1),
    }


def lstm(name: str, width: int) -> Shapes:
    weights = {f"{name}.lstm.weight_{side}_l0": (4 * width, width) for side in ("ih", "hh")}
    return {**weights, **{f"{name}.lstm.bias_{side}_l0": (4 * width,) for side in ("ih", "hh")}}


def published_encodec() -> State:
    """encodec's state dict for the small codec below: one stride of 2, one LSTM layer, two codebooks of 16."""
    shapes = {
        **conv("encoder.model.0.conv.conv", 4, 1, 7),
        **residual("encoder.model.1", 4),
        **conv("encoder.model.3.conv.conv", 8, 4, 4),
        **lstm("encoder.model.4", 8),
        **conv("encoder.model.6.conv.conv", 6, 8, 7),
        **conv("decoder.model.0.conv.conv", 8, 6, 7),
        **lstm("decoder.model.1", 8),
        **conv("decoder.model.3.convtr.convtr", 8, 4, 4, bias=4),
        **residual("decoder.model.4", 4),
        **conv("decoder.model.6.conv.conv", 1, 4, 7),
    }
    for layer in range(2):
        book = f"quantizer.vq.layers.{layer}._codebook"
        shapes |= {f"{book}.{name}": (16, 6) for name in ("embed", "embed_avg")}
        shapes |= {f"{book}.cluster_size": (16,), f"{book}.inited": (1,)}
    return tensors(shapes)


def small_encodec() -> EncodecModel:
    """Its bandwidth makes two codebooks: 8,000 frames per second of 2 codes of 4 bits are 64 kbps."""
    return EncodecModel(
        EncodecConfig(
            sampling_rate=16_000,
            upsampling_ratios=[2],
            num_filters=4,
            hidden_size=6,
            codebook_dim=6,
            codebook_size=16,
            num_lstm_layers=1,
            target_bandwidths=[64.0],
        )
    )


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int, batch: bool = False) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    if batch:
        shapes |= {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    return shapes


def square(name: str, outputs: int, inputs: int, height: int = 1, width: int = 1) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, height, width), f"{name}.bias": (outputs,)}


def block(name: str, width: int, heads: int) -> Shapes:
    return {
        **norm(f"{name}.norm1", width),
        f"{name}.attn.relative_position_bias_table": (49, heads),
        f"{name}.attn.relative_position_index": (16, 16),
        **linear(f"{name}.attn.qkv", 3 * width, width),
        **linear(f"{name}.attn.proj", width, width),
        **norm(f"{name}.norm2", width),
        **linear(f"{name}.mlp.fc1", 4 * width, width),
        **linear(f"{name}.mlp.fc2", width, 4 * width),
    }


def published_clap() -> State:
    """laion-clap's state dict for the small CLAP below; of what no embedding needs, one tensor of each kind."""
    fusion = "audio_branch.patch_embed.fusion_model"
    shapes = {
        "logit_scale_a": (),
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": (9, 1, 16),
        "audio_branch.logmel_extractor.melW": (9, 16),
        **norm("audio_branch.bn0", 16, batch=True),
        **square("audio_branch.patch_embed.proj", 8, 1, 4, 4),
        **norm("audio_branch.patch_embed.norm", 8),
        **square("audio_branch.patch_embed.mel_conv2d", 8, 1, 4, 12),
        **block("audio_branch.layers.0.blocks.0", 8, 1),
        "audio_branch.layers.0.blocks.1.attn_mask": (16, 16, 16),
        **block("audio_branch.layers.0.blocks.1", 8, 1),
        "audio_branch.layers.0.downsample.reduction.weight": (16, 32),
        **norm("audio_branch.layers.0.downsample.norm", 32),
        **block("audio_branch.layers.1.blocks.0", 16, 2),
        **norm("audio_branch.norm", 16),
        **square("audio_branch.tscam_conv", 5, 16, 2, 3),
        **linear("audio_branch.head", 5, 5),
        **linear("text_projection.0", 12, 20),
        **linear("audio_transform.sequential.0", 12, 12),
        **linear("audio_projection.0", 12, 16),
        **linear("audio_projection.2", 12, 12),
    }
    for side, first in (("local_att", 0), ("global_att", 1)):
        shapes |= square(f"{fusion}.{side}.{first}", 2, 8) | norm(f"{fusion}.{side}.{first + 1}", 2, batch=True)
        shapes |= square(f"{fusion}.{side}.{first + 3}", 8, 2) | norm(f"{fusion}.{side}.{first + 4}", 8, batch=True)
    return tensors(shapes)


def small_clap() -> ClapModel:
    audio = {
        "spec_size": 64,
        "window_size": 4,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "depths": [2, 1],
        "num_attention_heads": [1, 2],
        "hidden_size": 16,
        "projection_dim": 12,
        "enable_fusion": True,
        "fusion_type": "aff_2d",
        "aff_block_r": 4,
    }
    text = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=12))


def published_text() -> State:
    """The text tower's part of laion-clap's state dict: a RoBERTa with 20 tokens and 14 positions."""
    layer = "text_branch.encoder.layer.0"
    return tensors(
        {
            "text_branch.embeddings.position_ids": (1, 14),
            "text_branch.embeddings.word_embeddings.weight": (320, 20),
            "text_branch.embeddings.position_embeddings.weight": (14, 20),
            "text_branch.embeddings.token_type_embeddings.weight": (1, 20),
            **norm("text_branch.embeddings.LayerNorm", 20),
            **{
                name: shape
                for part in ("query", "key", "value")
                for name, shape in linear(f"{layer}.attention.self.{part}", 20, 20).items()
            },
            **linear(f"{layer}.attention.output.dense", 20, 20),
            **norm(f"{layer}.attention.output.LayerNorm", 20),
            **linear(f"{layer}.intermediate.dense", 40, 20),
            **linear(f"{layer}.output.dense", 20, 40),
            **norm(f"{layer}.output.LayerNorm", 20),
            **linear("text_branch.pooler.dense", 20, 20),
            **linear("text_projection.0", 12, 20),
            **linear("text_projection.2", 12, 12),
            **linear("text_transform.sequential.0", 12, 12),
        }
    )


SPARE_ROWS = 7
"""Rows of the published code tables that no id reaches."""


def published_caption(folder: Path, model: Path) -> Path:
    """`folder`, now with config.json and pytorch_model.bin as the official release has them, of our model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(caption_tensors(model), folder / "pytorch_model.bin")
    ours = json.loads((model / "config.json").read_text())
    same = ("d_model", "vocab_size", "max_position_embeddings", "label_smoothing")
    sides = [f"{side}_{size}" for side in ("encoder", "decoder") for size in ("layers", "attention_heads", "ffn_dim")]
    table = {name: ours[name] for name in (*same, *sides)} | {
        "model_type": "bart",
        "architectures": ["EnClapBartForConditionalGeneration"],
        "num_rvq": ours["codebooks"],
        "encodec_vocab_size": ours["codebook_entries"],
        "encodec_pad_token_id": ours["codebook_entries"],
        "d_clap": ours["clap_dim"],
        "mcm_loss_scale": 0.7,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "max_length": 30,
        "transformers_version": "4.29.0",
    }
    (folder / "config.json").write_text(json.dumps(table))
    return folder


def caption_tensors(model: Path) -> State:
    """The caption model of our folder under the official names, with the repeated tables and spare rows it has."""
    torch.manual_seed(0)
    official = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        tensor = tensor.float()
        if name.startswith("frame_embedding.tables."):
            tensor = torch.cat([tensor, torch.randn(SPARE_ROWS, tensor.shape[1])])
            name = "model.encoder.embed_encodec." + name.removeprefix("frame_embedding.tables.")
        elif name.startswith("clap_projection."):
            name = f"model.encoder.{name}"
        official[name.replace("bart.", "model.", 1) if name.startswith("bart.") else name] = tensor
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return official | dict.fromkeys(copies, official["model.shared.weight"])


def published_codec(folder: Path, model: Path) -> Path:
    """`folder`, now with our folder's codec as facebook/encodec_24khz has it: the weight norm's older names."""
    folder.mkdir(parents=True, exist_ok=True)
    older = {"original0": "g", "original1": "v"}
    state = {}
    for name, tensor in load_file(model / "codec" / "model.safetensors").items():
        for new, old in older.items():
            name = name.replace(f"parametrizations.weight.{new}", f"weight_{old}")
        state[name] = tensor.float().contiguous()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_bytes((model / "codec" / "config.json").read_bytes())
    return folder


def published_clap_folder(folder: Path, model: Path) -> Path:
    """`folder`, now with our folder's CLAP as laion/clap-htsat-fused has it: a pickle from an older transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(model / "clap" / "model.safetensors").items()
    }
    del state["text_model.embeddings.token_type_ids"]  # which version 4.2x did not store
    torch.save(state, folder / "pytorch_model.bin")
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_bytes((model / "clap" / name).read_bytes())
    return folder


def put_official(server: Hub, tiny_model: Path, folder: Path) -> None:
    """Serve the tiny model as the authors' release is served: four repositories, one of them a space."""
    server.put("space/enclap-team/enclap", published_caption(folder / "ckpt", tiny_model), "ckpt/")
    server.repositories["space/enclap-team/enclap"]["app.py"] = b"raise SystemExit('this must never run')"
    server.put("model/facebook/encodec_24khz", published_codec(folder / "codec", tiny_model))
    server.put("model/laion/clap-htsat-fused", published_clap_folder(folder / "clap", tiny_model))
    tokenizer = {"tokenizer.json": (tiny_model / "tokenizer.json").read_bytes()}
    server.repositories["model/facebook/bart-base"] = {**tokenizer, "pytorch_model.bin": b"not wanted" * 99}
