"""The authors' release: the files it consists of, and the model folder that is made of them once, beside the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from enclap.errors import EnvironmentFault, MissingExtra, ModelError
from enclap.files import new_folder, require_room
from enclap.hub.download import Repository, Snapshot, cache_folder, cached, fetch
from enclap.hub.integrity import check_folder
from enclap.hub.layout import CONFIGURATION, FRONT_END, WEIGHTS
from enclap.hub.layout import TOKENIZER as TOKENIZER_FILE

CAPTION = Repository("enclap-team/enclap", kind="space", required=(("ckpt/config.json",), ("ckpt/pytorch_model.bin",)))
WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
"""What the weights of a published part may be called; the first that is there is read."""
CODEC = Repository("facebook/encodec_24khz", required=((CONFIGURATION,), WEIGHT_FILES))
CLAP = Repository(
    "laion/clap-htsat-fused",
    required=((CONFIGURATION,), (FRONT_END,), WEIGHT_FILES),
    optional=(TOKENIZER_FILE,),
)
TOKENIZER = Repository("facebook/bart-base", required=((TOKENIZER_FILE,),))
PARTS = (CAPTION, CODEC, CLAP, TOKENIZER)

CONVERSION = 2
"""Raise it when the converter makes something else of the same files: they are then converted anew."""
GROWTH = 2.2
"""Size of a converted folder, safetensors and ONNX graphs, in sizes of the weights that it is made of."""
CONVERTER = "enclap.convert.convert"
"""Imported by name when a conversion is asked for: it needs PyTorch, which the runtime does without."""
logger = logging.getLogger(__name__)


def official_folder() -> Path | None:
    """The converted release, the one with the text tower where there is one; None before it was made. No network."""
    snapshots = [cached(part) for part in PARTS]
    known = [snapshot for snapshot in snapshots if snapshot is not None]
    if len(known) < len(PARTS):
        return None
    folders = (_folder(known, text_tower) for text_tower in (True, False))
    return next((folder for folder in folders if folder.is_dir()), None)


def pull_official(update: bool = False, text_tower: bool = False) -> Path:
    """The converted release, fetched and converted unless that is done; what is there is verified.

    update: take the newest revisions instead of the locked ones. Raises what `fetch` and the converter raise,
    and MissingExtra before anything is fetched when PyTorch is not installed.
    """
    require_converter()
    snapshots = [fetch(part, update) for part in PARTS]
    folder = _folder(snapshots, text_tower)
    if folder.is_dir():
        try:
            check_folder(folder, hashes=True)
            return folder
        except ModelError:
            shutil.rmtree(folder)
    logger.warning("official: converting, once; this takes a minute or two")
    caption, codec, clap, tokenizer = (snapshot.folder for snapshot in snapshots)
    convert_parts(
        (caption / "ckpt", codec, clap, tokenizer), folder, text_tower=text_tower, card=release_card(snapshots)
    )
    return folder


def convert_parts(
    parts: tuple[Path, Path, Path, Path], output: Path, *, text_tower: bool = False, graphs: bool = True, card: str = ""
) -> None:
    """Make the model folder `output` of caption model, codec, CLAP and tokenizer: whole, or not at all."""
    require_converter()
    caption, codec, clap, tokenizer = parts
    require_room(output.parent, int(GROWTH * sum(weight_bytes(part) for part in parts)), "converting")
    converter = import_module(CONVERTER)
    checkpoint = converter.Checkpoint(caption, codec, clap, tokenizer, text_tower, card)
    try:
        with new_folder(output) as temporary:
            converter.convert(checkpoint, temporary, graphs)
    except EnvironmentFault:
        if not (output / CONFIGURATION).is_file():
            raise
        check_folder(output)  # another process was faster


def require_converter() -> None:
    """Raises MissingExtra unless PyTorch, which opens the published files, is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "safetensors", "onnx")):
        raise MissingExtra("converting published weights", "train")


def _folder(snapshots: Iterable[Snapshot], text_tower: bool) -> Path:
    """Where the conversion of exactly these files lies."""
    contents = [(item.revision, sorted((name, file.sha256) for name, file in item.files.items())) for item in snapshots]
    digest = hashlib.sha256(json.dumps([CONVERSION, contents]).encode()).hexdigest()[:12]
    return cache_folder() / f"official-{digest}{'-text' if text_tower else ''}"


def weight_bytes(part: Path) -> int:
    """Bytes of the weights in a file or folder."""
    files = [part] if part.is_file() else [path for name in WEIGHT_FILES if (path := part / name).is_file()][:1]
    return sum(path.stat().st_size for path in files)


def release_card(snapshots: Iterable[Snapshot]) -> str:
    """The model card of the conversion: what it was made of."""
    lines = [
        "# EnCLAP, the authors' weights",
        "",
        "Converted on this machine from the authors' release ([arXiv 2401.17690](https://arxiv.org/abs/2401.17690)).",
        "The terms of each repository apply.",
        "",
        "| repository | revision | file | SHA-256 |",
        "|---|---|---|---|",
    ]
    for part, snapshot in zip(PARTS, snapshots, strict=True):
        for name, record in snapshot.files.items():
            lines.append(f"| {part.kind} {part.identifier} | {snapshot.revision} | {name} | {record.sha256} |")
    return "\n".join(lines) + "\n"
