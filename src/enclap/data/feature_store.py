"""The feature store: codes and embedding of each clip, as Parquet shards, of which training maps an Arrow copy.

A row is a clip: its name, codes (uint16, frame after frame), embedding (float32), captions, labels, split, seconds and
the hash of its audio. The schema's metadata holds the store's format version, the sizes, and a fingerprint of the
encoders, so that features of another model or format are refused rather than misread.

Parquet is for exchange: it cannot be used as it lies in the file. `FeatureStore` therefore makes one uncompressed Arrow
file beside the shards, once, and maps it; then a store of any size takes no memory of a process's own, and the
processes of one machine share what they read.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from enclap.errors import DataError
from enclap.files import replacement_path, sha256
from enclap.text import printable
from enclap.types import Features, IntArray

FORMAT_VERSION = 2
METADATA_KEY = b"enclap"
FAILURES_KEY = b"enclap.failures"
"""Schema metadata in which a shard names the clips that could not be extracted."""
CODE_TYPE = np.dtype("<u2")
EMBEDDING_TYPE = np.dtype("<f4")
CLIPS_PER_GROUP = 256
"""Rows of a row group, and of a batch of the Arrow copy."""
MAPPED = "features.arrow"
"""The Arrow copy of a folder's shards."""


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """What all clips of a store share.

    encoders: fingerprint of codec and CLAP (`fingerprint`). embedding: E, 0 for none.
    """

    codebooks: int
    entries: int
    embedding: int
    frame_rate: float
    encoders: str
    version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One row: features with the captions and labels that belong to them.

    split: as in `CaptionedClip`. audio: SHA-256 of the audio file, empty where there was none.
    """

    name: str
    features: Features
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    seconds: float
    split: str = "train"
    audio: str = ""


def fingerprint(folder: Path) -> str:
    """A hash over the weights of a folder's codec and CLAP: features of equal fingerprints are interchangeable."""
    parts = ("codec/model.safetensors", "clap/model.safetensors", "clap/preprocessor_config.json")
    return sha256(*(folder / part for part in parts if (folder / part).is_file()))[:32]


def store_schema(header: StoreHeader, metadata: dict[bytes, bytes] | None = None) -> pa.Schema:
    """The columns of a shard, with the header in the metadata."""
    fields = [
        ("name", pa.string()),
        ("frames", pa.int32()),
        ("codes", pa.list_(pa.uint16())),
        ("embedding", pa.list_(pa.float32(), header.embedding or -1)),  # -1: of any length
        ("captions", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("seconds", pa.float32()),
        ("audio", pa.string()),
    ]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(asdict(header)).encode(), **(metadata or {})})


def write_shard(
    path: Path,
    header: StoreHeader,
    clips: Iterable[Clip],
    failures: Sequence[dict[str, Any]] = (),
    metadata: dict[bytes, bytes] | None = None,
) -> int:
    """Write one shard under a temporary name and rename it; returns the number of its clips.

    failures: what is remembered of clips that belong here and could not be extracted. metadata: more of the schema's.
    """
    rows = [clip_row(clip, header) for clip in clips]
    schema = store_schema(header, {FAILURES_KEY: json.dumps(list(failures)).encode(), **(metadata or {})})
    table = pa.Table.from_pylist(rows, schema=schema)
    with replacement_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=CLIPS_PER_GROUP, compression="zstd")
    return len(rows)


def clip_row(clip: Clip, header: StoreHeader) -> dict[str, object]:
    """The clip's row in a shard; DataError when it has another number of codebooks than the store."""
    codes = clip.features.codes
    if codes.shape[1] != header.codebooks:
        raise DataError(f"{clip.name}: {codes.shape[1]} codebooks, but the store holds {header.codebooks}")
    embedding = clip.features.embedding
    vector = np.zeros(header.embedding, EMBEDDING_TYPE) if embedding is None else embedding.astype(EMBEDDING_TYPE)
    return {
        "name": clip.name,
        "frames": len(codes),
        "codes": codes.astype(CODE_TYPE).reshape(-1),
        "embedding": vector,
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "split": clip.split,
        "seconds": clip.seconds,
        "audio": clip.audio,
    }


class _Texts:
    """A column of strings, read from its buffers: through Arrow's own scalars a row takes ten times as long."""

    def __init__(self, column: pa.StringArray) -> None:
        _, offsets, self._content = column.buffers()
        self._offsets = np.frombuffer(offsets, np.int32)[column.offset :]

    def __getitem__(self, row: int) -> str:
        start, end = self._offsets[row], self._offsets[row + 1]
        return bytes(self._content[start:end]).decode() if end > start else ""


class _TextLists:
    """A column of lists of strings, read likewise."""

    def __init__(self, column: pa.ListArray) -> None:
        self._offsets = column.offsets.to_numpy()
        self._texts = _Texts(column.values)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return tuple(self._texts[index] for index in range(self._offsets[row], self._offsets[row + 1]))


