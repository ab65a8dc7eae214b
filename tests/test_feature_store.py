"""The feature store: what is written is read again, one clip at a time, and foreign shards are refused."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from enclap.data.feature_store import CLIPS_PER_GROUP, Clip, FeatureStore, StoreHeader, write_shard
from enclap.errors import DataError
from feature_clips import HEADER, clips


def assert_same(found: Clip, wanted: Clip) -> None:
    assert np.array_equal(found.features.codes, wanted.features.codes) and found.features.codes.dtype == np.int64
    assert found.features.embedding is not None and wanted.features.embedding is not None
    assert np.array_equal(found.features.embedding, wanted.features.embedding)
    assert (found.name, found.captions, found.labels, found.seconds) == (
        wanted.name,
        wanted.captions,
        wanted.labels,
        wanted.seconds,
    )


def test_a_store_gives_back_what_was_written(tmp_path: Path) -> None:
    wanted = clips(10)
    write_shard(tmp_path / "00000.parquet", HEADER, wanted[:6])
    write_shard(tmp_path / "00001.parquet", HEADER, wanted[6:])
    store = FeatureStore(tmp_path)
    assert len(store) == 10 and store.lengths().tolist() == [len(clip.features.codes) for clip in wanted]
    for found, clip in zip(store, wanted, strict=True):
        assert_same(found, clip)


def test_several_stores_are_one_sequence_in_any_order_of_reading(tmp_path: Path) -> None:
    wanted = clips(3 * CLIPS_PER_GROUP + 5)
    ends = (0, 5, CLIPS_PER_GROUP + 6, len(wanted))  # shards that end within and beyond a row group
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        (tmp_path / str(number)).mkdir()
        write_shard(tmp_path / str(number) / "00000.parquet", HEADER, wanted[start:end])
    store = FeatureStore(*(tmp_path / str(number) for number in range(3)))
    assert len(store) == len(wanted)
    assert store.lengths().tolist() == [len(clip.features.codes) for clip in wanted]
    for index in np.random.default_rng(0).integers(-len(wanted), len(wanted), 200):
        assert_same(store[int(index)], wanted[int(index)])
    assert [clip.name for clip in store[4:9]] == [clip.name for clip in wanted[4:9]]
    with pytest.raises(IndexError):
        store[len(wanted)]
    assert [clip.name for clip in pickle.loads(pickle.dumps(store))] == [clip.name for clip in wanted]


def test_an_open_store_takes_no_memory_however_large(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    large = [
        replace(clip, features=replace(clip.features, codes=generator.integers(0, 32, (5_000, 3))))
        for clip in clips(12 * CLIPS_PER_GROUP)
    ]
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        write_shard(tmp_path / str(number) / "00000.parquet", HEADER, large)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    before = pa.total_allocated_bytes()
    store = FeatureStore(tmp_path / "0", tmp_path / "1")
    store.lengths()
    assert pa.total_allocated_bytes() - before < size / 100
    for clip in store:
        assert len(clip.features.codes) == 5_000
    assert pa.total_allocated_bytes() - before < 0.6 * size  # some row groups, not the files


def test_a_store_refuses_shards_of_another_model_format_or_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no feature shards"):
        FeatureStore(tmp_path)
    write_shard(tmp_path / "00000.parquet", HEADER, clips(2))
    other = StoreHeader(codebooks=3, entries=32, embedding=5, frame_rate=25.0, encoders="other")
    write_shard(tmp_path / "00001.parquet", other, clips(2))
    with pytest.raises(DataError, match="another model"):
        FeatureStore(tmp_path)
    later = StoreHeader(codebooks=3, entries=32, embedding=5, frame_rate=25.0, encoders="abc", version=99)
    write_shard(tmp_path / "00001.parquet", later, clips(2))
    with pytest.raises(DataError, match="format 99"):
        FeatureStore(tmp_path)
    (tmp_path / "00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a feature shard"):
        FeatureStore(tmp_path)
