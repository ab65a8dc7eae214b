"""Files from the Hugging Face hub: fetched once, locked to a revision and to checksums, held to them ever after.

The first complete fetch of a repository is trusted and recorded ("trust on first use"): its commit and every file's
SHA-256. From then on the same commit is asked for, and a file with another checksum is refused.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enclap.errors import EnclapError, EnvironmentFault, ModelError
from enclap.files import is_full, require_room, sha256, stays_inside, write_whole
from enclap.hub.integrity import FileRecord
from enclap.hub.layout import CONFIGURATION
from enclap.text import first_line, printable

LOCK_FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub, and which of its files to take.

    kind: "model" or "space". required: groups of patterns; of each group, the first pattern that any file matches is
    taken. optional: patterns of files that are taken when they are there.
    """

    identifier: str
    kind: str = "model"
    required: tuple[tuple[str, ...], ...] = ((CONFIGURATION,),)
    optional: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The repository's name in the hub's cache and in ours."""
        return f"{self.kind}s--{self.identifier.replace('/', '--')}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files at one commit, complete in the local cache: their folder and what each must be."""

    folder: Path
    revision: str
    files: dict[str, FileRecord]


@dataclass(frozen=True, slots=True)
class _RemoteFile:
    """What the hub says of a file: its size and its SHA-256, or for a small one git's hash of it."""

    size: int
    sha256: str | None
    git_hash: str | None

    def check(self, path: Path, shown: str) -> FileRecord:
        """The record of the file at `path`; one that is not what was announced is removed, with a ModelError."""
        size = _size(path)
        if size is None:
            raise ModelError(f"{shown}: was not delivered; try again")
        digest = sha256(path)
        is_right = digest == self.sha256 if self.sha256 is not None else git_blob_hash(path, size) == self.git_hash
        if size != self.size or not is_right:
            _discard(path)
            advice = "fetch it again, and if this repeats, do not trust the source"
            raise ModelError(f"{shown}: wrong checksum, so it was removed; {advice}")
        return FileRecord(size, digest)


def cache_folder() -> Path:
    """Where this program keeps what it made of downloads, and its locks: beside the hub's own cache."""
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE) / "enclap"


def lock_path(repository: Repository) -> Path:
    """The file that records what the repository's first fetch brought."""
    return cache_folder() / "locks" / f"{repository.slug}.json"


def locked_identifiers() -> list[str]:
    """The model repositories that were fetched before, by name; a damaged lock is skipped with a warning."""
    found = []
    for path in sorted(lock_path(Repository("a/b")).parent.glob("models--*.json")):
        try:
            found.append(str(json.loads(path.read_text(encoding="utf-8"))["repository"]))
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s: damaged lock; remove it to trust the next fetch anew", printable(str(path)))
    return sorted(found)


def cached(repository: Repository) -> Snapshot | None:
    """The locked snapshot when all its files are in the cache with the right sizes, else None; no network."""
    locked = _read_lock(repository)
    if locked is None or not _covers(locked, repository):
        return None
    complete = all(_size(locked.folder / name) == record.size for name, record in locked.files.items())
    return locked if complete else None


def fetch(repository: Repository, update: bool = False) -> Snapshot:
    """The repository's locked snapshot, completed from the hub, each file's checksum verified.

    Needs no network when everything is in the cache. update: forget the lock and take the newest revision.
    Raises ModelError when it is not there, cannot be reached or is not what was locked; EnvironmentFault when the disk
    is full.
    """
    locked = None if update else _read_lock(repository)
    with translate_hub_errors(repository):
        known = {} if locked is None else locked.files
        expected = {name: _RemoteFile(item.size, item.sha256, None) for name, item in known.items()}
        if locked is not None and _covers(locked, repository):
            revision = locked.revision
        else:
            revision, listed = _list(repository, None if locked is None else locked.revision)
            expected = listed | expected
        folder = _download(repository, revision, expected)
        files = {
            name: listed.check(folder / name, f"{repository.identifier}: {printable(name)}")
            for name, listed in expected.items()
        }
        snapshot = Snapshot(folder, revision, files)
        if locked != snapshot:
            _write_lock(repository, snapshot)
    return snapshot


