"""Model name -> local folder: bundled with the package, a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import ModelError
from enclap.names import printable

BUNDLED_FOLDER = Path(__file__).parent / "models"
DEFAULT_MODEL = "mini"
OFFICIAL = "official"  # the authors' weights, under their own name
CHECKSUMS = "SHA256SUMS"
CONFIGURATION = "config.json"
HUB_FILES = [
    "*.json",
    "*.safetensors",
    "*.onnx",
    "onnx/*.data",
    CHECKSUMS,
    "README.md",
    "ATTRIBUTION.csv",
]  # weights and tables only, never code
HASH_BLOCK = 2**20

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
SIZE_LINE = re.compile(r"# (\d+) (.+)")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a checksum file says about one file: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that needs no download. size: bytes of the folder."""

    name: str
    folder: Path
    size: int


def find_model(name: str | os.PathLike[str]) -> Path:
    """The folder of a bundled model, a local folder, or a hub repository, fetched unless it is cached.

    Raises ModelError when there is none, it cannot be fetched, or its files have the wrong sizes.
    """
    text = os.fspath(name)
    if text == OFFICIAL:
        raise ModelError("official: this version cannot fetch the authors' weights; use --model mini or a folder")
    bundled = BUNDLED_FOLDER / text
    if text and Path(text).is_dir():
        folder = Path(text)
    elif re.fullmatch(r"\w+", text) and bundled.is_dir():
        folder = bundled
    elif HUB_ID.fullmatch(text):
        folder = _fetch(text)
    else:
        known = ", ".join(entry.name for entry in bundled_models()) or "none"
        raise ModelError(f"{printable(text)}: no such model; give a folder, a hub id or a bundled name ({known})")
    check_folder(folder)
    return folder


def bundled_models() -> list[ModelEntry]:
    """The models inside the package, by name."""
    folders = sorted(BUNDLED_FOLDER.glob(f"*/{CONFIGURATION}"))
    return [ModelEntry(path.parent.name, path.parent, _folder_size(path.parent)) for path in folders]


def check_folder(folder: Path, hashes: bool = False) -> None:
    """Raises ModelError unless the folder has a readable config.json and all that its checksum file lists.

    Sizes are compared always, contents only with `hashes`, which reads every file.
    """
    _read_configuration(folder)
    for name, record in read_checksums(folder).items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != record.size:
            found = "is missing" if size is None else f"has {size} bytes where {record.size} belong"
            raise ModelError(f"{printable(str(path))}: {found}; the model is damaged, install or fetch it again")
        if hashes and _sha256(path) != record.sha256:
            raise ModelError(f"{printable(str(path))}: wrong checksum; the model is damaged, install or fetch it again")


def read_checksums(folder: Path) -> dict[str, FileRecord]:
    """What the folder's SHA256SUMS records, by file name with forward slashes; empty when there is none."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    sizes: dict[str, int] = {}
    records: dict[str, FileRecord] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        size_line, sum_line = SIZE_LINE.fullmatch(line), SUM_LINE.fullmatch(line)
        if size_line:
            sizes[size_line[2]] = int(size_line[1])
        elif sum_line and sum_line[2] in sizes and _stays_inside(sum_line[2]):
            records[sum_line[2]] = FileRecord(sizes[sum_line[2]], sum_line[1])
        else:
            raise ModelError(f"{printable(str(path))}: cannot be read; the model is damaged, install or fetch it again")
    return records


def write_checksums(folder: Path) -> Path:
    """The path of the folder's SHA256SUMS, now written; `sha256sum -c` reads it, sizes are its comments."""
    lines = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        lines += [f"# {path.stat().st_size} {name}", f"{_sha256(path)}  {name}"]
    target = folder / CHECKSUMS
    temporary = folder / (CHECKSUMS + ".partial")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(target)
    return target


def _fetch(repository: str) -> Path:
    """The repository's snapshot from the local cache, completed from the hub when it can be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, allow_patterns=HUB_FILES))
    except LocalEntryNotFoundError as error:
        reason = "is not in the local cache and the hub cannot be reached"
        raise ModelError(f"{repository}: {reason}; connect once or use --model mini") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{repository}: not on the hub, or private; log in with `hf auth login`") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        summary = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{repository}: cannot be fetched from the hub: {summary}") from error


def _read_configuration(folder: Path) -> None:
    path = folder / CONFIGURATION
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{printable(str(folder))}: not a model folder, {CONFIGURATION} is missing") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{printable(str(path))}: damaged, it is not JSON; fetch the model again") from error
    if not isinstance(table, dict):
        raise ModelError(f"{printable(str(path))}: damaged, it holds no table; fetch the model again")


def _stays_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith((".", CHECKSUMS)):
            yield path


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
