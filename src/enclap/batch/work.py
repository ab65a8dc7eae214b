"""What is done with the windows of a corpus: captioning here, feature extraction in `extraction`."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from enclap.batch.decode import Decoded, DecodedWindow, ItemEnd, Position
from enclap.batch.sources import Item
from enclap.captioner import Captioner, caption_of, check_finite, silence_of
from enclap.decoding.options import DecodingOptions
from enclap.errors import InputError, UsageError
from enclap.files import replacement_path
from enclap.output.formats import DIGITS, caption_table
from enclap.prefetch import Prefetcher
from enclap.text import printable
from enclap.types import Caption, Features

COLUMNS = ("id", "uri", "sha256", "duration", "captions", "embedding", "error")
"""Of a shard of captions, in this order."""
DEFAULT_COLUMNS = tuple(column for column in COLUMNS if column != "embedding")


def chosen_columns(typed: str | None) -> tuple[str, ...]:
    """The columns of `--columns id,captions`, in the order of `COLUMNS`; UsageError for an unknown one."""
    if typed is None:
        return DEFAULT_COLUMNS
    names = [name.strip() for name in typed.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"--columns {printable(name)}: not a column; choose from {', '.join(COLUMNS)}")
    return tuple(column for column in COLUMNS if column in names)


@dataclass(frozen=True, slots=True)
class ModelRun:
    """Which model a worker loads, and how it runs; see `Captioner.from_pretrained`."""

    model: str = "mini"
    engine: str = "auto"
    device: str = "auto"
    precision: str = "float32"
    threads: int | None = None

    def load(self) -> Captioner:
        """The model, loaded."""
        return Captioner.from_pretrained(self.model, self.engine, self.device, self.precision, self.threads)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What was made of a window: text, code and embedding bytes as the work wants them, or what is wrong with it."""

    position: Position
    index: int
    end: float = 0.0
    text: str | None = None
    codes: bytes | None = None
    embedding: bytes | None = None
    fault: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """An item of which all is there: its end, and its parts in order; a fault of a part is that of the item."""

    item: Item
    end: ItemEnd
    parts: tuple[Part, ...]

    @property
    def fault(self) -> tuple[str, str] | None:
        """What is wrong with it: kind and message; None when all is well."""
        faulty: list[Part | ItemEnd] = [self.end, *self.parts]
        return next(((str(item.kind), item.fault) for item in faulty if item.fault is not None), None)

    @property
    def seconds(self) -> float:
        """Its length, from the start of its time line to the end of its last window."""
        return self.parts[-1].end if self.parts else 0.0


class Work(Protocol):
    """What a corpus is gone through for; an instance is sent to every worker."""

    @property
    def window(self) -> float:
        """Seconds of a window, 0 for the whole recording."""
        ...

    def load(self, model: ModelRun) -> Captioner:
        """The model, ready for `parts`; raises the EnclapError of options that it cannot take."""
        ...

    def parts(self, captioner: Captioner, batches: Iterator[list[Decoded]]) -> Iterator[list[Part | ItemEnd]]:
        """What is made of the windows, batch by batch; the ends of items pass through. Two threads may run it."""
        ...

    def write(self, path: Path, recordings: Sequence[Recording], metadata: dict[bytes, bytes]) -> None:
        """Write a shard whole or not at all; EnvironmentFault when that fails."""
        ...


def featured(
    captioner: Captioner, batches: Iterator[list[Decoded]], *, whole: bool = False
) -> Generator[list[tuple[Decoded, Features | InputError | None]], None, None]:
    """Each event with its features, or what is wrong with them; None for silence and for the ends of items."""
    for batch in batches:
        audible = [event for event in batch if isinstance(event, DecodedWindow) and not event.silent]
        with captioner.extracting:
            found = captioner.engine.extract([event.window for event in audible], whole=whole) if audible else []
        features: dict[int, Features | InputError] = {}
        for event, item in zip(audible, found, strict=True):
            try:
                check_finite(item, event.window, event.name)
                features[id(event)] = item
            except InputError as error:
                features[id(event)] = error
        yield [(event, features.get(id(event))) for event in batch]