def _list(repository: Repository, revision: str | None) -> tuple[str, dict[str, _RemoteFile]]:
    """The newest or the given commit, and what the hub says of the files to take at that commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    hub = HfApi()
    if revision is None:
        revision = str(hub.repo_info(repository.identifier, repo_type=repository.kind).sha)
    tree = hub.list_repo_tree(repository.identifier, recursive=True, revision=revision, repo_type=repository.kind)
    files = {item.path: item for item in tree if isinstance(item, RepoFile)}
    chosen = _chosen(list(files), repository)
    if isinstance(chosen, str):
        raise ModelError(f"{repository.identifier}: holds no {chosen}; it is not what this program can use")
    outside = [name for name in chosen if not stays_inside(name)]
    if outside:
        raise ModelError(f"{repository.identifier}: names a file outside its folder ({printable(outside[0])}); refused")
    listed = {}
    for name in chosen:
        item, large = files[name], files[name].lfs
        if large is None:
            listed[name] = _RemoteFile(int(item.size), None, str(item.blob_id))
        else:
            listed[name] = _RemoteFile(int(large.size), str(large.sha256), None)
    return revision, listed


def _chosen(names: Sequence[str], repository: Repository) -> list[str] | str:
    """The names of the files to take among `names`, or the group of patterns that none of them matches."""
    chosen: dict[str, None] = {}
    for group in repository.required:
        matches = next((found for pattern in group if (found := fnmatch.filter(names, pattern))), None)
        if matches is None:
            return " or ".join(group)
        chosen |= dict.fromkeys(matches)
    for pattern in repository.optional:
        chosen |= dict.fromkeys(fnmatch.filter(names, pattern))
    return list(chosen)


def _covers(locked: Snapshot, repository: Repository) -> bool:
    return not isinstance(_chosen(list(locked.files), repository), str)


def _download(repository: Repository, revision: str, expected: dict[str, _RemoteFile]) -> Path:
    """The snapshot's folder in the hub's cache, after fetching what is missing; the hub's library shows progress."""
    folder = _snapshot_folder(repository, revision)
    missing = [name for name, listed in expected.items() if _size(folder / name) != listed.size]
    if not missing:
        return folder
    from huggingface_hub import snapshot_download

    for name in missing:
        _discard(folder / name)
    require_room(folder, sum(expected[name].size for name in missing), f"fetching {repository.identifier}")
    names = [glob.escape(name) for name in missing]
    return Path(
        snapshot_download(repository.identifier, repo_type=repository.kind, revision=revision, allow_patterns=names)
    )


def git_blob_hash(path: Path, size: int) -> str:
    """Git's name for a file's content: SHA-1 over a header and the bytes (as the hub lists small files)."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def _discard(path: Path) -> None:
    """Remove a file from the hub's cache, with the blob that its link leads to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _snapshot_folder(repository: Repository, revision: str) -> Path:
    """Where the hub's library keeps a commit's files (its documented cache layout)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / repository.slug / "snapshots" / revision


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _read_lock(repository: Repository) -> Snapshot | None:
    """The locked snapshot, complete or not; None before the first fetch; ModelError when the lock is damaged."""
    path = lock_path(repository)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != LOCK_FORMAT:
            raise ValueError("another format")
        files = {name: FileRecord(int(item["size"]), str(item["sha256"])) for name, item in table["files"].items()}
        revision = str(table["revision"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{printable(str(path))}: damaged lock; remove it to trust the next fetch anew") from error
    return Snapshot(_snapshot_folder(repository, revision), revision, files)


def _write_lock(repository: Repository, snapshot: Snapshot) -> None:
    path = lock_path(repository)
    table = {
        "format": LOCK_FORMAT,
        "repository": repository.identifier,
        "kind": repository.kind,
        "revision": snapshot.revision,
        "files": {name: {"size": item.size, "sha256": item.sha256} for name, item in snapshot.files.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(table, indent=2) + "\n")
    trust = "its first fetch is trusted, and revision and checksums are locked in"
    logger.warning("%s: %s %s", repository.identifier, trust, printable(str(path)))


@contextmanager
def translate_hub_errors(repository: Repository) -> Iterator[None]:
    """Turns what the hub's library raises into one line that says what to do."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = repository.identifier
    unreachable: Any = HfHubHTTPError.__bases__[0]  # what the hub's HTTP library raises, whichever it is
    try:
        with quiet_hub():
            yield
    except EnclapError:
        raise
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: not on the hub, or private; log in with `hf auth login`") from error
    except RevisionNotFoundError as error:
        gone = "the locked revision is no longer on the hub"
        raise ModelError(f"{name}: {gone}; `enclap models pull --update` takes the newest") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(_offline(name, error)) from error
    except HfHubHTTPError as error:
        raise ModelError(f"{name}: cannot be fetched from the hub: {first_line(error)}") from error
    except (unreachable, ConnectionError, TimeoutError) as error:
        raise ModelError(_offline(name, error)) from error
    except (HFValidationError, OSError) as error:
        if is_full(error):
            raise EnvironmentFault(f"{name}: no room left on the disk; free some and fetch again") from error
        raise ModelError(f"{name}: cannot be fetched from the hub: {first_line(error)}") from error


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Suppresses the warnings of the hub's library, and its progress bars where nobody wants to see them.

    That is without a terminal, and where our own warnings are not shown either (`--quiet`).
    """
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    verbosity, shows_bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    if sys.stderr is None or not sys.stderr.isatty() or not logger.isEnabledFor(logging.WARNING):
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if shows_bars:
            enable_progress_bars()


def _offline(name: str, error: Exception) -> str:
    """The message when files cannot be had: no connection, one that broke, or no hub at its other end."""
    from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error.__cause__, FileMetadataError):
        return f"{name}: cannot be fetched: {first_line(error.__cause__)}"
    unconnected = isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled)
    if unconnected or type(error).__name__.startswith("Connect"):  # ConnectError, ConnectTimeout, ConnectionError
        reason = "is not in the local cache and the hub cannot be reached"
        return f"{name}: {reason}; connect once or use --model mini"
    return f"{name}: the connection broke ({first_line(error)}); fetch again, what is complete is kept"