class _Batch:
    """A record batch of the mapped file, as views of its columns: reading a row copies that row alone."""

    def __init__(self, batch: pa.RecordBatch, embedding: int) -> None:
        self.rows = batch.num_rows
        self._batch = batch
        codes = batch.column("codes")
        self._codes = codes.values.to_numpy(zero_copy_only=True)
        self._offsets = codes.offsets.to_numpy()
        vectors = batch.column("embedding")
        self._embedding = vectors.values.to_numpy().reshape(-1, embedding) if embedding else None
        self._seconds = batch.column("seconds").to_numpy()
        self._name, self._split, self._audio = (_Texts(batch.column(name)) for name in ("name", "split", "audio"))
        self._captions, self._labels = (_TextLists(batch.column(name)) for name in ("captions", "labels"))

    def values(self, name: str) -> list[Any]:
        """A column's values."""
        found: list[Any] = self._batch.column(name).to_pylist()
        return found

    def clip(self, row: int, codebooks: int) -> Clip:
        """The clip in a row."""
        codes = self._codes[self._offsets[row] : self._offsets[row + 1]].reshape(-1, codebooks).astype(np.int64)
        features = Features(codes, None if self._embedding is None else self._embedding[row].copy())
        seconds = float(self._seconds[row])
        texts = (self._captions[row], self._labels[row], seconds, self._split[row], self._audio[row])
        return Clip(self._name[row], features, *texts)


class FeatureStore(Sequence[Clip]):
    """The clips of all shards of one or more folders, in the order of the folders and of the shards' names.

    The Arrow copy of each folder is made if it is not there or older than the shards. Raises DataError for shards of
    different models or formats, EnvironmentFault when the copy cannot be written.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        paths = [path for folder in folders for path in find_shards(folder)]
        self.header = read_header(paths[0])
        for path in paths:
            if read_header(path) != self.header:
                raise DataError(f"{path}: made with another model or format than {paths[0]}; extract again")
        self._batches: list[_Batch] = []
        self._frames: list[Any] = []
        for folder in folders:
            reader = pa.ipc.open_file(pa.memory_map(str(mapped_copy(folder, self.header))))
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                self._frames.append(batch.column("frames"))
                self._batches.append(_Batch(batch, self.header.embedding))
        self._starts: list[int] = [0, *itertools.accumulate(batch.rows for batch in self._batches)]

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path, ...]]:
        """Pickled as the names of its folders, so that a data loader's worker maps the files itself."""
        return FeatureStore, self._folders

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]  # counts from the end when negative; raises IndexError
        batch = bisect.bisect_right(self._starts, number) - 1
        return self._batches[batch].clip(number - self._starts[batch], self.header.codebooks)

    def column(self, name: str) -> list[Any]:
        """What all clips have in one of the columns."""
        return [value for batch in self._batches for value in batch.values(name)]

    def lengths(self) -> IntArray:
        """Code frames of every clip, int64 [N]."""
        return np.concatenate([frames.to_numpy() for frames in self._frames]).astype(np.int64)


def mapped_copy(folder: Path, header: StoreHeader) -> Path:
    """The folder's uncompressed Arrow file of all shards, made if it is missing or not of these shards.

    EnvironmentFault when it cannot be written.
    """
    path, shards = folder / MAPPED, find_shards(folder)
    state = json.dumps([[shard.name, shard.stat().st_size, shard.stat().st_mtime_ns] for shard in shards]).encode()
    if state_of(path) == state:
        return path
    schema = store_schema(header, {b"shards": state})
    with replacement_path(path) as temporary, pa.ipc.new_file(temporary, schema) as writer:
        for shard in shards:
            for batch in pq.ParquetFile(shard).iter_batches(CLIPS_PER_GROUP, use_threads=False):
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return path


def state_of(path: Path) -> bytes | None:
    """What shards an Arrow copy was made of; None when there is none that is whole."""
    try:
        with pa.memory_map(os.fspath(path)) as file:
            return dict(pa.ipc.open_file(file).schema.metadata or {}).get(b"shards")
    except (OSError, pa.ArrowInvalid):
        return None


def find_shards(folder: Path) -> list[Path]:
    """The shards in a folder, in order of name; DataError when there are none."""
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{printable(str(folder))}: holds no feature shards (*.parquet); extract features first")
    return paths


def read_header(path: Path) -> StoreHeader:
    """A shard's header; DataError when it is no shard, or of a format that is not known."""
    table = json.loads(read_metadata(path)[METADATA_KEY])
    if table.get("version") != FORMAT_VERSION:
        shown, known = printable(str(path)), f"this version reads {FORMAT_VERSION}"
        raise DataError(f"{shown}: format {table.get('version')!r}; {known}, so extract again")
    return StoreHeader(**table)


def read_failures(path: Path) -> list[dict[str, Any]]:
    """What a shard remembers of clips that could not be extracted."""
    failures: list[dict[str, Any]] = json.loads(read_metadata(path).get(FAILURES_KEY, b"[]"))
    return failures


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """The metadata of a shard's schema; DataError when it is no shard."""
    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
        json.loads(metadata[METADATA_KEY])
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a feature shard of enclap; remove it or extract again") from error
    return metadata
