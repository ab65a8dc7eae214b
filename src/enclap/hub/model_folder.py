"""Reads a model folder and checks that its files fit together, without PyTorch or transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from tokenizers import Tokenizer

from enclap.audio.mel import MelFrontEnd
from enclap.decoding.token_rules import TokenRules
from enclap.errors import ModelError
from enclap.hub.layout import (
    CLAP,
    CODEC,
    CONFIGURATION,
    GENERATION,
    MODEL_TYPE,
    SPECIAL_TOKENS,
    TOKENIZER,
    check_format_version,
    graph_file,
    max_frames,
    read_configuration,
    read_json,
    special_slots,
)
from enclap.text import first_line, printable

DEFAULT_MAX_LENGTH = 50
"""Longest caption in tokens when generation_config.json names none."""

Table = TypeVar("Table", bound=BaseModel)


class CaptionTable(BaseModel):
    """What the runtime reads of config.json."""

    model_config = ConfigDict(frozen=True)

    model_type: Literal["enclap"]  # MODEL_TYPE, which a type cannot name
    format_version: int
    vocab_size: int = Field(gt=0)
    d_model: int = Field(gt=0)
    decoder_layers: int = Field(gt=0)
    decoder_attention_heads: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=special_slots(1))
    codebooks: int = Field(gt=0)
    use_clap: bool
    clap_slots: int = Field(default=1, gt=0, le=16)
    clap_dim: int
    acoustic_input: Literal["codes", "log_mel", "none"]
    frame_rate: float = Field(gt=0)
    log_mel_bands: int = Field(gt=0)


class GenerationTable(BaseModel):
    """What the runtime reads of generation_config.json."""

    model_config = ConfigDict(frozen=True)

    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int = 2
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    no_repeat_ngram_size: int | None = None


class CodecTable(BaseModel):
    """What the runtime reads of codec/config.json."""

    model_config = ConfigDict(frozen=True)

    sampling_rate: int = Field(gt=0)
    upsampling_ratios: list[PositiveInt]


class TextTable(BaseModel):
    """What the runtime reads of CLAP's text tower; RoBERTa's positions start after the padding id."""

    model_config = ConfigDict(frozen=True)

    max_position_embeddings: int = 514
    pad_token_id: int = 1


class ClapTable(BaseModel):
    """What the runtime reads of clap/config.json."""

    model_config = ConfigDict(frozen=True)

    text_config: TextTable = TextTable()


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder whose descriptions have been read.

    codec_rate: samples per second that the codec takes, None without one. clap, mel: front ends of CLAP and of log-mel
    input, None where the model has no such input.
    """

    path: Path
    caption: CaptionTable
    rules: TokenRules
    tokenizer: Tokenizer
    codec_rate: int | None
    clap: MelFrontEnd | None
    mel: MelFrontEnd | None

    @classmethod
    def read(cls, path: Path) -> ModelFolder:
        """The folder's descriptions; ModelError when one is missing, damaged or of an unknown version."""
        require_folder(path)
        raw = read_configuration(path)
        if raw.get("model_type") == MODEL_TYPE:
            check_format_version(raw.get("format_version"), printable(str(path / CONFIGURATION)))
        caption = _validated(CaptionTable, raw, path / CONFIGURATION)
        generation = _validated(GenerationTable, read_json(path / GENERATION), path / GENERATION)
        needs_mel = caption.acoustic_input == "log_mel"
        front_end = MelFrontEnd.from_folder(path / CLAP) if caption.use_clap or needs_mel else None
        return cls(
            path=path,
            caption=caption,
            rules=TokenRules(
                start=generation.decoder_start_token_id,
                pad=generation.pad_token_id,
                end=generation.eos_token_id,
                forced_first=generation.forced_bos_token_id,
                forced_last=generation.forced_eos_token_id,
                min_length=generation.min_length or 0,
                max_length=DEFAULT_MAX_LENGTH if generation.max_length is None else generation.max_length,
                no_repeat_ngram=generation.no_repeat_ngram_size or 0,
            ),
            tokenizer=read_caption_tokenizer(path / TOKENIZER, caption),
            codec_rate=read_codec_rate(path, caption) if caption.acoustic_input == "codes" else None,
            clap=front_end if caption.use_clap else None,
            mel=log_mel_front_end(front_end, caption) if needs_mel and front_end is not None else None,
        )

    @property
    def max_frames(self) -> int:
        """Code frames that fit into the model's positions beside the special slots."""
        return max_frames(self.caption.max_position_embeddings, self.caption.clap_slots)

    @property
    def special_slots(self) -> int:
        """Encoder slots beside the code frames."""
        return special_slots(self.caption.clap_slots)

    def has_graph(self, name: str) -> bool:
        """Whether the folder holds the ONNX graph of that name."""
        return (self.path / graph_file(name)).is_file()

    def require(self, relative: str) -> Path:
        """The path of a file in the folder; ModelError when it is missing."""
        return _require_file(self.path / relative)


