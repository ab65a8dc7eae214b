"""Complete model folders at the published sizes, with weights that anybody can rebuild from a rule.

No released weight is needed to prove that the program computes what the published one computes, nor to measure how
fast it is: `../shared/reference/encoders` and `../shared/reference/full_size` hold the published packages' outputs
for these weights. The tests of the tier `full` and the speed tables run on what `rule_folder` writes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import ClapConfig, ClapModel, EncodecConfig, EncodecModel

from enclap.audio.mel import MelFrontEnd
from enclap.convert.published_names import clap_audio_state, encodec_state
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.codec import Codec

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
SIZES = ("base", "large")
CODEBOOKS = 16  # 12 kbps
TOKEN_TABLE = "model.shared.weight"
LOUDNESS = 4  # factor of the token table: spreads the logits, so that sentences depend on the sound
PAD = 1
FINISHED = "rule_weights.json"  # written last: a folder without it was cut off

OFFICIAL_NAMES = (
    (r"^clap_projection\.", "model.encoder.clap_projection."),
    (r"^frame_embedding\.tables\.", "model.encoder.embed_encodec."),
    (r"^bart\.", "model."),
)
"""From our state dict's names to those of the published class, which the rule draws from."""

CLAP_AUDIO = {
    "spec_size": 256,
    "window_size": 8,
    "num_mel_bins": 64,
    "patch_size": 4,
    "patch_stride": [4, 4],
    "patch_embeds_hidden_size": 96,
    "depths": [2, 2, 6, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "hidden_size": 768,
    "projection_dim": 512,
    "enable_fusion": True,
    "fusion_type": "aff_2d",
    "aff_block_r": 4,
}
"""The audio tower of laion/clap-htsat-fused."""
CLAP_TEXT = {
    "vocab_size": 8,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
}
"""A tiny text tower, because the reference fills none."""
CLAP_FRONT_END = MelFrontEnd(
    rate=48_000, length=480_000, fft_size=1024, hop=480, bands=64, lowest=50.0, highest=14_000.0, fused=True
)


def filled(name: str, shape: list[int]) -> Tensor:
    """The float32 tensor that the rule gives for a published name and a shape."""
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean"):
        noise *= 0.1
    elif len(shape) >= 2 and not name.endswith("weight_g"):
        noise /= math.sqrt(math.prod(shape[1:]))
    elif name.endswith(("weight", "weight_g")):
        noise = 1 + 0.1 * noise
    else:
        noise *= 0.02
    return torch.from_numpy(noise.astype(np.float32))


def published_state(reference: Path, model: str) -> dict[str, Tensor]:
    """An encoder package's whole state dict; model: encodec_24khz or clap_htsat_tiny_fusion."""
    keys = json.loads((reference / "enclap_tiny" / f"state_dict_keys_{model}.json").read_text())["tensors"]
    by_rule = set(json.loads((reference / "encoders" / "filled_tensors.json").read_text())[model])
    if not by_rule <= set(keys):
        raise ValueError(f"{reference}: filled_tensors.json names tensors that {model} has not")
    return {
        name: filled(name, key["shape"]) if name in by_rule else _initial(name, key["shape"], key["dtype"])
        for name, key in keys.items()
    }


def _initial(name: str, shape: list[int], dtype: str) -> Tensor:
    """The value of a tensor that the rule leaves alone; zeros where nothing reads it."""
    if name.endswith("relative_position_index"):
        return _window_index(math.isqrt(shape[0]))
    return torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)


def _window_index(window: int) -> Tensor:
    """Row of the relative position table for each pair of positions in a square window, int64 [window², window²]."""
    rows, columns = np.divmod(np.arange(window**2), window)
    down = rows[:, None] - rows + window - 1
    right = columns[:, None] - columns + window - 1
    return torch.from_numpy(down * (2 * window - 1) + right)


def rule_codec(reference: Path = REFERENCE) -> Codec:
    """EnCodec 24 kHz at 12 kbps: transformers' default configuration is the published one."""
    model = EncodecModel(EncodecConfig())
    model.load_state_dict(encodec_state(published_state(reference, "encodec_24khz"), model.state_dict()))
    return Codec(model, codebooks=CODEBOOKS)


def rule_clap(reference: Path = REFERENCE) -> ClapModel:
    """CLAP as in laion/clap-htsat-fused, but for a tiny text tower."""
    model = ClapModel(ClapConfig(audio_config=CLAP_AUDIO, text_config=CLAP_TEXT, projection_dim=512))
    state = clap_audio_state(published_state(reference, "clap_htsat_tiny_fusion"), model.state_dict())
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(name.startswith("audio_") for name in missing):
        raise ValueError(f"CLAP's audio tower is not filled whole: {missing}, {unexpected}")
    return model.eval()


def rule_caption_model(size: str) -> EnclapForConditionalGeneration:
    """The caption model; size: base or large."""
    with torch.device("meta"):
        model = EnclapForConditionalGeneration(caption_config(size))
    entries = model.config.codebook_entries
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        official = name
        for pattern, replacement in OFFICIAL_NAMES:
            official = re.sub(pattern, replacement, official)
        if official in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
            official = TOKEN_TABLE
        if official == "final_logits_bias":
            state[name] = torch.zeros(tensor.shape)
        elif official == TOKEN_TABLE:
            state[name] = state.get("bart.shared.weight", _token_table(list(tensor.shape)))
        else:
            state[name] = filled(official, list(tensor.shape))
        if name.startswith("frame_embedding"):
            state[name][entries] = 0  # the published tables have rows after this one, which no code reaches
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return model.eval()


def _token_table(shape: list[int]) -> Tensor:
    table = LOUDNESS * filled(TOKEN_TABLE, shape)
    table[PAD] = 0
    return table


def caption_config(size: str) -> EnclapConfig:
    """The published configuration of a size."""
    if size == "base":
        return EnclapConfig()
    return EnclapConfig(
        d_model=1024,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
    )


def rule_folder(folder: Path, size: str, reference: Path = REFERENCE, graphs: bool = True) -> Path:
    """`folder`, a complete model folder of a size, now written unless it was there; graphs: with its ONNX graphs."""
    finished = folder / FINISHED
    if finished.is_file() and json.loads(finished.read_text()) == {"size": size, "graphs": graphs}:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rule_caption_model(size).save_pretrained(folder)
    rule_codec(reference).model.save_pretrained(folder / "codec")
    rule_clap(reference).save_pretrained(folder / "clap")
    CLAP_FRONT_END.save(folder / "clap")
    flags = json.loads((reference / "enclap_tiny" / "generation_flags.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(flags))
    _save_tokenizer(folder / "tokenizer.json", caption_config(size).vocab_size)
    if graphs:
        from enclap.export.folder import export_folder

        export_folder(folder)
    finished.write_text(json.dumps({"size": size, "graphs": graphs}))
    return folder


def _save_tokenizer(path: Path, size: int) -> None:
    """A tokenizer with a made-up word for every id: the rule's sentences mean nothing."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {f"word{index}": index for index in range(4, size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.save(str(path))


def main() -> None:
    """Write the folders that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the folders base and large are written")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    options = parser.parse_args()
    for size in options.size or SIZES:
        print(rule_folder(options.folder / size, size, options.reference))


if __name__ == "__main__":
    main()
