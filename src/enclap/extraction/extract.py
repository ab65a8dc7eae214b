"""A data set -> shards of features, written whole one after the other, so that a run that was killed goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from enclap.audio.window import WHOLE, is_silent
from enclap.captioner import Captioner, check_finite
from enclap.data.datasets.base import CaptionedClip, Fault, source_of
from enclap.data.datasets.check import CheckedDataset
from enclap.data.feature_store import Clip, StoreHeader, fingerprint, read_failures, write_shard
from enclap.errors import DataError, InputError, UsageError
from enclap.files import locked, make_folders, write_whole
from enclap.hub.layout import read_configuration
from enclap.prefetch import CLOSING_SECONDS, Prefetcher, in_turn
from enclap.text import printable
from enclap.types import Window

logger = logging.getLogger(__name__)

CLIPS_PER_SHARD = 64
"""Of the data set, whether they can be read or not: what a killed run has to do again at most."""
FAILURES = "failures.jsonl"
SILENT = "silence, about which captioning never asks a model"
PLAN = "extraction.json"
"""What the features are of; a run with another plan is refused in the same folder."""

_ClipRead = tuple[CaptionedClip, Window | InputError]
"""A clip with its sound, or with what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """How far an extraction has come: clips done, of how many, and those that could not be extracted."""

    done: int
    clips: int
    failures: int


