"""Measures LanceDB beside SQLite's full text and plain vectors: `python benchmarks/search_stores.py --rows 100000`.

Both hold the rows of `search_scale.py` and answer what a search by words asks of them: the nearest vectors, and the
best matches of captions and of names. SQLite's rows are in FTS5 (Porter's stems), its vectors in a file of float32 that
is compared as a whole. Prints times, processor seconds, and sizes; then those of replacing the rows of one file.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow

from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.engines import load_engine
from enclap.hub.resolve import find_model
from enclap.search.labels import LabelSet, text_vector
from enclap.search.query import FEWEST
from enclap.search.store import CAPTION, NAMES, RowStore, embeddings_in
from search_scale import FILES_TOGETHER, WINDOWS_PER_FILE, made_rows
from tables import hardware, today

UPDATES = 10


class SqliteStore:
    """Rows in FTS5, vectors in a file beside it."""

    def __init__(self, folder: Path, rows: int, width: int) -> None:
        self._base = sqlite3.connect(folder / "rows.db")
        self._vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, width))
        columns = "caption, names, path UNINDEXED, start UNINDEXED, tokenize = 'porter unicode61'"
        self._base.execute(f"CREATE VIRTUAL TABLE rows USING fts5({columns})")

    def add(self, table: pyarrow.Table, first: int) -> None:
        """Add rows from number `first` on."""
        columns = [table[name].to_pylist() for name in (CAPTION, NAMES, "path", "start")]
        self._vectors[first : first + len(table)] = embeddings_in(table)
        numbers = range(first, first + len(table))
        self._base.executemany(
            "INSERT INTO rows(rowid, caption, names, path, start) VALUES (?, ?, ?, ?, ?)",
            zip(numbers, *columns, strict=True),
        )
        self._base.commit()

    def replace(self, table: pyarrow.Table, first: int) -> None:
        """Give the rows from number `first` on other contents."""
        self._base.execute("DELETE FROM rows WHERE rowid >= ? AND rowid < ?", (first, first + len(table)))
        self.add(table, first)

    def ask(self, words: str, vector: np.ndarray) -> list[list[Any]]:
        """The best rows by vectors, captions and names."""
        cosines = self._vectors @ vector
        best = np.argpartition(-cosines, FEWEST)[:FEWEST]
        found = [[(int(number), float(cosines[number])) for number in best]]
        asked = " OR ".join(f'"{word}"' for word in words.split())
        for column in (CAPTION, NAMES):
            query = "SELECT rowid, bm25(rows), path, start, caption FROM rows WHERE rows MATCH ? ORDER BY rank LIMIT ?"
            found.append(self._base.execute(query, (f"{{{column}}} : ({asked})", FEWEST)).fetchall())
        return found


def main() -> None:
    """Make both stores and measure them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    engine = load_engine(find_model("mini"))
    labels = LabelSet(engine)
    sentences = [finish(load_lexicon()[label].clauses[0]) for label in labels.labels]
    centres = np.stack([text_vector(engine, sentence) for sentence in sentences])
    words = [labels.labels[n] for n in np.random.default_rng(1).integers(0, len(labels.labels), options.queries)]
    asked = [(text, text_vector(engine, text)) for text in words]
    parts = []
    for start in range(0, options.rows, WINDOWS_PER_FILE * FILES_TOGETHER):
        count = min(options.rows - start, WINDOWS_PER_FILE * FILES_TOGETHER)
        parts.append((start, *made_rows(start, count, centres, sentences, labels)))
    print(f"{today()}, {hardware()}; {options.rows} rows of {labels.width} numbers", flush=True)
    with TemporaryDirectory() as made:
        measure_lance(Path(made) / "lance", parts, asked, labels.width)
        measure_sqlite(Path(made) / "sqlite", parts, asked, labels.width)


def measure_lance(folder: Path, parts: Sequence[Any], asked: Sequence[Any], width: int) -> None:
    """Times of the store of this project."""
    folder.mkdir()
    store = RowStore.create(folder, "rows-1", width, str(folder))

    def build() -> None:
        for _, table, names in parts:
            store.replace(table, names)
        store.tidy()

    def ask(words: str, vector: np.ndarray) -> None:
        store.rankings(vector, words, FEWEST)

    def update(number: int) -> None:
        _, table, names = parts[0]
        store.replace(table.slice(WINDOWS_PER_FILE * number, WINDOWS_PER_FILE), [names[number]])
        store.tidy()

    timed("LanceDB", folder, build, ask, update, asked)


def measure_sqlite(folder: Path, parts: Sequence[Any], asked: Sequence[Any], width: int) -> None:
    """Times of SQLite and a file of vectors."""
    folder.mkdir()
    store = SqliteStore(folder, sum(len(table) for _, table, _ in parts), width)

    def build() -> None:
        for start, table, _ in parts:
            store.add(table, start)

    def update(number: int) -> None:
        store.replace(parts[0][1].slice(WINDOWS_PER_FILE * number, WINDOWS_PER_FILE), WINDOWS_PER_FILE * number)

    timed("SQLite", folder, build, store.ask, update, asked)


def timed(
    name: str,
    folder: Path,
    build: Callable[[], None],
    ask: Callable[[str, np.ndarray], object],
    update: Callable[[int], None],
    asked: Sequence[tuple[str, np.ndarray]],
) -> None:
    """Print what each takes."""
    wall, work = spent(build)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{name}: made in {wall:.0f} s, {work:.1f} s of processor; {size / 1e6:.0f} MB", flush=True)
    ask(*asked[0])
    queries = np.array([spent(lambda item=item: ask(*item)) for item in asked])  # type: ignore[misc]
    updates = np.array([spent(lambda number=number: update(number)) for number in range(UPDATES)])  # type: ignore[misc]
    for what, values in (("query", queries), ("update of one file", updates)):
        middle, last = np.percentile(1000 * values, [50, 99], axis=0)
        shown = f"p50 {middle[0]:.0f} ms, {middle[1]:.0f} ms of processor; p99 {last[0]:.0f} and {last[1]:.0f} ms"
        print(f"{name}, {what}: {shown}", flush=True)


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and processor seconds of all threads."""
    began, worked = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - began, time.process_time() - worked


if __name__ == "__main__":
    main()
