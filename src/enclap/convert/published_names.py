"""The published weights under our names: the caption model, encodec 0.1.1 and laion-clap 1.1.4 (HTSAT, fusion).

Names were read off the packages' state dicts; tests/test_encoder_references.py holds the result to the packages'
outputs at full size. The encoders' maps leave transformers' own names as they are, so each takes both formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from enclap.errors import ModelError
from enclap.model.loading import list_faults

Names = tuple[tuple[str, str], ...]
"""Patterns and their replacements, applied one after the other."""

CAPTION_NAMES: Names = (
    (r"^model\.encoder\.clap_projection\.", "clap_projection."),
    (r"^model\.encoder\.embed_encodec\.(\d+)\.", r"frame_embedding.tables.\1."),
    (r"^model\.", "bart."),
)

TOKEN_TABLE = "bart.shared.weight"
TIED = re.compile(r"^(lm_head|bart\.(encoder|decoder)\.embed_tokens)\.weight$")
"""Names under which the token table is stored again."""

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

CLAP_TEXT_NAMES: Names = (
    (r"^text_branch\.", "text_model."),
    (r"^text_projection\.0\.", "text_projection.linear1."),
    (r"^text_projection\.2\.", "text_projection.linear2."),
)

CLAP_UNUSED = re.compile(
    r"^(text_|logit_scale_|audio_transform\.)"  # the text tower; what only the contrastive training used
    r"|^audio_branch\.(spectrogram_extractor|logmel_extractor)\."  # a front end that the fusion model bypasses
    r"|^audio_branch\.(tscam_conv|head)\."  # the AudioSet classifier
    r"|^audio_branch\..*\.attn_mask$"  # transformers computes the masks of shifted windows
)
"""What an audio embedding does not need, by laion-clap's names."""

TEXT_CONSTANT = re.compile(r"^text_model\.embeddings\.(position_ids|token_type_ids)$")
"""Tables that follow from the configuration; which of them are stored depends on the version of transformers."""


def caption_state(official: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of our caption model, with the token table once, from that of the published class.

    The published code tables have rows after the hidden code's, which no id reaches; they are cut off. expected: the
    target model's own state dict, of which no value is read. ModelError names every tensor that does not fit.
    """
    rows, copies = [], {}
    for source, tensor in official.items():
        target = renamed(source, CAPTION_NAMES)
        if TIED.search(target):
            copies[source] = tensor
        elif target.startswith("frame_embedding.") and target in expected and tensor.dim():
            rows.append((source, target, tensor[: len(expected[target])]))
        else:
            rows.append((source, target, tensor))
    state = fitted("EnCLAP", rows, {name: tensor for name, tensor in expected.items() if not TIED.search(name)})
    unequal = [name for name, tensor in copies.items() if not torch.equal(tensor, state[TOKEN_TABLE])]
    if unequal:
        raise ModelError(f"EnCLAP stores its token table several times; these differ from it: {', '.join(unequal)}")
    return state


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
    rows: list[tuple[str, str, Tensor]] = []
    for source, tensor in official.items():
        name = source.removeprefix("module.")
        target = renamed(name, CLAP_AUDIO_NAMES)
        if CLAP_UNUSED.search(name):
            continue
        if ".qkv." not in target:
            rows.append((source, target, tensor))
            continue
        # laion-clap stacks the three projections; a scalar becomes a row, so that it is reported as a wrong shape
        parts = (tensor if tensor.dim() else tensor[None]).tensor_split(3)
        for part, values in zip(("query", "key", "value"), parts, strict=True):
            rows.append((source, target.replace(".qkv.", f".{part}."), values.clone()))  # files cannot hold views
    return fitted("CLAP", rows, audio)


def clap_text_state(official: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's and text projection's part, as `clap_audio_state` gives the audio part; no constant tables."""
    text = {
        name: tensor for name, tensor in expected.items() if name.startswith("text_") and not TEXT_CONSTANT.search(name)
    }
    rows = []
    for source, tensor in official.items():
        name = source.removeprefix("module.")
        target = renamed(name, CLAP_TEXT_NAMES)
        unused = not name.startswith("text_") or name.startswith("text_transform.") or TEXT_CONSTANT.search(target)
        if not unused:
            rows.append((source, target, tensor))
    return fitted("CLAP text tower", rows, text)


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
    if listed := list_faults(faults):
        raise ModelError(f"these are not the weights of the published {model}, fetch them again ({listed})")
    return state