def extract_features(
    dataset: CheckedDataset,
    captioner: Captioner,
    output: Path,
    *,
    faults: Sequence[Fault] = (),
    strict: bool = False,
    on_progress: Callable[[Extracted], None] | None = None,
) -> Extracted:
    """Write `output`/00000.parquet and so on: the features of every clip, each recording as one window.

    Shards that are there already are kept, so a run goes on where an earlier one stopped, and the shards of both are
    those of one that was not interrupted. Clips that cannot be extracted are listed in failures.jsonl, with the
    `faults` that left clips out before; strict: the first raises its InputError instead.
    DataError when `output` holds features of another data set or model.
    """
    make_folders(output)
    header, clips = store_header(captioner), len(dataset)
    with locked(output / ".lock", str(output)):
        require_plan(output, plan_of(dataset, header, captioner.model))
        paths = [output / f"{number:05d}.parquet" for number in range(-(-clips // CLIPS_PER_SHARD))]
        failures = [failure for path in paths if path.exists() for failure in read_failures(path)]
        missing = [not path.exists() for path in paths]
        features = Prefetcher(shard_features(dataset, missing, captioner, strict), depth=1)  # one is written meanwhile
        try:
            for number, (path, is_missing) in enumerate(zip(paths, missing, strict=True), start=1):
                if is_missing:
                    failures += write_features(path, header, next(features))
                if on_progress is not None:
                    on_progress(Extracted(min(clips, number * CLIPS_PER_SHARD), clips, len(failures)))
        finally:
            features.stop()
            features.join(CLOSING_SECONDS)
        return write_failures(output, paths, faults, clips)


def write_failures(output: Path, shards: Sequence[Path], faults: Sequence[Fault], clips: int) -> Extracted:
    """Write failures.jsonl: what was left out before, and what the shards say; DataError when no clip remains."""
    failures = [failure for path in shards for failure in read_failures(path)]
    left_out = [{"table": fault.table, "line": fault.line, "error": fault.text} for fault in faults]
    lines = [json.dumps(failure, ensure_ascii=False) + "\n" for failure in [*left_out, *failures]]
    write_whole(output / FAILURES, "".join(lines))
    if len(failures) == clips:
        raise DataError(f"{printable(str(output))}: no clip could be extracted; see {FAILURES}")
    return Extracted(clips, clips, len(failures) + len(left_out))


def store_header(captioner: Captioner) -> StoreHeader:
    """What the features of a captioner's encoders share; UsageError for a model that reads no codes."""
    if captioner.folder is None:
        raise UsageError(f"{captioner.model}: features need a model folder")
    table = read_configuration(captioner.folder)
    if table.get("acoustic_input", "codes") != "codes":
        raise UsageError(f"{captioner.model}: reads no codes, so there is nothing to extract; choose another model")
    return StoreHeader(
        int(table["codebooks"]),
        int(table["codebook_entries"]),
        int(table["clap_dim"]) if table["use_clap"] else 0,
        captioner.engine.code_rate,
        fingerprint(captioner.folder),
    )


def plan_of(dataset: CheckedDataset, header: StoreHeader, model: str) -> dict[str, Any]:
    """What makes an extraction this one and no other, and the model's name."""
    return {"model": model, "clips": len(dataset), "data": dataset.identity, "encoders": asdict(header)}


def require_plan(output: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or raise DataError when the folder holds features of another one."""
    path = output / PLAN
    if not path.exists():
        write_whole(path, json.dumps(plan, indent=1) + "\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, what in (("encoders", "another model"), ("data", "other clips")):
        if found.get(key) != plan[key]:
            raise DataError(f"{printable(str(output))}: holds features of {what}; choose another output folder")


def write_features(path: Path, header: StoreHeader, features: Iterable[Clip | dict[str, Any]]) -> list[dict[str, Any]]:
    """Write one shard; returns the failures of its clips."""
    clips: list[Clip] = []
    failures: list[dict[str, Any]] = []
    for item in features:
        if isinstance(item, Clip):
            clips.append(item)
        else:
            failures.append(item)
    write_shard(path, header, clips, failures)
    return failures


def shard_features(
    dataset: CheckedDataset, missing: Sequence[bool], captioner: Captioner, strict: bool
) -> Generator[list[Clip | dict[str, Any]], None, None]:
    """For each missing shard its clips with their features, or what is known of why a clip has none.

    Decoding runs ahead of the encoders, from one shard into the next. Batches do not: what is computed of a shard does
    not depend on which others were there already.
    """
    together, readers = captioner.engine.windows_together, captioner.engine.recordings_together

    def begun() -> Iterator[Iterator[_ClipRead | None]]:
        clips = iter(dataset)
        for is_missing in missing:
            for clip in islice(clips, CLIPS_PER_SHARD):
                if is_missing:  # else it is walked past
                    part = clip_window(clip, captioner)
                    yield Prefetcher(part, depth=1) if readers > 1 else part
            if is_missing:
                yield iter([None])  # the end of a shard

    read = Prefetcher(in_turn(begun(), readers), together)
    try:
        batch: list[_ClipRead] = []
        found: list[Clip | dict[str, Any]] = []
        for item in read:
            if item is not None:
                batch.append(item)
            if len(batch) == together or item is None:
                found += clip_features(batch, captioner, dataset.hashes, strict)
                batch = []
            if item is None:
                yield found
                found = []
    finally:
        read.stop()
        read.join(CLOSING_SECONDS)


def clip_features(
    batch: Sequence[_ClipRead], captioner: Captioner, hashes: dict[str, str], strict: bool
) -> Iterator[Clip | dict[str, Any]]:
    """Each clip with its features, or what is known of why it has none."""
    windows = [window for _, window in batch if isinstance(window, Window)]
    found = iter(captioner.engine.extract(windows, whole=True) if windows else [])
    for clip, window in batch:
        error: InputError | None = None if isinstance(window, Window) else window
        if isinstance(window, Window):
            features = next(found)
            try:
                check_finite(features, window, clip.name)
                seconds, digest = window.waveform.seconds, hashes[clip.name]
                yield Clip(clip.name, features, clip.captions, clip.labels, seconds, clip.split, digest)
            except InputError as fault:
                error = fault
        if error is not None:
            if strict:
                raise error
            logger.warning("%s", error)
            yield {"name": clip.name, "table": clip.table, "line": clip.line, "error": str(error)}


def clip_window(clip: CaptionedClip, captioner: Captioner) -> Generator[_ClipRead, None, None]:
    """The clip and its single window, or what is wrong with it."""
    try:
        with closing(captioner.windows(source_of(clip), WHOLE, warn=False)) as pieces:
            [window] = [window for window, _ in pieces]
        if is_silent(window.waveform.samples):
            raise InputError(f"{printable(clip.name)}: {SILENT}")
    except InputError as error:
        yield clip, error
    else:
        yield clip, window