@dataclass(frozen=True, slots=True)
class Captioning:
    """Captions of every window, as `enclap caption` has them.

    columns: those of `COLUMNS` that are written; `embedding` has a vector for each caption, null for silence.
    """

    options: DecodingOptions
    window: float
    columns: tuple[str, ...] = DEFAULT_COLUMNS

    def load(self, model: ModelRun) -> Captioner:
        """The model; UsageError or ModelError when it cannot take the window or the options."""
        captioner = model.load()
        captioner.check_window(self.window)
        captioner.check_rerank(self.options)
        return captioner

    def parts(self, captioner: Captioner, batches: Iterator[list[Decoded]]) -> Iterator[list[Part | ItemEnd]]:
        """The captions, batch by batch; the features of the next batch are made while sentences are searched."""
        ahead = Prefetcher(featured(captioner, batches), 1)
        try:
            for batch in ahead:
                ready = [item for _, item in batch if isinstance(item, Features)]
                with captioner.searching:
                    selections = iter(captioner.selector.select(ready, self.options) if ready else [])
                found: list[Part | ItemEnd] = []
                for event, item in batch:
                    if isinstance(event, ItemEnd):
                        found.append(event)
                    elif isinstance(item, InputError):
                        found.append(faulty_part(event, item))
                    elif item is None:
                        found.append(self._part(event, silence_of(event.window), None))
                    else:
                        found.append(self._part(event, caption_of(event.window, next(selections)), item))
                yield found
        finally:
            ahead.stop()
            ahead.join()

    def _part(self, event: DecodedWindow, caption: Caption, features: Features | None) -> Part:
        embedding = None
        if "embedding" in self.columns and features is not None and features.embedding is not None:
            embedding = features.embedding.astype("<f4").tobytes()
        text = json.dumps(caption_table(caption))
        return Part(event.position, event.index, event.window.end, text, embedding=embedding)

    def write(self, path: Path, recordings: Sequence[Recording], metadata: dict[bytes, bytes]) -> None:
        """Write a Parquet file with a row for each recording, its pages with checksums."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = caption_schema().with_metadata(metadata)
        table = pa.Table.from_pylist([caption_row(recording) for recording in recordings], schema=schema)
        with replacement_path(path) as temporary:
            pq.write_table(table.select(list(self.columns)), temporary, compression="zstd", write_page_checksum=True)


def caption_schema() -> Any:
    """The columns of a shard of captions."""
    import pyarrow as pa

    candidate = pa.struct([("text", pa.string()), ("score", pa.float64())])
    caption = pa.struct(
        [
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("text", pa.string()),
            ("score", pa.float64()),
            ("silence", pa.bool_()),
            ("candidates", pa.list_(candidate)),
        ]
    )
    kinds: dict[str, Any] = dict.fromkeys(COLUMNS, pa.string())
    kinds |= {"duration": pa.float64(), "captions": pa.list_(caption), "embedding": pa.list_(pa.list_(pa.float32()))}
    return pa.schema(list(kinds.items()))


def caption_row(recording: Recording) -> dict[str, Any]:
    """The row of a recording: its captions are those of `enclap caption --format json`; of a failure only the error."""
    item = recording.item
    row: dict[str, Any] = {"id": item.id, "uri": item.uri, "sha256": recording.end.sha256}
    row = {name: value and value.encode("utf-8", "backslashreplace").decode() for name, value in row.items()}
    if recording.fault is not None:
        return row | {"error": ": ".join(recording.fault)}
    vectors = [None if part.embedding is None else np.frombuffer(part.embedding, "<f4") for part in recording.parts]
    return row | {
        "duration": round(recording.seconds, DIGITS["seconds"]),
        "captions": [json.loads(part.text or "{}") for part in recording.parts],
        "embedding": vectors,
    }


def faulty_part(event: DecodedWindow, error: InputError) -> Part:
    """The part of a window of which nothing was made."""
    return Part(event.position, event.index, event.window.end, fault=str(error), kind=type(error).__name__)