def require_folder(path: Path) -> None:
    """Raises ModelError when there is no folder at `path`."""
    if not path.is_dir():
        raise ModelError(f"{printable(str(path))}: no such model folder; check the name, or see `enclap models list`")


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json; ModelError when it is missing or damaged."""
    _require_file(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises the bare type
        fault = f"not a usable tokenizer ({first_line(error)}); fetch or export the model again"
        raise ModelError(f"{printable(str(path))}: {fault}") from error


def read_text_tokenizer(clap_folder: Path) -> Tokenizer:
    """The tokenizer of CLAP's text tower, which pads a batch and cuts texts that the tower's positions cannot hold."""
    path = clap_folder / CONFIGURATION
    text = _validated(ClapTable, read_json(path), path).text_config
    tokenizer = read_tokenizer(clap_folder / TOKENIZER)
    tokenizer.enable_padding(pad_id=text.pad_token_id)
    tokenizer.enable_truncation(text.max_position_embeddings - text.pad_token_id - 1)
    return tokenizer


def _require_file(path: Path) -> Path:
    """The path of a file that must be there; ModelError when it is not."""
    if not path.is_file():
        shown = printable(str(path))
        raise ModelError(f"{shown}: missing; the model folder is incomplete, fetch or export it again")
    return path


def read_caption_tokenizer(path: Path, caption: CaptionTable) -> Tokenizer:
    """The caption model's tokenizer; ModelError when its ids mean something else to the model, or nothing."""
    tokenizer, shown = read_tokenizer(path), printable(str(path))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    remedy = "put the tokenizer beside the model that it was trained with"
    if ids != SPECIAL_TOKENS:
        found, expected = (", ".join(f"{token} {table[token]}" for token in table) for table in (ids, SPECIAL_TOKENS))
        raise ModelError(f"{shown}: special tokens {found}, but the model reads {expected}; {remedy}")
    if tokenizer.get_vocab_size() > caption.vocab_size:
        size = tokenizer.get_vocab_size()
        raise ModelError(f"{shown}: {size} tokens, but the model has vectors for {caption.vocab_size}; {remedy}")
    return tokenizer


def _validated(kind: type[Table], raw: dict[str, Any], path: Path) -> Table:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}" for fault in error.errors())
        raise ModelError(f"{printable(str(path))}: {faults}; fetch or export the model again") from error


def read_codec_rate(path: Path, caption: CaptionTable) -> int:
    """The codec's sample rate; ModelError when its frames do not come at the caption model's rate."""
    where = path / CODEC / CONFIGURATION
    codec = _validated(CodecTable, read_json(where), where)
    frame_rate = codec.sampling_rate / math.prod(codec.upsampling_ratios)
    if not math.isclose(frame_rate, caption.frame_rate, rel_tol=1e-6):
        raise ModelError(
            f"{printable(str(where))}: the codec gives {frame_rate:g} frames per second, but the caption model reads "
            f"{caption.frame_rate:g}; put the codec beside it that it was trained with"
        )
    return codec.sampling_rate


def log_mel_front_end(front_end: MelFrontEnd, caption: CaptionTable) -> MelFrontEnd:
    """CLAP's front end with the hop and bands of the log-mel input."""
    hop = round(front_end.rate / caption.frame_rate)
    return replace(front_end, hop=hop, bands=caption.log_mel_bands, fused=False)
