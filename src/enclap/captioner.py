"""The whole route: a recording -> windows -> features -> candidate sentences -> captions.

`caption_plainly` is the route in one screen, slow and obvious; `Captioner.stream` is the same route with batches and
threads that prefetch, and a test holds it to the plain one.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from enclap.audio.read import Audio, Source, open_audio
from enclap.audio.source import ReadLimits, source_name
from enclap.audio.window import DEFAULT_WINDOW, SILENCE_TEXT, WHOLE, is_silent, split_windows
from enclap.decoding.calibration import Calibration
from enclap.decoding.memory import SoundMemory
from enclap.decoding.options import DecodingOptions
from enclap.decoding.selection import Selection, SentenceSelector
from enclap.engines import load_engine
from enclap.engines.base import Engine
from enclap.engines.devices import device_names
from enclap.errors import AudioNotFinite, AudioRefused, InputError, ModelError, UsageError
from enclap.hub.resolve import DEFAULT_MODEL, find_model
from enclap.prefetch import CLOSING_SECONDS, Prefetcher, in_turn
from enclap.text import printable
from enclap.types import Block, Caption, CaptionResult, Features, Window

logger = logging.getLogger("enclap")

SHORTEST_WINDOW = 0.1  # seconds
LONG_WINDOW = "%s: %.1f s in one window; the model reads the first %.1f s closely, use shorter windows"
PREFETCHED_BATCHES = 1  # turned into features ahead of the search; as many windows are decoded


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be captioned, and why; path is what the caller named it."""

    path: str | None
    error: InputError


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream has come: inputs done, seconds captioned of the next, its declared length or None."""

    done: int
    seconds: float = 0.0
    declared: float | None = None


@dataclass(frozen=True, slots=True)
class _WindowRead:
    """A window of the recording `name`, and how long the recording says that it is."""

    name: str | None
    window: Window
    declared: float | None
    silent: bool


@dataclass(frozen=True, slots=True)
class _WindowReady:
    """A window without its audio.

    features: None for silence, which the model does not get, and for a window that cannot be captioned; fault
    says why.
    """

    start: float
    end: float
    declared: float | None
    features: Features | None
    fault: InputError | None = None


@dataclass(frozen=True, slots=True)
class _EndOfInput:
    """The end of one input: its path when its windows came before this, else what is already known of it."""

    path: str | None
    known: CaptionResult | Failure | None = None

    def result(self, captions: Sequence[Caption], fault: InputError | None) -> CaptionResult | Failure:
        """What is given out for the input, of which these captions were made and this fault was found."""
        if fault is not None:
            return Failure(self.path, fault)
        return self.known or CaptionResult(self.path, captions[-1].end, tuple(captions))


def caption_plainly(
    captioner: Captioner, source: Source, options: DecodingOptions | None = None, window: float = DEFAULT_WINDOW
) -> CaptionResult:
    """The captions of one source, by the plainest code there is: what `Captioner.caption` must give too.

    Raises InputError when the source cannot be captioned.
    """
    captions = []
    with open_audio(source) as audio:
        for piece in split_windows(audio.blocks, audio.rate, window):
            if is_silent(piece.waveform.samples):
                captions.append(silence_of(piece))
                continue
            features = captioner.engine.extract([piece])
            check_finite(features[0], piece, audio.name)
            [selection] = captioner.selector.select(features, options or DecodingOptions())
            captions.append(caption_of(piece, selection))
    return CaptionResult(source_name(source), captions[-1].end, tuple(captions))


class Captioner:
    """Describes recordings with one loaded model; several threads may use it at once, batch after batch.

    engine: what runs the model. model: its name, for messages and output. calibration: None where the model has none.
    folder: of the model, None for an engine that has none. memory: of recordings, None where the model has none.
    """

    def __init__(
        self,
        engine: Engine,
        model: str = "model",
        calibration: Calibration | None = None,
        folder: Path | None = None,
        memory: SoundMemory | None = None,
    ) -> None:
        self.engine = engine
        self.model = model
        self.calibration = calibration
        self.folder = folder
        self.memory = memory
        self.selector = SentenceSelector(engine, calibration, memory)
        # Engines are not made for two calls of one kind at once: threads hold these in turns, batch by batch.
        self.extracting = threading.Lock()
        self.searching = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str] = DEFAULT_MODEL,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
    ) -> Captioner:
        """A captioner over a bundled model, a model folder, or a repository on the hub.

        engine: auto, onnx or torch. device: auto, cpu, cuda, cuda:1 or mps; several, as cuda:0,1, share each batch.
        threads: of the processor, None for all. Raises ModelError, MissingExtra, EnvironmentFault or UsageError.
        """
        device_names(device)  # before a model is downloaded
        folder = find_model(name_or_folder)
        loaded = load_engine(folder, engine=engine, device=device, precision=precision, threads=threads)
        return cls(loaded, os.fspath(name_or_folder), Calibration.read(folder), folder, SoundMemory.read(folder))

    @property
    def longest_window(self) -> float:
        """Seconds of audio that fit into the model's positions."""
        return self.engine.max_frames / self.engine.code_rate

    @overload
    def caption(
        self, source: Source, options: DecodingOptions | None = None, window: float = DEFAULT_WINDOW
    ) -> CaptionResult: ...

    @overload
    def caption(
        self, source: list[Source], options: DecodingOptions | None = None, window: float = DEFAULT_WINDOW
    ) -> list[CaptionResult]: ...

    def caption(
        self,
        source: Source | list[Source],
        options: DecodingOptions | None = None,
        window: float = DEFAULT_WINDOW,
    ) -> CaptionResult | list[CaptionResult]:
        """The captions of one source, or of each in a list, computed in batches.

        source: a path, "-" for standard input, bytes, a binary file, or (array, rate); see `open_audio`.
        window: seconds that get one caption each, 0 for the whole recording.
        Raises the InputError of the first source that fails; `stream` goes on past failures instead.
        """
        results = []
        for result in self.stream(source if isinstance(source, list) else [source], options, window):
            if isinstance(result, Failure):
                raise result.error
            results.append(result)
        return results if isinstance(source, list) else results[0]

    def stream(
        self,
        sources: Iterable[Source | CaptionResult | Failure],
        options: DecodingOptions | None = None,
        window: float = DEFAULT_WINDOW,
        limits: ReadLimits | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Generator[CaptionResult | Failure, None, None]:
        """One result or failure per source, in order, each as soon as its last window is captioned.

        Windows of neighbouring sources share batches; a result or failure that is passed in comes out at its position.
        Two threads prefetch: one takes the sources and decodes, one makes the features of the next batch while the
        sentences of this one are searched. Where the engine leaves the processor idle, several files are decoded at a
        time, each in a thread of its own. Close the generator, or walk to its end, to end them.
        """
        self.check_window(window)
        options = options or DecodingOptions()
        self.check_rerank(options)
        batch_size = self.engine.windows_together
        events = Prefetcher(self._read(sources, window, limits or ReadLimits()), batch_size)
        batches = Prefetcher(self._extract(_batches(events, batch_size)), PREFETCHED_BATCHES)
        try:
            yield from self._results(batches, options, on_progress)
        finally:
            for stage in (events, batches):
                stage.stop()
            batches.join()
            events.join(CLOSING_SECONDS)

    def check_window(self, window: float) -> None:
        """Raises UsageError unless `window` is 0 or within what the model can read at once."""
        if window == WHOLE or SHORTEST_WINDOW <= window <= self.longest_window:
            return
        longest = math.floor(self.longest_window * 10) / 10
        choice = f"choose {SHORTEST_WINDOW} to {longest}, or 0 for one window per recording"
        raise UsageError(f"window of {window:g} s: {self.model} reads at most {longest} s at once; {choice}")

    def check_rerank(self, options: DecodingOptions) -> None:
        """Raises ModelError when the order of the candidates needs a text tower that the model has not."""
        if options.rerank != "likelihood" and not self.engine.can_embed_text:
            remedy = "rerank by likelihood, or use a model that has one"
            raise ModelError(f"{self.model}: reranking by {options.rerank} needs CLAP's text tower, not here; {remedy}")

    def _results(
        self,
        batches: Iterable[list[_WindowReady | _EndOfInput]],
        options: DecodingOptions,
        on_progress: Callable[[Progress], None] | None,
    ) -> Iterator[CaptionResult | Failure]:
        """The results of batches whose features are there."""
        captions: list[Caption] = []
        fault: InputError | None = None
        done = 0
        for number, batch in enumerate(batches):
            if number == 0 and on_progress is not None:
                on_progress(Progress(0))  # the first sentences may take long: some audio is read already
            windows = [event for event in batch if isinstance(event, _WindowReady)]
            features = [window.features for window in windows if window.features is not None]
            with self.searching:
                selections = iter(self.selector.select(features, options) if features else [])
            for event in batch:
                if isinstance(event, _EndOfInput):
                    yield event.result(captions, fault)
                    captions, fault, done = [], None, done + 1
                elif event.features is None:
                    captions.append(silence_of(event))
                    fault = fault or event.fault
                else:
                    captions.append(caption_of(event, next(selections)))
            if on_progress is not None:
                last = batch[-1]
                if isinstance(last, _WindowReady) and captions:
                    on_progress(Progress(done, captions[-1].end, last.declared))
                else:
                    on_progress(Progress(done))

    def _extract(
        self, batches: Iterable[list[_WindowRead | _EndOfInput]]
    ) -> Generator[list[_WindowReady | _EndOfInput], None, None]:
        """The batches with features in the place of audio."""
        for batch in batches:
            audible = [event.window for event in batch if isinstance(event, _WindowRead) and not event.silent]
            with self.extracting:
                features = iter(self.engine.extract(audible) if audible else [])
            ready: list[_WindowReady | _EndOfInput] = []
            for event in batch:
                if isinstance(event, _EndOfInput):
                    ready.append(event)
                    continue
                window, fault = event.window, None
                item = None if event.silent else next(features)
                try:
                    if item is not None:
                        check_finite(item, window, event.name)
                except InputError as error:
                    item, fault = None, error
                ready.append(_WindowReady(window.start, window.end, event.declared, item, fault))
            yield ready

    def _read(
        self, sources: Iterable[Source | CaptionResult | Failure], window: float, limits: ReadLimits
    ) -> Generator[_WindowRead | _EndOfInput, None, None]:
        """The windows of each source, then its end; as many files are decoded at a time as the engine can use."""
        together = self.engine.recordings_together

        def begun() -> Iterator[Iterator[_WindowRead | _EndOfInput]]:
            for source in sources:
                events = self._read_one(source, window, limits)
                is_apart = isinstance(source, str | os.PathLike | bytes) and source != "-"  # two may be one open file
                ahead = max(1, self.engine.windows_together // together)
                yield Prefetcher(events, ahead) if together > 1 and is_apart else events

        return in_turn(begun(), together)

    def _read_one(
        self, source: Source | CaptionResult | Failure, window: float, limits: ReadLimits
    ) -> Generator[_WindowRead | _EndOfInput, None, None]:
        if isinstance(source, CaptionResult | Failure):
            yield _EndOfInput(source.path, source)
            return
        name = source_name(source)
        try:
            with closing(self.windows(source, window, limits)) as pieces:
                for piece, declared in pieces:
                    yield _WindowRead(name, piece, declared, is_silent(piece.waveform.samples))
        except InputError as error:
            yield _EndOfInput(name, Failure(name, error))
        else:
            yield _EndOfInput(name)

    def windows(
        self, source: Source, window: float = DEFAULT_WINDOW, limits: ReadLimits | None = None, *, warn: bool = True
    ) -> Generator[tuple[Window, float | None], None, None]:
        """As `read_windows`. warn: log a warning for a window that is longer than the model's positions."""
        with closing(read_windows(source, window, limits)) as pieces:
            for piece, declared in pieces:
                if warn and piece.waveform.seconds > self.longest_window:
                    shown = printable(source_name(source) or "audio")
                    logger.warning(LONG_WINDOW, shown, piece.waveform.seconds, self.longest_window)
                yield piece, declared


def read_windows(
    source: Source, window: float = DEFAULT_WINDOW, limits: ReadLimits | None = None
) -> Generator[tuple[Window, float | None], None, None]:
    """The windows of one source, in order, each with the seconds that its container declares, or None.

    Raises the InputError of a source that cannot be captioned, when the reading comes to it.
    """
    limits = limits or ReadLimits()
    with open_audio(source, limits) as audio:
        blocks = _bounded(audio, limits.window_seconds) if window == WHOLE else audio.blocks
        for piece in split_windows(blocks, audio.rate, window):
            yield piece, audio.declared_seconds


def check_finite(features: Features, window: Window, name: str | None) -> None:
    """Raises AudioNotFinite when an encoder gave no finite numbers for the window of the recording `name`."""
    arrays = (features.embedding, features.log_mel)
    if not all(array is None or bool(np.isfinite(array).all()) for array in arrays):
        span = f"{window.start:.1f} to {window.end:.1f} s"
        raise AudioNotFinite(f"{printable(name or 'audio')}: the encoders find no finite numbers for {span}; left out")


def _batches(events: Iterable[_WindowRead | _EndOfInput], size: int) -> Iterator[list[_WindowRead | _EndOfInput]]:
    """Runs of events that hold a batch of windows; the end of a recording goes with its last window.

    A batch is full when it holds `size` windows or the seconds of so many default ones.
    """
    batch: list[_WindowRead | _EndOfInput] = []
    windows, seconds = 0, 0.0
    for event in events:
        if isinstance(event, _WindowRead):
            if windows >= size or seconds >= size * DEFAULT_WINDOW:
                yield batch
                batch, windows, seconds = [], 0, 0.0
            windows, seconds = windows + 1, seconds + event.window.waveform.seconds
        batch.append(event)
    if batch:
        yield batch


def _bounded(audio: Audio, seconds: float) -> Iterator[Block]:
    """The blocks of a recording that is held in memory whole, gaps included; AudioRefused when it is too long."""
    start: int | None = None
    for block in audio.blocks:
        start = block.start if start is None else start
        if block.end - start > seconds * audio.rate:
            name = printable(audio.name or "audio")
            raise AudioRefused(f"{name}: longer than {seconds:.0f} s, too long for one window; use --window 10")
        yield block


def caption_of(window: Window | _WindowReady, selection: Selection) -> Caption:
    """The caption of a window that the model captioned."""
    return Caption(window.start, window.end, selection.text, selection.score, candidates=selection.candidates)


def silence_of(window: Window | _WindowReady) -> Caption:
    """The caption of a silent window."""
    return Caption(window.start, window.end, SILENCE_TEXT, None, silence=True)
