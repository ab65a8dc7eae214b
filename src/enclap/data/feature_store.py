"""The feature store: what codec and CLAP found in each clip, as Parquet shards that are read memory-mapped.

A row is a clip: its name, codes as bytes, embedding as bytes, captions, labels, seconds. The schema's metadata holds
the store's format version, the sizes, and a fingerprint of the encoders, so that features of another model or format
are refused rather than misread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from enclap.errors import DataError
from enclap.files import replacement_path, sha256
from enclap.types import Features

FORMAT_VERSION = 1
METADATA_KEY = b"enclap"
CODE_TYPE = np.dtype("<u2")
EMBEDDING_TYPE = np.dtype("<f4")


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
    """One row: features with the captions and labels that belong to them."""

    name: str
    features: Features
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    seconds: float


def fingerprint(folder: Path) -> str:
    """A hash over the weights of a folder's codec and CLAP: features of equal fingerprints are interchangeable."""
    parts = ("codec/model.safetensors", "clap/model.safetensors", "clap/preprocessor_config.json")
    return sha256(*(folder / part for part in parts))[:32]


def _schema(header: StoreHeader) -> pa.Schema:
    fields = [
        ("name", pa.string()),
        ("frames", pa.int32()),
        ("codes", pa.binary()),
        ("embedding", pa.binary(header.embedding * EMBEDDING_TYPE.itemsize)),
        ("captions", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),
        ("seconds", pa.float32()),
    ]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(asdict(header)).encode()})


def write_shard(path: Path, header: StoreHeader, clips: Iterable[Clip]) -> int:
    """Write one shard under a temporary name and rename it; returns the number of its clips."""
    rows = [_row(clip, header) for clip in clips]
    with replacement_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema(header)), temporary, compression="none")
    return len(rows)


def _row(clip: Clip, header: StoreHeader) -> dict[str, object]:
    codes = clip.features.codes
    if codes.shape[1] != header.codebooks:
        raise DataError(f"{clip.name}: {codes.shape[1]} codebooks, but the store holds {header.codebooks}")
    embedding = clip.features.embedding
    vector = np.zeros(header.embedding, EMBEDDING_TYPE) if embedding is None else embedding.astype(EMBEDDING_TYPE)
    return {
        "name": clip.name,
        "frames": len(codes),
        "codes": codes.astype(CODE_TYPE).tobytes(),
        "embedding": vector.tobytes(),
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "seconds": clip.seconds,
    }


class FeatureStore:
    """All shards of a folder, in the order of their names; clips are read one at a time from mapped files."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.parquet"))
        if not paths:
            raise DataError(f"{folder}: holds no feature shards (*.parquet); extract features first")
        self.header = _read_header(paths[0])
        tables = []
        for path in paths:
            if _read_header(path) != self.header:
                raise DataError(f"{path}: made with another model or format than {paths[0].name}; extract again")
            tables.append(pq.read_table(path, memory_map=True))
        self._table = pa.concat_tables(tables).combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Clip:
        row = {name: self._table.column(name)[index].as_py() for name in self._table.column_names}
        codes = np.frombuffer(row["codes"], CODE_TYPE).reshape(row["frames"], self.header.codebooks)
        embedding = np.frombuffer(row["embedding"], EMBEDDING_TYPE) if self.header.embedding else None
        features = Features(codes.astype(np.int64), embedding)
        return Clip(row["name"], features, tuple(row["captions"]), tuple(row["labels"]), row["seconds"])

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def lengths(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Code frames of every clip, int64 [N]."""
        return np.asarray(self._table.column("frames"), dtype=np.int64)


def _read_header(path: Path) -> StoreHeader:
    """A shard's header; DataError when it is no shard, or of a format that is not known."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        table = json.loads(metadata[METADATA_KEY])
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a feature shard of enclap; remove it or extract again") from error
    if table.get("version") != FORMAT_VERSION:
        raise DataError(f"{path}: format {table.get('version')!r}; this version reads {FORMAT_VERSION}")
    return StoreHeader(**table)


def join(stores: Sequence[FeatureStore]) -> list[Clip]:
    """The clips of several stores one after the other."""
    return [clip for store in stores for clip in store]
