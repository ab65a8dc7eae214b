"""The feature store: codes and embedding of each clip, as Parquet shards of which clips are read one at a time.

A row is a clip: its name, codes as bytes, embedding as bytes, captions, labels, seconds. The schema's metadata holds
the store's format version, the sizes, and a fingerprint of the encoders, so that features of another model or format
are refused rather than misread. Parquet cannot be used as it lies in the file, so "memory-mapped" needs small row
groups: only the group of the clip that is asked for is decoded, and a store of any size takes no memory.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from enclap.errors import DataError
from enclap.files import replacement_path, sha256
from enclap.types import Features, IntArray

FORMAT_VERSION = 1
METADATA_KEY = b"enclap"
CODE_TYPE = np.dtype("<u2")
EMBEDDING_TYPE = np.dtype("<f4")
CLIPS_PER_GROUP = 16
"""Rows of a row group. Fewer make larger files; more make each random read decode clips that nobody asked for."""
GROUPS_KEPT = 8
"""Row groups that a store keeps decoded, for those who read clips in order."""


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


def write_shard(path: Path, header: StoreHeader, clips: Iterable[Clip]) -> int:
    """Write one shard under a temporary name and rename it; returns the number of its clips."""
    rows = [clip_row(clip, header) for clip in clips]
    fields = [
        ("name", pa.string()),
        ("frames", pa.int32()),
        ("codes", pa.binary()),
        ("embedding", pa.binary(header.embedding * EMBEDDING_TYPE.itemsize)),
        ("captions", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),
        ("seconds", pa.float32()),
    ]
    schema = pa.schema(fields, metadata={METADATA_KEY: json.dumps(asdict(header)).encode()})
    table = pa.Table.from_pylist(rows, schema=schema)
    with replacement_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=CLIPS_PER_GROUP, compression="none")
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
        "codes": codes.astype(CODE_TYPE).tobytes(),
        "embedding": vector.tobytes(),
        "captions": list(clip.captions),
        "labels": list(clip.labels),
        "seconds": clip.seconds,
    }


class FeatureStore(Sequence[Clip]):
    """The clips of all shards of one or more folders, in the order of the folders and of the shards' names.

    header: what all shards share. Clips are read from mapped files when they are asked for. DataError when a folder
    holds no shards, or one that was made with another model or format.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        paths = [path for folder in folders for path in find_shards(folder)]
        self.header = read_header(paths[0])
        for path in paths:
            if read_header(path) != self.header:
                raise DataError(f"{path}: made with another model or format than {paths[0]}; extract again")
        self._files = [pq.ParquetFile(path, memory_map=True) for path in paths]
        self._groups = [(file, group) for file in self._files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self._starts: list[int] = [0, *itertools.accumulate(sizes)]
        self._decoded: OrderedDict[int, pa.Table] = OrderedDict()

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
        group = bisect.bisect_right(self._starts, number) - 1
        if group not in self._decoded:
            file, group_in_file = self._groups[group]
            self._decoded[group] = file.read_row_group(group_in_file, use_threads=False)
        self._decoded.move_to_end(group)  # the groups used last stay decoded
        if len(self._decoded) > GROUPS_KEPT:
            self._decoded.popitem(last=False)
        [row] = self._decoded[group].slice(number - self._starts[group], 1).to_pylist()
        codes = np.frombuffer(row["codes"], CODE_TYPE).reshape(row["frames"], self.header.codebooks)
        embedding = np.frombuffer(row["embedding"], EMBEDDING_TYPE) if self.header.embedding else None
        features = Features(codes.astype(np.int64), embedding)
        return Clip(row["name"], features, tuple(row["captions"]), tuple(row["labels"]), row["seconds"])

    def lengths(self) -> IntArray:
        """Code frames of every clip, int64 [N]."""
        columns = [file.read(columns=["frames"]).column("frames").to_numpy() for file in self._files]
        return np.concatenate(columns).astype(np.int64)


def find_shards(folder: Path) -> list[Path]:
    """The shards in a folder, in order of name; DataError when there are none."""
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{folder}: holds no feature shards (*.parquet); extract features first")
    return paths


def read_header(path: Path) -> StoreHeader:
    """A shard's header; DataError when it is no shard, or of a format that is not known."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        table = json.loads(metadata[METADATA_KEY])
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a feature shard of enclap; remove it or extract again") from error
    if table.get("version") != FORMAT_VERSION:
        raise DataError(f"{path}: format {table.get('version')!r}; this version reads {FORMAT_VERSION}")
    return StoreHeader(**table)
