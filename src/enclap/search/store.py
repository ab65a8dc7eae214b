"""The rows of a library, one for each window that was heard, in LanceDB: one process writes, any number read.

What is known to go wrong with LanceDB is avoided here: the full-text index keeps no positions (with them its upkeep
fails), it is made when there are rows (over none it never catches up), rows are matched without an index on the key
(with one, updates are lost silently), and every run ends with `optimize` and a clean-up of all older versions (else the
size grows with each run). A reader whose version was cleaned away asks again.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("LANCEDB_LOG", "error")  # else each update lists the partitions that it has no rows for

import lancedb
import numpy as np
import pyarrow
from lancedb.index import FTS, IvfFlat, IvfRq

from enclap.errors import DataError
from enclap.files import is_full, translate_write_errors
from enclap.text import first_line, printable
from enclap.types import FloatArray

Result = TypeVar("Result")
Table = Any
"""LanceDB's, which the checker of types does not follow."""

KEY = ("path", "start")
CAPTION, NAMES, EMBEDDING = "caption", "names", "embedding"
INDEXED_ROWS = 20_000
"""Rows from which an index of the vectors is kept: fewer are compared one by one in time."""
ROWS_PER_PARTITION, ROUNDS, ROWS_SAMPLED = 2048, 10, 64
"""Of the index: rows in a partition, and with how many rounds over how many rows for each partition these are found."""
NUMBERS_PER_BYTE = 8
"""A multiple of which an embedding's numbers must be for the index to keep a bit of each (RaBitQ, arXiv 2405.12497)."""
PROBES, REFINED = 24, 2
"""Partitions that a query looks into, and how many times more rows than asked for it compares exactly."""
ATTEMPTS, SECONDS_BETWEEN = 6, 0.05
"""Of a query whose version of the table is being cleaned away, and more seconds before each."""
COMMITS_BETWEEN_TIDYING = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A window as a query gives it. similarity: cosine of its embedding and the vector asked for.

    level, spread: mean and standard deviation of its cosines to sentences of all kinds. matched: full-text score.
    """

    path: str
    start: float
    end: float
    caption: str
    level: float
    spread: float
    similarity: float
    matched: float = 0.0


SHOWN = ("path", "start", "end", CAPTION, "level", "spread")
ROW_ID = "_rowid"


def row_schema(width: int) -> pyarrow.Schema:
    """The columns of a library whose embeddings have `width` numbers.

    path is relative to the folder, with forward slashes; names: the words in it, in one of its rows;
    modified: in nanoseconds.
    """
    text, seconds = pyarrow.string(), pyarrow.float64()
    return pyarrow.schema(
        [
            ("path", text),
            ("start", seconds),
            ("end", seconds),
            (CAPTION, text),
            ("score", pyarrow.float32()),
            ("silence", pyarrow.bool_()),
            ("tags", pyarrow.list_(text)),
            (NAMES, text),
            (EMBEDDING, pyarrow.list_(pyarrow.float32(), width)),
            ("level", pyarrow.float32()),
            ("spread", pyarrow.float32()),
            ("fingerprint", pyarrow.binary()),
            ("size", pyarrow.int64()),
            ("modified", pyarrow.int64()),
            ("sha256", text),
            ("duration", seconds),
        ]
    )


ROW_NAMES = tuple(row_schema(1).names)


class RowStore:
    """A table of rows below a folder. Every method raises DataError when the store is damaged."""

    def __init__(self, folder: Path, name: str, shown: str) -> None:
        self._folder = folder
        self._name = name
        self._shown = shown
        self._table: Table = None

    @classmethod
    def create(cls, folder: Path, name: str, width: int, shown: str) -> RowStore:
        """An empty table; what a killed run left under its name is replaced."""
        store = cls(folder, name, shown)
        with store._translated():
            shutil.rmtree(folder / f"{name}.lance", ignore_errors=True)
            store._table = _connect(folder).create_table(name, schema=row_schema(width))
        return store

    def remove(self) -> None:
        """Delete the table's files."""
        shutil.rmtree(self._folder / f"{self._name}.lance", ignore_errors=True)

    def nearest(self, vector: FloatArray, count: int, where: str | None = None) -> list[Row]:
        """The windows whose embeddings [E] are the most similar to a unit vector, the nearest first; no silent ones."""
        [near] = self._ranked(vector, [lambda table: _nearest(table, vector, count, where)])
        return sorted(near, key=lambda row: -row.similarity)

    def rankings(
        self, vector: FloatArray, words: str, count: int, where: str | None = None
    ) -> tuple[list[Row], list[Row], list[Row]]:
        """As `nearest`, then the windows whose CAPTION, and those whose NAMES match words best; no silent ones.

        The last two are empty before a first run is done.
        """
        near, captions, names = self._ranked(
            vector,
            [
                lambda table: _nearest(table, vector, count, where),
                lambda table: _matching(table, CAPTION, words, count, where),
                lambda table: _matching(table, NAMES, words, count, where),
            ],
        )
        return near, captions, names

    def _ranked(self, vector: FloatArray, queries: Sequence[Callable[[Table], pyarrow.Table]]) -> list[list[Row]]:
        """The rows of each query, which gives their ids: what is shown of all of them is read once, as it is slow."""

        def read(table: Table) -> list[list[Row]]:
            found = [query(table) for query in queries]
            return _rows(table, vector, found)

        def ask(table: Table) -> list[list[Row]]:
            version = table.version
            with suppress(Exception):  # an id that is gone, say; a fault of the table itself comes again below
                rankings = read(table)
                if table.version == version:
                    return rankings
            table.checkout(table.version)  # an id is good for one version: all is read of this one, which takes longer
            try:
                return read(table)
            finally:
                table.checkout_latest()

        return self._asked(ask)

    def columns(self, names: Sequence[str], where: str | None = None) -> pyarrow.Table:
        """These columns of all rows, or of those that the condition (SQL) lets through."""

        def ask(table: Table) -> pyarrow.Table:
            query = table.search().select(list(names))
            return (query if where is None else query.where(where)).limit(table.count_rows() or 1).to_arrow()

        return self._asked(ask)

    def count(self) -> int:
        """How many rows there are."""
        return int(self._asked(lambda table: table.count_rows()))

    def replace(self, rows: pyarrow.Table, paths: Sequence[str]) -> None:
        """Make these the rows of these files, in one step; a file without any vanishes."""
        if not paths:
            return
        old = f"path IN ({', '.join(quoted(path) for path in paths)})"
        with self._translated():
            table = self._opened()
            if not table.count_rows(old):
                table.add(rows)
            elif not len(rows):
                table.delete(old)
            else:
                change = table.merge_insert(list(KEY)).when_matched_update_all().when_not_matched_insert_all()
                change.when_not_matched_by_source_delete(old).use_index(False).execute(rows)

    def tidy(self) -> None:
        """Bring the indices up to date and clean everything away that no row of today needs."""
        with self._translated(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what readers may find missing, which they know of
            table = self._opened()
            rows = table.count_rows()
            for column in (CAPTION, NAMES):
                index = _indices(table, column)
                if rows and not (index and table.index_stats(index[0].name).num_indexed_rows):
                    table.create_index(column, config=FTS(with_position=False), replace=True)
            if rows >= INDEXED_ROWS and not _indices(table, EMBEDDING):
                kind = IvfFlat if table.schema.field(EMBEDDING).type.list_size % NUMBERS_PER_BYTE else IvfRq
                partitions = max(16, rows // ROWS_PER_PARTITION)
                config = kind("dot", num_partitions=partitions, max_iterations=ROUNDS, sample_rate=ROWS_SAMPLED)
                table.create_index(EMBEDDING, config=config)
            table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

    def _opened(self) -> Table:
        if self._table is None:
            self._table = _connect(self._folder).open_table(self._name)
        return self._table

    def _asked(self, ask: Callable[[Table], Result]) -> Result:
        """What a query gives; asked again, of the table as it is by then, when its version was cleaned away."""
        for attempt in range(ATTEMPTS):
            try:
                return ask(self._opened())
            except MemoryError:
                raise
            except Exception as error:  # LanceDB's faults share no class
                self._table = None
                if attempt == ATTEMPTS - 1 or not is_missing(error):
                    raise self._damaged(error) from error
                time.sleep(SECONDS_BETWEEN * attempt)
        raise AssertionError("unreachable")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translate_write_errors(self._shown):
                yield
        except (RuntimeError, ValueError) as error:
            if is_full(error):
                with translate_write_errors(self._shown):
                    raise OSError(28, "No space left on device") from error
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        remedy = "make it again with `enclap index` and --reindex"
        return DataError(f"{printable(self._shown)}: the library is damaged ({first_line(error)[:120]}); {remedy}")


def quoted(text: str) -> str:
    """The text as a value in a condition (SQL)."""
    return "'" + text.replace("'", "''") + "'"


def table_of(rows: Sequence[Mapping[str, object]], width: int) -> pyarrow.Table:
    """Rows, each with a value for every column, as they are stored."""
    return pyarrow.Table.from_pylist([dict(row) for row in rows], schema=row_schema(width))


def embeddings_in(table: pyarrow.Table) -> FloatArray:
    """Float32 [N, E]: the embeddings of a table that has their column."""
    column = table[EMBEDDING]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    width = column.type.list_size
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32, copy=False).reshape(-1, width)


def _connect(folder: Path) -> Any:
    return lancedb.connect(str(folder), read_consistency_interval=timedelta(0))


def _indices(table: Table, column: str) -> list[Any]:
    return [index for index in table.list_indices() if list(index.columns) == [column]]


def is_missing(error: Exception) -> bool:
    """Whether a file of the table is gone, as after a clean-up by the process that writes."""
    return isinstance(error, FileNotFoundError) or "not found" in str(error).lower()


def _nearest(table: Table, vector: FloatArray, count: int, where: str | None) -> pyarrow.Table:
    """The ids of the rows that are nearest to a unit vector [E], in order."""
    query = table.search(vector.tolist(), vector_column_name=EMBEDDING).distance_type("dot")
    query = query.nprobes(PROBES).refine_factor(REFINED).limit(count).select(["_distance"]).with_row_id(True)
    return (query if where is None else query.where(where, prefilter=True)).to_arrow()


def _matching(table: Table, column: str, words: str, count: int, where: str | None) -> pyarrow.Table:
    """The ids of the rows that match words best, with their scores, in order."""
    if not _indices(table, column):
        return pyarrow.table(
            {ROW_ID: pyarrow.array([], pyarrow.uint64()), "_score": pyarrow.array([], pyarrow.float32())}
        )
    query = table.search(words, query_type="fts", fts_columns=column).limit(count)
    query = query.select(["_score"]).with_row_id(True)
    return (query if where is None else query.where(where, prefilter=True)).to_arrow()


def _rows(table: Table, vector: FloatArray, rankings: Sequence[pyarrow.Table]) -> list[list[Row]]:
    """The rows of rankings of ids, without silent ones, whose embeddings are zero."""
    ids = [ranking[ROW_ID].to_pylist() for ranking in rankings]
    wanted = sorted(set(chain(*ids)))
    if not wanted:
        return [[] for _ in rankings]
    found = table.take_row_ids(wanted).with_row_id().select([*SHOWN, EMBEDDING]).to_arrow()
    embeddings = embeddings_in(found)
    columns: list[list[Any]] = [found[name].to_pylist() for name in SHOWN]
    columns.append((embeddings @ vector).tolist())
    lengths = np.linalg.norm(embeddings, axis=1).tolist()
    rows = zip(found[ROW_ID].to_pylist(), zip(*columns, strict=True), lengths, strict=True)
    known = {number: Row(*values) for number, values, length in rows if length}
    scores = [r["_score"].to_pylist() if "_score" in r.column_names else [0.0] * len(r) for r in rankings]
    return [
        [replace(known[n], matched=score) if score else known[n] for n, score in zip(*pair, strict=True) if n in known]
        for pair in zip(ids, scores, strict=True)
    ]
