"""What a model folder holds: the names of its files and graphs, its format version, and the slots its encoder has.

This is the one place that spells these names. It imports nothing large, so that commands which only look at a folder
start at once; `hub/model_folder.py` reads and checks what the files say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from enclap.errors import ModelError
from enclap.text import first_line, printable

FORMAT_VERSION = 1
"""Version of the format that this program writes; a folder of another version is refused."""
MODEL_TYPE = "enclap"
"""`model_type` of config.json, by which a folder is known to be one of this program's."""

CONFIGURATION = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
FRONT_END = "preprocessor_config.json"
CARD = "README.md"
ATTRIBUTION = "ATTRIBUTION.csv"
CODEC, CLAP, GRAPHS = "codec", "clap", "onnx"
"""Folders inside: the codec and CLAP, each with a configuration, weights and a front end, and the ONNX graphs."""
EXTERNAL_WEIGHTS = "weights.data"
"""File beside the graphs that holds the weights of large ones."""


class Graph(StrEnum):
    """Names of the ONNX graphs, each a file in the folder's onnx/."""

    ENCODER = "encoder"
    DECODER = "decoder"
    CODEC_LATENTS = "codec_latents"
    CODEC_CODES = "codec_codes"
    CLAP_AUDIO = "clap_audio"
    CLAP_FUSED = "clap_fused"
    CLAP_TEXT = "clap_text"


INT8_SUFFIX = "_int8"
"""Added to a graph's name for its twin with 8-bit products."""
CONTEXT_FRAMES = "context_frames"
"""Metadata of the graph CODEC_LATENTS: frames by which a segment's start reaches into its output; absent if all do."""

SPECIAL_TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2}
"""Ids that every caption model is trained with."""


def graph_file(name: str) -> str:
    """The path of a graph, relative to the model folder."""
    return f"{GRAPHS}/{name}.onnx"


def cross_names(layers: int) -> list[str]:
    """Names of the cross-attention's keys and values, which the encoder graph gives and the decoder graph takes."""
    return [f"cross_{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]


def leading_slots(clap_slots: int) -> int:
    """Encoder slots before the first code frame: those of CLAP's embedding and <s>."""
    return clap_slots + 1


def special_slots(clap_slots: int) -> int:
    """Encoder slots that no code frame can have: the leading ones, and </s> after the last frame."""
    return leading_slots(clap_slots) + 1


def max_frames(positions: int, clap_slots: int) -> int:
    """Code frames that fit into `positions` encoder slots."""
    return positions - special_slots(clap_slots)


def check_format_version(version: object, shown: str) -> None:
    """Raises ModelError unless this program reads folders of this version; shown: the file that names it."""
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{shown}: format_version {version!r} is not known; this enclap reads version {FORMAT_VERSION}, "
            "so update enclap or export the model again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError when it is missing or holds something else."""
    shown = printable(str(path))
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{shown}: missing; the model folder is incomplete, fetch or export it again") from error
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{shown}: cannot be read: {reason}; see that you may read it") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{shown}: damaged, it is not JSON ({first_line(error)}); fetch the model again") from error
    if not isinstance(table, dict):
        raise ModelError(f"{shown}: damaged, it holds no table; fetch the model again")
    return table


def read_configuration(folder: Path) -> dict[str, Any]:
    """The table in the folder's config.json; ModelError when it is missing or damaged."""
    if not (folder / CONFIGURATION).is_file():
        raise ModelError(f"{printable(str(folder))}: not a model folder, {CONFIGURATION} is missing")
    return read_json(folder / CONFIGURATION)


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as one of a model folder's JSON files."""
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def write_codec_front_end(codec_folder: Path, rate: int, channels: int = 1) -> None:
    """Write the codec's preprocessor_config.json, with the names of transformers' EncodecFeatureExtractor.

    rate: samples per second.
    """
    table = {"feature_extractor_type": "EncodecFeatureExtractor", "feature_size": channels, "sampling_rate": rate}
    write_json(codec_folder / FRONT_END, table)
