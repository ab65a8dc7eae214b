"""`enclap extract --ray`: features of a data set through the stages of the corpus pipeline, into the same shards.

Which clips a shard has, and what is in it, is what `enclap.extraction` makes of it, so either goes on where the other
one stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.window import WHOLE
from enclap.batch.decode import Decoded, ItemEnd
from enclap.batch.listing import write_listing
from enclap.batch.local import Job
from enclap.batch.run import LISTING, LOCK, Runner, Totals, finish_shards
from enclap.batch.shards import ShardPaths, ShardReport
from enclap.batch.sources import Item, local_item
from enclap.batch.work import ModelRun, Part, Recording, faulty_part, featured
from enclap.captioner import Captioner
from enclap.data.datasets.base import Fault
from enclap.data.datasets.check import CheckedDataset
from enclap.data.feature_store import Clip, StoreHeader, read_failures, write_shard
from enclap.errors import DataError, InputError
from enclap.extraction.extract import (
    CLIPS_PER_SHARD,
    SILENT,
    Extracted,
    plan_of,
    require_plan,
    store_header,
    write_failures,
)
from enclap.files import locked, make_folders
from enclap.text import printable
from enclap.types import Features


@dataclass(frozen=True, slots=True)
class Extraction:
    """Codes and embedding of each clip, as one window. header: of the store that they go into."""

    header: StoreHeader
    window: float = WHOLE

    def load(self, model: ModelRun) -> Captioner:
        """The model; DataError when its encoders are not those of the store, as on a machine with another version."""
        captioner = model.load()
        if store_header(captioner) != self.header:
            raise DataError(f"{printable(model.model)}: another model on a worker than on the driver")
        return captioner

    def parts(self, captioner: Captioner, batches: Iterator[list[Decoded]]) -> Iterator[list[Part | ItemEnd]]:
        """The features, batch by batch."""
        with closing(featured(captioner, batches, whole=True)) as found:
            for batch in found:
                parts: list[Part | ItemEnd] = []
                for event, item in batch:
                    if isinstance(event, ItemEnd):
                        parts.append(event)
                    elif isinstance(item, Features):
                        codes, vector = item.codes.astype("<u2").tobytes(), item.embedding
                        embedding = None if vector is None else vector.astype("<f4").tobytes()
                        shape = json.dumps(item.codes.shape)
                        seconds = event.window.waveform.seconds
                        parts.append(Part(event.position, event.index, seconds, shape, codes, embedding))
                    else:
                        silent = InputError(f"{printable(event.name)}: {SILENT}")
                        parts.append(faulty_part(event, item or silent))
                yield parts

    def write(self, path: Path, recordings: Sequence[Recording], metadata: dict[bytes, bytes]) -> None:
        """Write a shard of the feature store; clips that failed are in its metadata."""
        clips, failures = [], []
        for recording in recordings:
            item, facts = recording.item, recording.item.clip or {}
            if recording.fault is not None:
                where = {"name": item.id, "table": facts["table"], "line": facts["line"]}
                failures.append(where | {"error": recording.fault[1]})
                continue
            [part] = recording.parts
            codes = np.frombuffer(part.codes or b"", "<u2").reshape(json.loads(part.text or "[]")).astype(np.int64)
            vector = None if part.embedding is None else np.frombuffer(part.embedding, "<f4")
            captions, labels = tuple(facts["captions"]), tuple(facts["labels"])
            features = Features(codes, vector)
            clips.append(Clip(item.id, features, captions, labels, part.end, facts["split"], facts["audio"]))
        write_shard(path, self.header, clips, failures, metadata)


def extract_through(
    runner: Runner,
    dataset: CheckedDataset,
    captioner: Captioner,
    model: ModelRun,
    output: Path,
    *,
    faults: Sequence[Fault] = (),
    strict: bool = False,
    on_progress: Callable[[Extracted], None] | None = None,
) -> Extracted:
    """As `extract_features`, its shards made by a runner of the pipeline.

    DataError for clips that are in no file of their own, as members of archives are.
    """
    make_folders(output)
    header, clips = store_header(captioner), len(dataset)
    paths = ShardPaths(output, prefix="")

    def show(totals: Totals) -> None:
        if on_progress is not None:
            on_progress(Extracted(totals.files, clips, totals.failed))

    with locked(output / LOCK, str(output)):
        require_plan(output, plan_of(dataset, header, captioner.model))
        listing = write_listing(output / LISTING, clip_items(dataset), CLIPS_PER_SHARD)
        job = Job(LISTING, Extraction(header), paths, "", model, strict)
        done = [
            ShardReport(shard, int(listing.lengths[shard]), 0.0, {"earlier": len(failures)} if failures else {})
            for shard, path in sorted(paths.present().items())
            for failures in [read_failures(path)]
        ]
        finish_shards(job, listing, runner, done, show)
        return write_failures(output, [paths.path(shard) for shard in range(len(listing))], faults, clips)


def clip_items(dataset: CheckedDataset) -> Iterator[Item]:
    """The clips of a data set as items, with what the data set says of each."""
    for clip in dataset:
        if not isinstance(clip.source, Path):
            raise DataError(f"{printable(clip.name)}: --ray reads files; leave it out, or unpack the archive first")
        facts = {"captions": clip.captions, "labels": clip.labels, "split": clip.split}
        where = {"table": clip.table, "line": clip.line, "audio": dataset.hashes[clip.name]}
        yield local_item(str(clip.source.resolve()), clip.name, clip=facts | where)
