"""Published checkpoints to model folders: caption model, codec and CLAP as safetensors, tokenizer, ONNX graphs.

Tensors go from file to file; no network is built for them but on the "meta" device, whose names and shapes they must
meet exactly.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import ClapConfig, ClapModel, EncodecConfig, EncodecModel
from transformers.utils import logging

from enclap.convert.checkpoints import CAPTION, CLAP, CODEC, OURS, kind_of, read_tensors, weights_in
from enclap.convert.published_names import caption_state, clap_audio_state, clap_text_state, encodec_state
from enclap.convert.published_sizes import caption_config, clap_config, codec_config, front_end
from enclap.errors import ModelError
from enclap.export.folder import export_folder
from enclap.files import flush_tree, replace_folder, scratch_folder
from enclap.hub.integrity import CHECKSUMS, write_checksums
from enclap.hub.layout import (
    CARD,
    CONFIGURATION,
    GENERATION,
    GRAPHS,
    TOKENIZER,
    WEIGHTS,
    write_codec_front_end,
    write_json,
)
from enclap.hub.layout import CLAP as CLAP_FOLDER
from enclap.hub.layout import CODEC as CODEC_FOLDER
from enclap.hub.model_folder import ModelFolder, read_tokenizer
from enclap.model.captioner import EnclapForConditionalGeneration
from enclap.model.configuration import EnclapConfig
from enclap.text import printable

ARCHITECTURES = {
    EncodecConfig: "EncodecModel",
    ClapConfig: "ClapModel",
    EnclapConfig: "EnclapForConditionalGeneration",
}
DESCRIPTIONS = {
    CAPTION: "an EnCLAP caption model",
    CLAP: "CLAP",
    CODEC: "EnCodec",
    OURS: "a model folder of this program",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the parts of a model come from; each is a file or a folder, as published or in transformers' format.

    caption: folder with config.json and pytorch_model.bin or model.safetensors. tokenizer: tokenizer.json or a folder
    that holds it. text_tower: whether to keep CLAP's, which ranking captions by CLAP needs. card: text of README.md.
    """

    caption: Path
    codec: Path
    clap: Path
    tokenizer: Path
    text_tower: bool = False
    card: str = ""


def convert(checkpoint: Checkpoint, folder: Path, graphs: bool = True) -> None:
    """Fill an empty `folder` with the model; graphs: also with the ONNX files that the default engine runs.

    ModelError when a part is damaged, holds more than tensors, or does not fit the others.
    """
    tokenizer = _file_in(checkpoint.tokenizer, TOKENIZER)
    read_tokenizer(tokenizer)
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    codec = convert_codec(checkpoint.codec, folder / CODEC_FOLDER)
    clap = convert_clap(checkpoint.clap, folder / CLAP_FOLDER, tokenizer if checkpoint.text_tower else None)
    caption = convert_caption(checkpoint.caption, folder, codec.sampling_rate / codec.hop_length)
    if clap.projection_dim != caption.clap_dim:
        raise ModelError(
            f"this CLAP gives embeddings of {clap.projection_dim} numbers, the caption model reads {caption.clap_dim}"
        )
    if codec.codebook_size != caption.codebook_entries or codec.num_quantizers < caption.codebooks:
        raise ModelError(
            f"this codec has {codec.num_quantizers} codebooks of {codec.codebook_size} entries, "
            f"the caption model reads {caption.codebooks} of {caption.codebook_entries}"
        )
    ModelFolder.read(folder)  # what would be refused later is refused now
    if checkpoint.card:
        (folder / CARD).write_text(checkpoint.card, encoding="utf-8")
    if graphs:
        with _quiet_transformers():
            export_folder(folder)
    write_checksums(folder)


def export_in_place(folder: Path) -> None:
    """Make `folder`/onnx anew from the folder's weights; a kill at any point leaves a folder that can be used.

    Raises ModelError when a part is missing or damaged, EnvironmentFault when the disk cannot take the graphs.
    """
    ModelFolder.read(folder)
    with scratch_folder(folder.absolute()) as scratch, _quiet_transformers():
        for path in folder.absolute().iterdir():
            if path.name != GRAPHS:
                (scratch / path.name).symlink_to(path)
        export_folder(scratch)
        flush_tree(scratch / GRAPHS)
        (folder / CHECKSUMS).unlink(missing_ok=True)  # which lists the graphs that now go
        replace_folder(scratch / GRAPHS, folder / GRAPHS, scratch / "replaced")
    write_checksums(folder)


def convert_codec(source: Path, folder: Path) -> EncodecConfig:
    """The codec's configuration, after writing it and its weights to `folder`."""
    tensors = _tensors(source, CODEC)
    config = codec_config(_configuration(source), tensors)
    expected = _expected(EncodecModel, config, source)
    _save(_named(source, encodec_state, tensors, expected), config, folder)
    write_codec_front_end(folder, config.sampling_rate, config.audio_channels)
    return config


