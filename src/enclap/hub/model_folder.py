"""A model folder's descriptions, read and checked without PyTorch or transformers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from enclap.audio.mel import MelFrontEnd
from enclap.decoding.token_rules import TokenRules
from enclap.errors import ModelError

FORMAT_VERSION = 1
"""The model folder format that the runtime reads."""
SPECIAL_SLOTS = 3
"""Encoder slots that no frame can have: [CLAP], <s> and </s>."""
SPECIAL_TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2}
"""Ids that every caption model is trained with."""
DEFAULT_MAX_LENGTH = 50
"""Longest caption in tokens when generation_config.json names none."""

Table = TypeVar("Table", bound=BaseModel)


class CaptionTable(BaseModel):
    """What the runtime reads of config.json."""

    model_config = ConfigDict(frozen=True)

    model_type: Literal["enclap"]
    format_version: int
    vocab_size: int = Field(gt=0)
    d_model: int = Field(gt=0)
    decoder_layers: int = Field(gt=0)
    decoder_attention_heads: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=SPECIAL_SLOTS)
    codebooks: int = Field(gt=0)
    use_clap: bool
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
    upsampling_ratios: list[int]


class TextTable(BaseModel):
    """What the runtime reads of CLAP's text tower; RoBERTa's positions start behind the padding id."""

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
        if not path.is_dir():
            raise ModelError(f"{path}: no such model folder; check the name, or see `enclap models list`")
        raw = read_json(path / "config.json")
        version = raw.get("format_version")
        if raw.get("model_type") == "enclap" and version != FORMAT_VERSION:
            raise ModelError(
                f"{path / 'config.json'}: format_version {version!r} is not known; this enclap reads version "
                f"{FORMAT_VERSION}, so update enclap or export the model again"
            )
        caption = _validated(CaptionTable, raw, path / "config.json")
        generation_path = path / "generation_config.json"
        generation = _validated(GenerationTable, read_json(generation_path), generation_path)
        needs_mel = caption.acoustic_input == "log_mel"
        front_end = MelFrontEnd.from_folder(path / "clap") if caption.use_clap or needs_mel else None
        return cls(
            path=path,
            caption=caption,
            rules=_rules(generation),
            tokenizer=_caption_tokenizer(path / "tokenizer.json", caption),
            codec_rate=_codec_rate(path, caption) if caption.acoustic_input == "codes" else None,
            clap=front_end if caption.use_clap else None,
            mel=_at_frame_rate(front_end, caption) if needs_mel and front_end is not None else None,
        )

    @property
    def max_frames(self) -> int:
        """Code frames that fit beside the special slots."""
        return self.caption.max_position_embeddings - SPECIAL_SLOTS

    def require(self, relative: str) -> Path:
        """The path of a file in the folder; ModelError when it is missing."""
        path = self.path / relative
        if not path.is_file():
            raise ModelError(f"{path}: missing; the model folder is incomplete, fetch or export it again")
        return path


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError when it is missing or holds something else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; the model folder is incomplete, fetch or export it again") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({_line(error)}); fetch or export the model again") from error
    if not isinstance(table, dict):
        raise ModelError(f"{path}: holds no JSON object; fetch or export the model again")
    return table


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json; ModelError when it is missing or damaged."""
    if not path.is_file():
        raise ModelError(f"{path}: missing; the model folder is incomplete, fetch or export it again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises the bare type
        raise ModelError(f"{path}: not a usable tokenizer ({_line(error)}); fetch or export the model again") from error


def _caption_tokenizer(path: Path, caption: CaptionTable) -> Tokenizer:
    """The caption model's tokenizer; ModelError when its ids mean something else to the model, or nothing."""
    tokenizer = read_tokenizer(path)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    remedy = "put the tokenizer beside the model that it was trained with"
    if ids != SPECIAL_TOKENS:
        found, wanted = (", ".join(f"{token} {table[token]}" for token in table) for table in (ids, SPECIAL_TOKENS))
        raise ModelError(f"{path}: special tokens {found}, but the model reads {wanted}; {remedy}")
    if tokenizer.get_vocab_size() > caption.vocab_size:
        size = tokenizer.get_vocab_size()
        raise ModelError(f"{path}: {size} tokens, but the model has vectors for {caption.vocab_size}; {remedy}")
    return tokenizer


def read_text_tokenizer(clap_folder: Path) -> Tokenizer:
    """The tokenizer of CLAP's text tower, which pads a batch and cuts texts that the tower's positions cannot hold."""
    path = clap_folder / "config.json"
    text = _validated(ClapTable, read_json(path), path).text_config
    tokenizer = read_tokenizer(clap_folder / "tokenizer.json")
    tokenizer.enable_padding(pad_id=text.pad_token_id)
    tokenizer.enable_truncation(text.max_position_embeddings - text.pad_token_id - 1)
    return tokenizer


def _validated(kind: type[Table], raw: dict[str, Any], path: Path) -> Table:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}" for fault in error.errors())
        raise ModelError(f"{path}: {faults}; fetch or export the model again") from error


def _rules(table: GenerationTable) -> TokenRules:
    return TokenRules(
        start=table.decoder_start_token_id,
        pad=table.pad_token_id,
        end=table.eos_token_id,
        forced_first=table.forced_bos_token_id,
        forced_last=table.forced_eos_token_id,
        min_length=table.min_length or 0,
        max_length=DEFAULT_MAX_LENGTH if table.max_length is None else table.max_length,
        no_repeat_ngram=table.no_repeat_ngram_size or 0,
    )


def _codec_rate(path: Path, caption: CaptionTable) -> int:
    """The codec's sample rate; ModelError when its frames do not come at the caption model's rate."""
    where = path / "codec" / "config.json"
    codec = _validated(CodecTable, read_json(where), where)
    frame_rate = codec.sampling_rate / math.prod(codec.upsampling_ratios)
    if not math.isclose(frame_rate, caption.frame_rate, rel_tol=1e-6):
        raise ModelError(
            f"{where}: the codec gives {frame_rate:g} frames per second, but the caption model reads "
            f"{caption.frame_rate:g}; put the codec beside it that it was trained with"
        )
    return codec.sampling_rate


def _at_frame_rate(front_end: MelFrontEnd, caption: CaptionTable) -> MelFrontEnd:
    """CLAP's front end with the hop and bands of the log-mel input."""
    return MelFrontEnd(
        rate=front_end.rate,
        length=front_end.length,
        fft_size=front_end.fft_size,
        hop=round(front_end.rate / caption.frame_rate),
        bands=caption.log_mel_bands,
        lowest=front_end.lowest,
        highest=front_end.highest,
    )


def _line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:200]
