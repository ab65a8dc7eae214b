"""A library on the disk: what it was made with, its rows, and who may write them.

The folder holds `library.json`, which names the table of rows that counts, that table, and a lock. A library that is
made anew gets another table first, and is switched to it when all is in there, so a killed run spoils nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enclap.errors import DataError, UsageError
from enclap.files import is_file, is_folder, locked, require_parent, sha256, translate_write_errors, write_whole
from enclap.hub.integrity import read_checksums
from enclap.hub.layout import CLAP
from enclap.search.store import RowStore
from enclap.text import first_line, printable

SCHEMA = 1
"""Version of what a library holds; one of another version has to be made anew."""
FACTS, LOCK, TABLE = "library.json", ".lock", "rows-{}"
REINDEX = "run `enclap index` on it with --reindex"


class Facts(BaseModel):
    """What a library was made with.

    model: as it was named, a folder by its whole path. space: hash of the CLAP whose embeddings it holds. captioner:
    hash of what else the model is. width: numbers of an embedding. folder: whose sounds it holds. table: of its rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(alias="schema", ge=SCHEMA, le=SCHEMA)
    model: str
    space: str
    captioner: str
    width: int = Field(gt=0)
    folder: str
    table: int = Field(ge=1)


class Library:
    """A library that is there. path: of its folder."""

    def __init__(self, path: Path, facts: Facts, rows: RowStore) -> None:
        self.path = path
        self.facts = facts
        self.rows = rows

    @property
    def folder(self) -> Path:
        """Where the sounds are."""
        return Path(self.facts.folder)

    @classmethod
    def open(cls, path: Path) -> Library:
        """The library in a folder, to be read; UsageError when there is none, DataError when it cannot be read."""
        facts = read_facts(path)
        if facts is None:
            raise UsageError(
                f"{printable(str(path))}: no library; make one with `enclap index FOLDER --output LIBRARY`"
            )
        return cls(path, facts, _rows(path, facts.table))

    def require_space(self, model_folder: Path) -> None:
        """Raises UsageError unless the model's embeddings are those of the library."""
        if model_hashes(model_folder)[0] != self.facts.space:
            fault = f"its embeddings are of {printable(self.facts.model)} as it was then, not of this model"
            raise UsageError(f"{printable(str(self.path))}: {fault}; {REINDEX}, or name the model with --model")


@contextmanager
def written_library(path: Path, wanted: Facts, *, reindex: bool) -> Iterator[Library]:
    """The library in a folder, made if need be, ours alone until the block ends.

    wanted: what it shall be made with, but for the number of its table. reindex: make all rows anew; the old ones are
    there until the block ends well. Raises UsageError when the library has other facts or the folder is none, and
    EnvironmentFault when another process writes there.
    """
    require_library_or_nothing(path)
    with translate_write_errors(path):
        path.mkdir(exist_ok=True)
    with locked(path / LOCK, str(path)):
        present = None if reindex and is_unreadable(path) else read_facts(path)
        tables = [int(table.stem.removeprefix("rows-")) for table in path.glob("rows-*.lance")]
        if present is None or reindex:
            facts = wanted.model_copy(update={"table": max(tables, default=0) + 1})
            rows = RowStore.create(path, TABLE.format(facts.table), facts.width, str(path))
        else:
            facts, rows = agreed_facts(path, present, wanted), _rows(path, present.table)
        if present is None:
            _keep(path, facts)
        yield Library(path, facts, rows)
        if facts != present:
            _keep(path, facts)
        for number in tables:
            if number != facts.table:
                _rows(path, number).remove()


def read_facts(path: Path) -> Facts | None:
    """What a library was made with, None where there is none; DataError or UsageError when it cannot be read."""
    file, shown = path / FACTS, printable(str(path))
    if not is_file(file):
        return None
    try:
        content = file.read_bytes()
        return Facts.model_validate_json(content)
    except OSError as error:
        raise DataError(f"{shown}: {FACTS} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        versions = [item for item in error.errors() if item["loc"] == ("schema",)]
        if versions:
            fault = f"made by another version of enclap (schema {versions[0]['input']!r} where {SCHEMA} is read)"
            raise DataError(f"{shown}: {fault}; {REINDEX}") from error
        raise DataError(f"{shown}: {FACTS} is damaged ({first_line(error)}); {REINDEX}") from error


def model_hashes(folder: Path) -> tuple[str, str]:
    """SHA-256 of a model folder's CLAP, and of the rest of its weights; equal wherever the same model lies."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))
    known = read_checksums(folder)
    hashes = {name: known[name].sha256 if name in known else sha256(folder / name) for name in names}
    parts = ([name for name in names if (name.split("/")[0] == CLAP) is is_clap] for is_clap in (True, False))
    clap, rest = (sha256("".join(name + hashes[name] for name in part).encode()) for part in parts)
    return clap, rest


def agreed_facts(path: Path, present: Facts, wanted: Facts) -> Facts:
    """The facts of a library that is there, when it may go on as is wanted; UsageError when it may not."""
    shown = printable(str(path))
    if present.space != wanted.space:
        fault = f"made with the model {printable(present.model)}, whose embeddings are not those of {wanted.model}"
        raise UsageError(f"{shown}: {fault}; name that model with --model, or {REINDEX}")
    if present.folder != wanted.folder and is_folder(present.folder):
        fault = f"holds the sounds of {printable(present.folder)}, which is still there"
        raise UsageError(f"{shown}: {fault}; name that folder, or another library")
    return present.model_copy(update={"folder": wanted.folder, "model": wanted.model, "captioner": wanted.captioner})


def require_library_or_nothing(path: Path) -> None:
    """Raises UsageError when the folder holds something that is no library, or its parent is missing."""
    require_parent(path)
    if is_file(path):
        raise UsageError(f"{printable(str(path))}: is a file; name a folder for the library")
    if not is_folder(path):
        return
    with translate_write_errors(path):
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    others = {name for name in names if name != FACTS and not (name.startswith("rows-") and name.endswith(".lance"))}
    if others:
        raise UsageError(f"{printable(str(path))}: is no library, it holds other files; name another folder")


def is_unreadable(path: Path) -> bool:
    """Whether what the library was made with cannot be read."""
    try:
        read_facts(path)
    except DataError:
        return True
    return False


def _keep(path: Path, facts: Facts) -> None:
    write_whole(path / FACTS, facts.model_dump_json(by_alias=True, indent=1) + "\n")


def _rows(path: Path, number: int) -> RowStore:
    return RowStore(path, TABLE.format(number), str(path))
