"""The recordings' manifest and the decoded recordings of a training run."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.errors import DataError
from enclap.files import replacement_path, write_whole
from enclap.types import FloatArray

MANIFEST, LATER_MANIFEST = "manifest.csv", "manifest_more.csv"
"""The two parts of the collection, in one folder; the second is optional."""
MANIFEST_SPLITS = ("train", "test")
PEAK = 32767.0
"""Full scale of the 16-bit samples in which decoded recordings are kept."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One row of the manifest: a recording, what can be heard in it, and where it comes from."""

    path: str
    labels: tuple[str, ...]
    description: str
    source_repo: str
    source_path: str
    author: str
    licence: str
    split: str
    fold: int | None
    seconds: float
    source_url: str
    recording: str

    @property
    def label(self) -> str:
        """The main label."""
        return self.labels[0]


def read_manifest(path: Path) -> list[Recording]:
    """All rows of a manifest.csv in their order; DataError names what is wrong with the file."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            recordings = [parse_recording(row) for row in csv.DictReader(stream)]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such manifest; give the folder that holds manifest.csv") from error
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a recordings manifest ({error!r})") from error
    unknown = sorted({recording.split for recording in recordings} - set(MANIFEST_SPLITS))
    if unknown:  # a recording that was meant to be kept apart must not be trained on
        raise DataError(f"{path}: split {', '.join(map(repr, unknown))}; write {' or '.join(MANIFEST_SPLITS)}")
    return recordings


def read_collection(folder: Path) -> list[Recording]:
    """All rows of a folder's manifest.csv, then those of its manifest_more.csv where there is one.

    DataError names what is wrong with a file, the first row without a licence, and a path that stands in both.
    """
    recordings = read_manifest(folder / MANIFEST)
    if (folder / LATER_MANIFEST).exists():
        recordings += read_manifest(folder / LATER_MANIFEST)
    if bare := next((recording.path for recording in recordings if not recording.licence.strip()), None):
        raise DataError(f"{folder}: {bare} has no licence; give one in its manifest, or leave the recording out")
    counts = Counter(recording.path for recording in recordings)
    if twice := next((path for path, count in counts.items() if count > 1), None):
        raise DataError(f"{folder}: {twice} stands in the manifests more than once; keep one row")
    return recordings


def parse_recording(row: dict[str, str]) -> Recording:
    """The recording that a row of a manifest describes; KeyError, TypeError or ValueError when it describes none."""
    return Recording(
        path=row["path"],
        labels=tuple(label.strip() for label in row["labels"].split(";")),
        description=row["description"],
        source_repo=row["source_repo"],
        source_path=row["source_path"],
        author=row["author"],
        licence=row["licence"],
        split=row["split"],
        fold=int(row["fold"]) if row["fold"] else None,
        seconds=float(row["seconds"]),
        source_url=row["source_url"],
        recording=row["recording"],
    )


@dataclass(frozen=True)
class Corpus:
    """Decoded recordings in one memory-mapped file.

    samples: int16 [total], all recordings one after the other at `rate`; starts: int64 [N + 1].
    """

    recordings: tuple[Recording, ...]
    rate: int
    samples: NDArray[np.int16]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.recordings)

    def length(self, index: int) -> int:
        """Samples of one recording."""
        return int(self.starts[index + 1] - self.starts[index])

    def audio(self, index: int, start: int = 0, length: int | None = None) -> FloatArray:
        """Float32 [N] samples of one recording at `rate`, or of `length` samples of it from `start` on."""
        first = self.starts[index] + start
        end = self.starts[index + 1] if length is None else min(first + length, self.starts[index + 1])
        return self.samples[first:end].astype(np.float32) / np.float32(PEAK)


def open_corpus(recordings_folder: Path, cache: Path, rate: int, labels: Collection[str] | None = None) -> Corpus:
    """The collection in `recordings_folder`, decoded once into `cache` and memory-mapped after that.

    labels: main labels of the recordings that are taken; None for all.
    """
    recordings = [item for item in read_collection(recordings_folder) if labels is None or item.label in labels]
    cache.mkdir(parents=True, exist_ok=True)
    index = cache / f"recordings-{rate}.json"
    data = cache / f"recordings-{rate}.int16"
    names = [recording.path for recording in recordings]
    if not index.exists() or json.loads(index.read_text(encoding="utf-8"))["paths"] != names:
        lengths = []
        with replacement_path(data) as temporary, temporary.open("wb") as stream:
            for recording in recordings:
                samples = resample(read_audio(recordings_folder / recording.path), rate)
                pcm = np.round(np.clip(samples, -1.0, 1.0) * PEAK).astype("<i2")
                stream.write(pcm.tobytes())
                lengths.append(len(pcm))
        write_whole(index, json.dumps({"paths": names, "lengths": lengths}))
    lengths = json.loads(index.read_text(encoding="utf-8"))["lengths"]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    samples = np.memmap(data, dtype=np.int16, mode="r", shape=(int(starts[-1]),))
    return Corpus(tuple(recordings), rate, samples, starts)
