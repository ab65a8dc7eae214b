"""Recordings to what a library keeps of them: captions, embeddings, labels and fingerprints, window by window."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.window import is_silent
from enclap.captioner import Captioner, caption_of, check_finite, silence_of
from enclap.decoding.options import DecodingOptions
from enclap.engines.base import Engine
from enclap.errors import InputError, ModelError
from enclap.prefetch import CLOSING_SECONDS, Prefetcher
from enclap.search.fingerprint import Codes, fingerprint
from enclap.text import printable
from enclap.types import Caption, Features, FloatArray, Window, embedding_of


@dataclass(frozen=True, slots=True, eq=False)
class HeardWindow:
    """What is known of one window. embedding: float32 [E], unit length, None for silence; codes: see `fingerprint`."""

    caption: Caption
    embedding: FloatArray | None
    codes: Codes


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A recording: its windows in order of time, or why it cannot be heard."""

    path: Path
    windows: tuple[HeardWindow, ...]
    fault: InputError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A window with its fingerprint, or the end of its recording, with a fault if there was one."""

    path: Path
    window: Window | None
    codes: Codes | None = None
    fault: InputError | None = None


def require_text_tower(engine: Engine, model: str) -> None:
    """Raises ModelError unless texts and sounds meet in one space."""
    if not engine.can_embed_text:
        remedy = "use mini, or fetch one with it: `enclap models pull official --text-tower`"
        raise ModelError(f"{printable(model)}: searching and tagging need CLAP's text tower, not here; {remedy}")


def hear(captioner: Captioner, paths: Iterable[Path], *, captions: bool = True) -> Generator[Heard, None, None]:
    """Each recording in order, as soon as its last window is captioned; windows of neighbours share batches.

    captions: without them the sentences stay empty. A thread decodes ahead. Close the generator, or walk to its end, to
    end it.
    """
    size = captioner.engine.windows_together
    events = Prefetcher(read_windows(captioner, paths), size)
    windows: list[HeardWindow] = []
    fault: InputError | None = None
    try:
        for batch in batches_of(events, size):
            found = iter(captioned(captioner, [item.window for item in batch if item.window is not None], captions))
            for item in batch:
                if item.window is None:
                    fault = fault or item.fault
                    yield Heard(item.path, () if fault else tuple(windows), fault)
                    windows, fault = [], None
                    continue
                caption, features = next(found)
                try:
                    if features is not None:
                        check_finite(features, item.window, str(item.path))
                except InputError as error:
                    fault = fault or error
                    continue
                embedding = None if features is None else embedding_of(features)
                windows.append(
                    HeardWindow(caption, embedding, np.zeros(0, np.uint32) if item.codes is None else item.codes)
                )
    finally:
        events.stop()
        events.join(CLOSING_SECONDS)


def embed(engine: Engine, windows: Sequence[Window]) -> FloatArray:
    """Float32 [N, E]: the embeddings of windows that are not silent."""
    return np.stack([embedding_of(features) for features in engine.extract(windows)])


def read_windows(captioner: Captioner, paths: Iterable[Path]) -> Generator[_Read, None, None]:
    """The windows of each file with their fingerprints, then its end."""
    for path in paths:
        fault = None
        try:
            with closing(captioner.windows(str(path), warn=False)) as pieces:
                for window, _ in pieces:
                    yield _Read(path, window, fingerprint(window.waveform))
        except InputError as error:
            fault = error
        yield _Read(path, None, fault=fault)


def batches_of(events: Iterable[_Read], size: int) -> Generator[list[_Read], None, None]:
    """Runs of events with so many windows at most."""
    batch: list[_Read] = []
    windows = 0
    for event in events:
        if event.window is not None and windows == size:
            yield batch
            batch, windows = [], 0
        windows += event.window is not None
        batch.append(event)
    if batch:
        yield batch


def captioned(captioner: Captioner, windows: Sequence[Window], captions: bool) -> list[tuple[Caption, Features | None]]:
    """Caption and features of each window; silence has no features."""
    audible = [window for window in windows if not is_silent(window.waveform.samples)]
    features = captioner.engine.extract(audible) if audible else []
    if captions and features:
        selections = captioner.selector.select(features, DecodingOptions())
        said = [caption_of(window, selection) for window, selection in zip(audible, selections, strict=True)]
    else:
        said = [Caption(window.start, window.end, "", None) for window in audible]
    found = {id(window): pair for window, pair in zip(audible, zip(said, features, strict=True), strict=True)}
    return [found.get(id(window)) or (silence_of(window), None) for window in windows]
