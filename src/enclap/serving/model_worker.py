"""The model behind all requests: their windows share batches, and each request gets its captions in order.

Two threads use the model, as in `Captioner.stream`: one extracts the features of a batch while the other searches the
sentences of the batch before it. A window's caption does not depend on the windows beside it (the engines' contract),
so sharing a batch changes nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from enclap.audio.window import is_silent
from enclap.captioner import Captioner, caption_of, check_finite, silence_of
from enclap.decoding.options import DecodingOptions
from enclap.serving.metrics import Metrics
from enclap.serving.problems import RequestRefused
from enclap.serving.window_queue import MOST_WAITING, EndOfRecording, WindowQueue, WindowStream
from enclap.types import Caption, Features, Waveform, Window

logger = logging.getLogger("enclap.serving")

Item = TypeVar("Item")
Result = TypeVar("Result")

WARM_UP_SECONDS, WARM_UP_RATE = 1.0, 16_000


@dataclass(frozen=True, slots=True, eq=False)
class _Extracted:
    """An item after the first stage: its features; None for silence and for the end of a recording, or a fault."""

    stream: WindowStream
    item: Window | EndOfRecording
    features: Features | Exception | None


class ModelWorker:
    """Captions the windows that are put into its `windows`; `stop` ends its threads."""

    def __init__(self, captioner: Captioner, metrics: Metrics, most_waiting: float = MOST_WAITING) -> None:
        self.captioner = captioner
        self.windows = WindowQueue(captioner.engine.windows_together, most_waiting)
        self._metrics = metrics
        self._extracted: queue.Queue[list[_Extracted]] = queue.Queue(1)
        self._threads = [
            threading.Thread(target=stage, name=f"enclap-{stage.__name__}", daemon=True)
            for stage in (self.extract_batches, self.search_batches)
        ]

    def start(self) -> None:
        """Loads what the engine loads late, by way of a short noise, and starts the threads."""
        noise = np.random.default_rng(0).normal(0, 0.1, round(WARM_UP_SECONDS * WARM_UP_RATE)).astype(np.float32)
        features = self.captioner.engine.extract([Window(Waveform(noise, WARM_UP_RATE), 0.0, WARM_UP_SECONDS)])
        self.captioner.selector.select(features, DecodingOptions())
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads after the batches they are at; recordings that are not done end with RequestRefused."""
        unfinished = self.windows.stop()
        for thread in self._threads:
            thread.join()
        for stream in unfinished:
            stream.deliver(EndOfRecording(RequestRefused(503, "stopping", "the server is stopping; try again later")))

    def extract_batches(self) -> None:
        """The first stage, until the worker is stopped; an empty batch ends the second."""
        while batch := self.windows.next_batch():
            windows = [item for _, item in batch if isinstance(item, Window)]
            loud = [window for window in windows if not is_silent(window.waveform.samples)]
            if windows:
                self._metrics.batch.observe(len(windows))
            with self._timed("extract"):
                found = dict(zip(map(id, loud), apart_on_error(self.captioner.engine.extract, loud), strict=True))
            extracted = []
            for stream, item in batch:
                features = found.get(id(item))
                try:
                    if isinstance(features, Features) and isinstance(item, Window):
                        check_finite(features, item, stream.name)
                except Exception as error:
                    features = error
                extracted.append(_Extracted(stream, item, features))
            self._extracted.put(extracted)
        self._extracted.put([])

    def search_batches(self) -> None:
        """The second stage: sentences, delivered in the order in which the windows came."""
        while batch := self._extracted.get():
            found: dict[int, Caption | Exception] = {}
            wanted = [item for item in batch if isinstance(item.features, Features) and not item.stream.is_closed]
            for options in dict.fromkeys(item.stream.options for item in wanted):
                group = [item for item in wanted if item.stream.options == options]

                def select(items: Sequence[_Extracted], options: DecodingOptions = options) -> list[Caption]:
                    features = [item.features for item in items if isinstance(item.features, Features)]
                    selections = self.captioner.selector.select(features, options)
                    windows = [item.item for item in items if isinstance(item.item, Window)]
                    return [caption_of(*pair) for pair in zip(windows, selections, strict=True)]

                with self._timed("search"):
                    found |= zip(map(id, group), apart_on_error(select, group), strict=True)
            for extracted in batch:
                stream, item, caption = extracted.stream, extracted.item, found.get(id(extracted))
                fault = extracted.features if isinstance(extracted.features, Exception) else caption
                if stream.is_closed:
                    continue
                if isinstance(item, EndOfRecording):
                    stream.deliver(item)
                elif isinstance(fault, Exception):  # the end of its recording
                    self.windows.close(stream)
                    stream.deliver(EndOfRecording(fault))
                else:
                    self._metrics.audio.inc(item.end - item.start)
                    self._metrics.windows.inc()
                    stream.deliver(caption if isinstance(caption, Caption) else silence_of(item))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._metrics.model.labels(stage).inc(time.monotonic() - began)


def apart_on_error(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
) -> list[Result | Exception]:
    """What `run` gives for the items together; if that fails, for each alone, with its exception where it fails.

    So a window that the model cannot take spoils no other request.
    """
    if not items:
        return []
    try:
        return list(run(items))
    except Exception as error:
        logger.warning("a batch of %d windows failed", len(items), exc_info=True)
        return [error] if len(items) == 1 else [apart_on_error(run, [item])[0] for item in items]
