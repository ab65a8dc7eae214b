"""Model name -> local folder: bundled with the package, a folder, the authors' release, or a repository on the hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import ModelError, UsageError
from enclap.files import check_free, is_folder, new_folder, require_room, sha256
from enclap.hub.download import Repository, Snapshot, cache_folder, cached, fetch, locked_identifiers
from enclap.hub.integrity import (
    CHECKSUMS,
    check_folder,
    folder_size,
    write_checksums,
)
from enclap.hub.layout import ATTRIBUTION, CARD, CONFIGURATION, MODEL_TYPE, read_configuration
from enclap.text import printable

BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"
DEFAULT_MODEL = "mini"
OFFICIAL = "official"  # the authors' weights, under their own name
MODEL_FILES = ("*.json", "*.safetensors", "*.onnx", "*.data", CHECKSUMS, CARD, ATTRIBUTION)
"""What is taken of a model folder elsewhere: weights and tables only, never code."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that needs no download. size: bytes of the folder."""

    name: str
    folder: Path
    size: int


def find_model(name: str | os.PathLike[str]) -> Path:
    """The folder of a bundled model, a local folder, the authors' release or a hub repository; fetched unless cached.

    What was fetched once is used as it is, without asking the hub. Raises ModelError when there is none, it cannot be
    fetched, or its files have the wrong sizes.
    """
    text = os.fspath(name)
    folder = _local_folder(text) or _pull(text, update=False, text_tower=False)
    check_folder(folder)
    return folder


def find_local_model(name: str | os.PathLike[str]) -> Path:
    """As `find_model`, but nothing is fetched: ModelError when the model is not on this machine."""
    text = os.fspath(name)
    folder = _local_folder(text)
    if folder is None:
        _require_name(text)
        raise ModelError(f"{text}: not on this machine yet; fetch it with `enclap models pull {text}`")
    check_folder(folder)
    return folder


def pull_model(name: str, update: bool = False, text_tower: bool = False) -> Path:
    """The model's folder, complete and with every checksum verified; fetched where something is missing.

    update: take the newest revision and lock it anew. text_tower: of the authors' release, also CLAP's text tower.
    Raises what `find_model` raises.
    """
    if text_tower and name != OFFICIAL:
        raise UsageError(f"{printable(name)}: its folder has a text tower or not; --text-tower is for {OFFICIAL}")
    on_hub = name == OFFICIAL or (HUB_ID.fullmatch(name) is not None and not is_folder(name))
    folder = _pull(name, update, text_tower) if on_hub else find_local_model(name)
    check_folder(folder, hashes=True)
    return folder


def bundle_model(name: str, output: Path, update: bool = False, text_tower: bool = False) -> None:
    """Write a folder that is all that another machine without a network needs to use the model.

    Raises what `pull_model` and `new_folder` raise.
    """
    check_free(output)
    source = pull_model(name, update, text_tower)
    require_room(output.parent, folder_size(source), "the copy")
    with new_folder(output) as temporary:
        for path in sorted({path for pattern in MODEL_FILES for path in source.rglob(pattern) if path.is_file()}):
            if not any(part.startswith(".") for part in path.relative_to(source).parts):
                target = temporary / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        write_checksums(temporary)


def bundled_models() -> list[ModelEntry]:
    """The models inside the package, by name."""
    folders = sorted(BUNDLED_FOLDER.glob(f"*/{CONFIGURATION}"))
    return [ModelEntry(path.parent.name, path.parent, folder_size(path.parent)) for path in folders]


def fetched_models() -> Iterator[ModelEntry]:
    """The models that were fetched before and are complete, the authors' release first."""
    from enclap.hub.official_release import official_folder

    official = official_folder()
    if official is not None:
        yield ModelEntry(OFFICIAL, official, folder_size(official))
    for identifier in locked_identifiers():
        folder = _local_folder(identifier)
        if folder is not None and _is_ours(folder):
            yield ModelEntry(identifier, folder, folder_size(folder))


def _local_folder(text: str) -> Path | None:
    """The folder of a model that is on this machine, complete or not; None when it is not."""
    bundled = BUNDLED_FOLDER / text
    if text == OFFICIAL:
        from enclap.hub.official_release import official_folder

        return official_folder()
    if text and is_folder(text):
        return Path(text)
    if re.fullmatch(r"\w+", text) and is_folder(bundled):
        return bundled
    if HUB_ID.fullmatch(text):
        snapshot = cached(_repository(text))
        if snapshot is not None:
            folder = _snapshot_copy(text, snapshot)
            sizes = {folder / name: item.size for name, item in snapshot.files.items()}
            if all(path.is_file() and path.stat().st_size == size for path, size in sizes.items()):
                return folder
    return None


def _pull(text: str, update: bool, text_tower: bool) -> Path:
    if text == OFFICIAL:
        from enclap.hub.official_release import pull_official

        return pull_official(update, text_tower)
    _require_name(text)
    snapshot = fetch(_repository(text), update)
    if not _is_ours(snapshot.folder):
        raise ModelError(f"{text}: not a model of this program (its {CONFIGURATION} describes something else)")
    return link_snapshot(text, snapshot)


def _snapshot_copy(identifier: str, snapshot: Snapshot) -> Path:
    """Where a snapshot's files lie as a model folder."""
    return cache_folder() / "models" / f"{_repository(identifier).slug}-{snapshot.revision[:12]}"


def link_snapshot(identifier: str, snapshot: Snapshot) -> Path:
    """A folder that holds a verified snapshot's files themselves.

    The hub's cache is made of links, through which a graph is not allowed to reach its weights. The files are linked
    hard where the file system can, so they need no space of their own.
    """
    folder = _snapshot_copy(identifier, snapshot)
    if folder.is_dir():
        pairs = [(folder / name, snapshot.folder / name, item) for name, item in snapshot.files.items()]
        if all(
            copy.is_file() and (copy.samefile(source) or sha256(copy) == item.sha256) for copy, source, item in pairs
        ):
            return folder
        shutil.rmtree(folder)
    with new_folder(folder) as temporary:
        for name in snapshot.files:
            source, target = (snapshot.folder / name).resolve(), temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or a file system without hard links
                shutil.copyfile(source, target)
    return folder


def _repository(identifier: str) -> Repository:
    return Repository(identifier, optional=MODEL_FILES)


def _is_ours(folder: Path) -> bool:
    return read_configuration(folder).get("model_type") == MODEL_TYPE


def _require_name(text: str) -> None:
    """Raises ModelError when the text cannot be the name of a model elsewhere."""
    if text != OFFICIAL and not HUB_ID.fullmatch(text):
        known = ", ".join(entry.name for entry in bundled_models()) or "none"
        raise ModelError(
            f"{printable(text)}: no such model; give a folder, a hub id, {OFFICIAL} or a bundled name ({known})"
        )
