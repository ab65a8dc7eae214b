"""Measures a library of a million made-up rows: `python benchmarks/search_scale.py --rows 1000000`.

The rows are random directions around those of real sentences, so that the vectors cluster as sounds do. Measures the
rate at which rows and indices are made, the size on the disk, the time of a query of `search_words` with mini's text
tower, and how many of the exact nearest rows the index of the vectors finds. Stores the table in results/search-scale.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow

from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.engines import Engine, load_engine
from enclap.hub.resolve import find_model
from enclap.search.labels import LabelSet, text_vector
from enclap.search.library import SCHEMA, Facts, Library, model_hashes, written_library
from enclap.search.query import FEWEST, search_words
from enclap.search.store import embeddings_in, row_schema
from tables import Table, hardware, save, today

WINDOWS_PER_FILE, FILES_TOGETHER = 10, 5_000
NOISE = 0.8
"""Length of what is added to the unit vector of a sentence."""
RECALL_QUERIES = 20
LIMITS = {50: "50 ms", 99: "150 ms"}
"""The project's targets for a query."""
Rows = list[tuple[str, str, str]]


def main() -> None:
    """Make the rows and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the library is made, and kept")
    parser.add_argument("--reuse", action="store_true", help="only ask the library that an earlier run has kept there")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    with TemporaryDirectory() as made:
        path, engine = options.folder or Path(made) / "library", load_engine(find_model("mini"))
        labels, noted = LabelSet(engine), path.with_name(f"{path.name}.json")
        if not options.reuse:
            noted.write_text(json.dumps(make(path, engine, labels, options.rows)))
        table = scale_table(options, json.loads(noted.read_text()), ask(path, engine, labels, options.queries))
    print(table.markdown())
    if not options.no_save:
        save(table, "search-scale")


def scale_table(options: argparse.Namespace, made: Rows, asked: Rows) -> Table:
    """The table of a library that was made, and asked."""
    return Table(
        "A library of a million windows" if options.rows == 1_000_000 else f"A library of {options.rows:,} windows",
        ("what", "measured", "target: at most"),
        tuple(tuple(row) for row in (*made, *asked)),
        f"python benchmarks/search_scale.py --rows {options.rows}",
        today(),
        hardware(),
        order=63,
        note=f"Made-up rows of 576 numbers, without fingerprints. {options.queries} queries; the load average before "
        f"them was {options.load:.1f}.",
        place="official",
    )


def make(path: Path, engine: Engine, labels: LabelSet, rows: int) -> Rows:
    """Make a library at `path`; what it takes."""
    entries = [load_lexicon()[label] for label in labels.labels]
    centres = np.stack([text_vector(engine, finish(entry.clauses[0])) for entry in entries])
    captions = [finish(entry.clauses[0]) for entry in entries]
    facts = Facts(
        schema=SCHEMA,
        model="mini",
        space=model_hashes(find_model("mini"))[0],
        captioner="made",
        width=labels.width,
        folder=str(path),
        table=1,
    )
    found = []
    with written_library(path, facts, reindex=True) as library:
        began, worked = time.monotonic(), time.process_time()
        for start in range(0, rows, WINDOWS_PER_FILE * FILES_TOGETHER):
            count = min(rows - start, WINDOWS_PER_FILE * FILES_TOGETHER)
            table, names = made_rows(start, count, centres, captions, labels)
            library.rows.replace(table, names)
        found.append(taken("rows written", rows, began, worked))
        began, worked = time.monotonic(), time.process_time()
        library.rows.tidy()
        found.append(taken("rows indexed", rows, began, worked))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [*found, ("size on disk", f"{size / 1e9:.2f} GB, {size / rows:,.0f} bytes a row", "")]


def ask(path: Path, engine: Engine, labels: LabelSet, queries: int) -> Rows:
    """How long queries take, and what the index misses."""
    opened = Library.open(path)
    words = [labels.labels[number] for number in np.random.default_rng(1).integers(0, len(labels.labels), queries)]
    search_words(opened, engine, words[0], 20)
    waits, works = [], []
    for text in words:
        began, worked = time.monotonic(), time.process_time()
        search_words(opened, engine, text, 20)
        waits.append(1000 * (time.monotonic() - began))
        works.append(1000 * (time.process_time() - worked))
    found = []
    for name, values, limits in (("a query", waits, LIMITS), ("a query: processor's time", works, {})):
        for share in (50, 90, 99):
            found.append(
                (f"{name}: {share} % take at most", f"{np.percentile(values, share):.0f} ms", limits.get(share, ""))
            )
    table = opened.rows.columns(["path", "start", "embedding"])
    for first in (10, FEWEST):
        share = recall(opened, table, [text_vector(engine, text) for text in words[:RECALL_QUERIES]], first)
        found.append(
            (f"of the exact nearest {first}, among the {FEWEST} that a search takes", f"{100 * share:.1f} %", "")
        )
    return found


def made_rows(
    start: int, count: int, centres: np.ndarray, captions: list[str], labels: LabelSet
) -> tuple[pyarrow.Table, list[str]]:
    """Rows from number `start` on, and the names of their files."""
    generator = np.random.default_rng(start)
    kinds = generator.integers(0, len(centres), count)
    vectors = centres[kinds] + NOISE * unit(generator.normal(size=(count, centres.shape[1])).astype(np.float32))
    vectors = unit(vectors)
    files = [
        f"made/{labels.labels[kinds[number]]} {start + number}.wav" for number in range(0, count, WINDOWS_PER_FILE)
    ]
    columns = {
        "path": np.repeat(files, WINDOWS_PER_FILE)[:count],
        "start": 10.0 * (np.arange(count) % WINDOWS_PER_FILE),
        "end": 10.0 * (np.arange(count) % WINDOWS_PER_FILE) + 10.0,
        "caption": [captions[kind] for kind in kinds],
        "score": np.full(count, 0.5, np.float32),
        "silence": np.zeros(count, bool),
        "tags": [[] for _ in range(count)],
        "names": [labels.labels[kind] if not number % WINDOWS_PER_FILE else "" for number, kind in enumerate(kinds)],
        "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1]),
        "level": np.zeros(count, np.float32),
        "spread": np.full(count, 0.1, np.float32),
        "fingerprint": [b""] * count,
        "size": np.zeros(count, np.int64),
        "modified": np.zeros(count, np.int64),
        "sha256": [""] * count,
        "duration": np.full(count, 100.0),
    }
    return pyarrow.table(columns, schema=row_schema(vectors.shape[1])), files


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors at unit length."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(library: Library, table: pyarrow.Table, vectors: Sequence[np.ndarray], first: int) -> float:
    """Share of the exact nearest rows, so many, that are among those that a search takes."""
    rows, paths, starts = embeddings_in(table), table["path"], table["start"]
    shares = []
    for vector in vectors:
        best = np.argpartition(-(rows @ vector), first)[:first]
        exact = {(paths[int(index)].as_py(), starts[int(index)].as_py()) for index in best}
        found = {(row.path, row.start) for row in library.rows.nearest(vector, FEWEST)}
        shares.append(len(exact & found) / first)
    return float(np.mean(shares))


def taken(what: str, rows: int, began: float, worked: float) -> tuple[str, str, str]:
    """How long a stage took, and its rate."""
    wall, work = time.monotonic() - began, time.process_time() - worked
    return what, f"{wall:.0f} s, {rows / wall:,.0f} a second ({work:.0f} s of processor)", ""


if __name__ == "__main__":
    main()