def convert_clap(source: Path, folder: Path, tokenizer: Path | None = None) -> ClapConfig:
    """CLAP's configuration, after writing it, its weights and its front end to `folder`.

    tokenizer: leaves the text tower in, with the source's own tokenizer.json or, for a file that comes alone, this one
    (the published text tower reads the same tokens as the published caption model).
    """
    tensors = _tensors(source, CLAP)
    config = clap_config(_configuration(source), tensors, text_tower=tokenizer is not None)
    expected = _expected(ClapModel, config, source)
    state = _named(source, clap_audio_state, tensors, expected)
    state |= {name: constant_of_clap(name, tensor, config) for name, tensor in expected.items() if name not in state}
    if tokenizer is not None:
        state |= _named(source, clap_text_state, tensors, expected)
    state |= {name: tensors[name] for name in expected if name.startswith("logit_scale_") and name in tensors}
    _save(state, config, folder)
    front_end(source if source.is_dir() else None, config.audio_config).save(folder)
    if tokenizer is not None:
        own = source / TOKENIZER
        shutil.copyfile(own if own.is_file() else _file_in(tokenizer, TOKENIZER), folder / TOKENIZER)
        given, vectors = read_tokenizer(folder / TOKENIZER).get_vocab_size(), config.text_config.vocab_size
        if given > vectors:
            remedy = "take the tokenizer it had"
            raise ModelError(f"{TOKENIZER}: {given} tokens, but the model has vectors for {vectors}; {remedy}")
    return config


def kind_of_source(source: Path) -> str:
    """What a file or folder holds: CAPTION, CLAP or CODEC; ModelError for anything else, a model folder included."""
    shown = printable(str(source))
    kind = kind_of(read_tensors(weights_in(source)), shown)
    if kind == OURS:
        raise ModelError(f"{shown}: is a model folder of this program already; use it as it is")
    return kind


def convert_caption(source: Path, folder: Path, frame_rate: float) -> EnclapConfig:
    """The caption model's configuration, after writing it, its weights and how it searches to `folder`."""
    directory = source if source.is_dir() else source.parent
    config, generation = caption_config(directory / CONFIGURATION, frame_rate)
    tensors = _tensors(source, CAPTION)
    expected = _expected(EnclapForConditionalGeneration, config, source)
    _save(_named(source, caption_state, tensors, expected), config, folder)
    write_json(folder / GENERATION, generation)
    return config


def _tensors(source: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a file or folder; ModelError when they belong to another model."""
    shown = printable(str(source))
    tensors = read_tensors(weights_in(source))
    found = kind_of(tensors, shown)
    if found != kind:
        raise ModelError(f"{shown}: holds {DESCRIPTIONS[found]} where {DESCRIPTIONS[kind]} belongs")
    return tensors


def _configuration(source: Path) -> Path | None:
    """The configuration beside the weights; None for a file that comes alone."""
    path = source / CONFIGURATION
    return path if source.is_dir() and path.is_file() else None


def _expected(kind: Any, config: Any, source: Path) -> dict[str, Tensor]:
    """The state dict, without values, of the network that a configuration describes."""
    try:
        with torch.device("meta"):
            return dict(kind(config).state_dict())
    except Exception as error:  # sizes that contradict each other fail in many places
        line = " ".join(str(error).split())[:200]
        raise ModelError(f"{printable(str(source))}: no network has the configured sizes ({line})") from error


def _named(source: Path, mapped: Any, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Any:
    """What a name map makes of the tensors; its error says which file they came from."""
    try:
        return mapped(tensors, expected)
    except ModelError as error:
        raise ModelError(f"{printable(str(source))}: {error}") from error


def constant_of_clap(name: str, tensor: Tensor, config: ClapConfig) -> Tensor:
    """The value of what CLAP's class has and no embedding reads, or what follows from its configuration."""
    if name.endswith("position_ids"):
        return torch.arange(tensor.shape[-1]).expand(tensor.shape)
    if name.startswith("logit_scale_"):
        return torch.tensor(float(config.logit_scale_init_value)).log()
    return torch.zeros(tensor.shape, dtype=tensor.dtype)


def _save(state: Mapping[str, Tensor], config: Any, folder: Path) -> None:
    """Write weights and configuration, the weights in float32."""
    folder.mkdir(exist_ok=True)
    kept = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous() for name, tensor in state.items()
    }
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes files that only their owner may read
    config.architectures = [ARCHITECTURES[type(config)]]
    config.dtype = "float32"
    config.save_pretrained(folder)


def _file_in(source: Path, name: str) -> Path:
    return source / name if source.is_dir() else source


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Holds back what transformers says of every file that it reads."""
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
