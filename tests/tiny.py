"""Tiny random model folders in the real layout: the code paths of the released sizes, in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import ClapConfig, ClapModel, EncodecConfig, EncodecModel, PreTrainedModel

from enclap.audio.mel import MelFrontEnd
from enclap.export.folder import export_folder, round_weights_to_float16
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.conv_clap import SPANS, ConvClapConfig, ConvClapModel

SENTENCES = [
    "A dog barks twice while a car drives past.",
    "Rain falls on a roof and thunder rolls in the distance.",
    "Footsteps cross a wooden floor, then a door closes.",
    "A bell rings over a humming engine.",
]
CODEC_RATE = 16_000  # Hz
CODEBOOKS, ENTRIES, CLAP_DIM, POSITIONS = 4, 16, 16, 300
TOWER_WIDTH = 6  # of the convolutional CLAP
END_BIAS = 15.2  # lets sentences end, some early, some late
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def tiny_model_folder(
    path: Path,
    *,
    use_clap: bool = True,
    acoustic_input: str = "codes",
    seed: int = 0,
    clap: str = "clap",
    graphs: bool = True,
) -> Path:
    """A complete model folder at `path`: random weights, rounded to float16; clap: in CLAPS; graphs: with ONNX."""
    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    vocabulary = save_tokenizer(path / "tokenizer.json")
    clap_dim, clap_slots = (CLAP_DIM, 1) if clap == "clap" else (SPANS * TOWER_WIDTH, SPANS)  # as mini
    caption_model(vocabulary, use_clap, acoustic_input, clap_dim, clap_slots).save_pretrained(path)
    generation = {
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "max_length": 30,
        "min_length": 0,
    }
    (path / "generation_config.json").write_text(json.dumps(generation))
    if acoustic_input == "codes":
        save_codec(path / "codec")
    if use_clap or acoustic_input == "log_mel":
        save_clap(path / "clap", clap)
    (path / "README.md").write_text("# A tiny random model for tests\n")
    round_weights_to_float16(path)
    if graphs:
        export_folder(path)
    return path


def caption_model(
    vocabulary: int, use_clap: bool, acoustic_input: str, clap_dim: int = CLAP_DIM, clap_slots: int = 1
) -> EnclapForConditionalGeneration:
    """A random caption model whose sentences depend on its input.

    With BART's small initial weights every sentence would be one word repeated; larger token vectors and attention
    weights make the words vary with the clip and with the words before.
    """
    config = EnclapConfig(
        vocab_size=vocabulary,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=POSITIONS,
        codebooks=CODEBOOKS,
        codebook_entries=ENTRIES,
        clap_dim=clap_dim,
        use_clap=use_clap,
        clap_slots=clap_slots,
        acoustic_input=acoustic_input,
        frame_rate=25.0,
        log_mel_bands=16,
    )
    model = EnclapForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
                weight.mul_(4.0 if "shared" in name else 1.5)
        model.final_logits_bias[0, config.eos_token_id] = END_BIAS
    return model.eval()


def save_tokenizer(path: Path) -> int:
    """Write a byte-level BPE tokenizer with <s> 0, <pad> 1, </s> 2; its vocabulary size."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return int(tokenizer.get_vocab_size())


def save_codec(folder: Path) -> None:
    """Write a random codec: 16 kHz, hop 640, its codebooks' entries taken from what is left of its latents."""
    config = EncodecConfig(
        sampling_rate=CODEC_RATE,
        upsampling_ratios=[8, 5, 4, 4],
        num_filters=4,
        hidden_size=8,
        num_lstm_layers=1,
        codebook_size=ENTRIES,
        target_bandwidths=[CODEBOOKS * 4 * 25 / 1000],
    )
    model = EncodecModel(config)
    with torch.no_grad():
        loudness = torch.linspace(0.01, 1.0, 4 * CODEC_RATE)
        residual = model.encoder(torch.randn(1, 1, 4 * CODEC_RATE) * loudness)  # [1, D, T]
        for layer in model.quantizer.layers:
            frames = torch.randperm(residual.shape[-1])[:ENTRIES]
            layer.codebook.embed.copy_(residual[0, :, frames].T)
            residual = residual - layer.decode(layer.encode(residual))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": CODEC_RATE, "feature_size": 1}))


def save_clap(folder: Path, kind: str = "clap") -> None:
    """Write a random CLAP with its front end and tokenizer: 8 kHz audio, 16 mel bands; kind: a name in CLAPS."""
    text = {
        "vocab_size": save_tokenizer(folder / "tokenizer.json"),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 66,
        "projection_dim": CLAP_DIM,
        "pad_token_id": 1,
    }
    CLAPS[kind](text).save_pretrained(folder)
    MelFrontEnd(rate=8000, length=80_000, fft_size=512, hop=320, bands=16, lowest=50.0, highest=3800.0).save(folder)


def _htsat_clap(text: dict[str, Any]) -> ClapModel:
    audio = {
        "spec_size": 64,
        "window_size": 4,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "hidden_size": 16,
        "projection_dim": CLAP_DIM,
        "enable_fusion": False,
        "num_hidden_layers": 2,
    }
    return ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=CLAP_DIM))


def _conv_clap(text: dict[str, Any]) -> ConvClapModel:
    """A tower whose norms have seen something, as after training."""
    model = ConvClapModel(ConvClapConfig(16, (4, 8, 8), TOWER_WIDTH, text))
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model.get_audio_features(-40.0 + 20.0 * torch.randn(8, 1, 60, 16))
    return model.eval()


CLAPS: dict[str, Callable[[dict[str, Any]], PreTrainedModel]] = {
    "clap": _htsat_clap,
    ConvClapConfig.model_type: _conv_clap,
}
"""A small network for every audio encoder in `enclap.model.audio_encoder.AUDIO_ENCODERS`, of a text tower's sizes."""
