"""The published encoders' weights under transformers' names: encodec 0.1.1 and laion-clap 1.1.4 (HTSAT, fusion).

Names were read off the packages' state dicts; tests/test_encoder_references.py holds the result to the packages'
outputs at full size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from enclap.errors import ModelError

Names = tuple[tuple[str, str], ...]
"""Patterns and their replacements, applied one after the other."""

ENCODEC_NAMES: Names = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv|convtr)\.\1\.", ".conv."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),  # torch's current weight normalisation: length,
    (r"\.weight_v$", ".parametrizations.weight.original1"),  # then direction
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)

CLAP_AUDIO_NAMES: Names = (
    (r"^audio_branch\.bn0\.", "audio_branch.batch_norm."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^audio_projection\.0\.", "audio_projection.linear1."),
    (r"^audio_projection\.2\.", "audio_projection.linear2."),
)

CLAP_UNUSED = re.compile(
    r"^(text_|logit_scale_|audio_transform\.)"  # the text tower; what only the contrastive training used
    r"|^audio_branch\.(spectrogram_extractor|logmel_extractor)\."  # a front end that the fusion model bypasses
    r"|^audio_branch\.(tscam_conv|head)\."  # the AudioSet classifier
    r"|^audio_branch\..*\.attn_mask$"  # transformers computes the masks of shifted windows
)
"""What an audio embedding does not need, by laion-clap's names."""


def encodec_state(official: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of transformers' EncodecModel from that of encodec's EncodecModel.

    expected: the target model's own state dict, whose names and shapes must be met exactly (its values are not read,
    so a model on the "meta" device will do). ModelError names every tensor that does not fit.
    """
    rows = ((name, renamed(name, ENCODEC_NAMES), tensor) for name, tensor in official.items())
    return fitted("EnCodec", rows, expected)


def clap_audio_state(official: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The audio tower's and audio projection's part of the state dict of transformers' ClapModel, from laion-clap's.

    Names in `official` may begin with "module.", as in the published files. expected: the target ClapModel's own state
    dict, of which only the names "audio_..." count and no value is read. ModelError names every tensor that does not
    fit.
    """
    audio = {name: tensor for name, tensor in expected.items() if name.startswith("audio_")}
    return fitted("CLAP", _clap_rows(official), audio)


def _clap_rows(official: Mapping[str, Tensor]) -> Iterable[tuple[str, str, Tensor]]:
    for source, tensor in official.items():
        name = source.removeprefix("module.")
        if CLAP_UNUSED.search(name):
            continue
        target = renamed(name, CLAP_AUDIO_NAMES)
        if ".qkv." not in target:
            yield source, target, tensor
            continue
        # laion-clap stacks the three projections; a scalar becomes a row, so that it is reported as a wrong shape
        stacked = tensor if tensor.dim() else tensor[None]
        for part, rows in zip(("query", "key", "value"), stacked.tensor_split(3), strict=True):
            yield source, target.replace(".qkv.", f".{part}."), rows.clone()  # files cannot hold views


def renamed(name: str, names: Names) -> str:
    """`name` after all replacements of `names`."""
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def fitted(model: str, rows: Iterable[tuple[str, str, Tensor]], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by target name, exactly those of `expected` in name and shape; else a ModelError that names the rest.

    model: what the error calls the model. rows: official name, target name and tensor.
    """
    state: dict[str, Tensor] = {}
    left_over, reshaped = [], []
    for source, target, tensor in rows:
        if target not in expected or target in state:
            left_over.append(source)
            continue
        state[target] = tensor
        if tensor.shape != expected[target].shape:
            reshaped.append(f"{target} {list(tensor.shape)} instead of {list(expected[target].shape)}")
    missing = [name for name in expected if name not in state]
    faults = {"missing": missing, "left over": left_over, "of another shape": reshaped}
    if any(faults.values()):
        lists = "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names)
        raise ModelError(f"these are not the weights of the published {model}, fetch them again ({lists})")
    return state
