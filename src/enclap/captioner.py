"""The whole route: a recording -> windows -> features -> candidate sentences -> captions."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from enclap.audio.read import Audio, Source, open_audio
from enclap.audio.source import ReadLimits, source_name
from enclap.audio.window import DEFAULT_WINDOW, SILENCE_TEXT, WHOLE, is_silent, split_windows
from enclap.decoding.calibration import Calibration
from enclap.decoding.options import DecodingOptions
from enclap.decoding.repetition import repetitions_last
from enclap.decoding.rerank import rank
from enclap.engines import load_engine
from enclap.engines.base import Engine
from enclap.errors import AudioRefused, InputError, ModelError, UsageError
from enclap.hub.resolve import DEFAULT_MODEL, find_model
from enclap.prefetch import Prefetcher
from enclap.text import printable
from enclap.types import Block, Candidate, Caption, CaptionResult, Features, FloatArray, Window, embedding_of

logger = logging.getLogger("enclap")

SHORTEST_WINDOW = 0.1  # seconds
BATCHES_AHEAD = 1  # turned into features before they are asked for; as many windows are decoded
PATIENCE = 1.0  # seconds to wait, when a stream ends early, for a read that may never return


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
class _Heard:
    """A window as it was read, and what its recording says about its length."""

    window: Window
    declared: float | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A window whose features are there; None for silence, which is not shown to the model."""

    start: float
    end: float
    declared: float | None
    features: Features | None


@dataclass(frozen=True, slots=True)
class _End:
    """The end of one input: its path when its windows came before this, else what is already known of it."""

    path: str | None
    known: CaptionResult | Failure | None = None

    def result(self, captions: Sequence[Caption]) -> CaptionResult | Failure:
        return self.known or CaptionResult(self.path, captions[-1].end, tuple(captions))


class Captioner:
    """Describes recordings with one loaded model. Not to be used by two threads at once.

    While it works, `engine.extract` and `engine.generate` run in two threads, each on a batch of its own.
    """

    def __init__(self, engine: Engine, model: str = "model", confidence: Calibration | None = None) -> None:
        self.engine = engine
        self.model = model
        self.confidence = confidence

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

        engine: auto, onnx or torch. device: auto, cpu, cuda or mps. threads: of the processor, None for all.
        Raises ModelError, MissingExtra or EnvironmentFault.
        """
        folder = find_model(name_or_folder)
        loaded = load_engine(folder, engine=engine, device=device, precision=precision, threads=threads)
        return cls(loaded, os.fspath(name_or_folder), Calibration.read(folder))

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

        Windows of neighbouring sources share batches; a result or failure that is passed in comes out in its place.
        Two threads run ahead: one takes the sources and decodes, one makes the features of the next batch while the
        sentences of this one are searched. Close the generator, or walk to its end, to end them.
        """
        self.check_window(window)
        options = options or DecodingOptions()
        self.check_rerank(options)
        together = self.engine.windows_together
        events = Prefetcher(self._read(sources, window, limits or ReadLimits()), together)
        batches = Prefetcher(self._extracted(_batches(events, together)), BATCHES_AHEAD)
        try:
            yield from self._written(batches, options, on_progress)
        finally:
            for stage in (events, batches):
                stage.stop()
            batches.join()
            events.join(PATIENCE)

    def check_window(self, window: float) -> None:
        """Raises UsageError unless `window` is 0 or within what the model can read at once."""
        if window == WHOLE or SHORTEST_WINDOW <= window <= self.longest_window:
            return
        longest = math.floor(self.longest_window * 10) / 10
        choice = f"choose {SHORTEST_WINDOW} to {longest}, or 0 for one window per recording"
        raise UsageError(f"window of {window:g} s: {self.model} reads at most {longest} s at once; {choice}")

    def check_rerank(self, options: DecodingOptions) -> None:
        """Raises ModelError when the order of the candidates needs a text tower that the model has not."""
        if options.rank != "likelihood" and not self.engine.can_embed_text:
            remedy = "rank by likelihood, or use a model that has one"
            raise ModelError(f"{self.model}: ranking by {options.rank} needs CLAP's text tower, not here; {remedy}")

    def _written(
        self,
        batches: Iterable[list[_Ready | _End]],
        options: DecodingOptions,
        on_progress: Callable[[Progress], None] | None,
    ) -> Iterator[CaptionResult | Failure]:
        """The results of batches whose features are there."""
        captions: list[Caption] = []
        done = 0
        for number, batch in enumerate(batches):
            if number == 0 and on_progress is not None:
                on_progress(Progress(0))  # the first sentences may take long: something is heard already
            windows = [event for event in batch if isinstance(event, _Ready)]
            sentences = iter(self._describe(windows, options))
            for event in batch:
                if isinstance(event, _Ready):
                    captions.append(next(sentences))
                else:
                    yield event.result(captions)
                    captions, done = [], done + 1
            if on_progress is not None:
                on_progress(_progress(done, captions, batch))

    def _describe(self, windows: Sequence[_Ready], options: DecodingOptions) -> list[Caption]:
        """One caption per window."""
        heard = [window.features for window in windows if window.features is not None]
        found = iter(self._sentences(heard, options) if heard else [])
        return [
            _silence(window) if window.features is None else self._caption(window, window.features, next(found))
            for window in windows
        ]

    def _sentences(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per clip, best first in the order that the options ask for; those that repeat a phrase last."""
        phrase = 0 if self.confidence is None else self.confidence.phrase
        found = self._generated(features, options, phrase)
        if options.rank == "likelihood":
            return found
        texts = sorted({candidate.text for candidates in found for candidate in candidates})
        vectors = dict(zip(texts, self.engine.embed_text(texts), strict=True))
        ordered = []
        for clip, candidates in zip(features, found, strict=True):
            rows = np.stack([vectors[candidate.text] for candidate in candidates])  # [N, E]
            ordered.append(repetitions_last(rank(candidates, rows @ embedding_of(clip), options.rank), phrase))
        return ordered

    def _generated(self, features: Sequence[Features], options: DecodingOptions, phrase: int) -> list[list[Candidate]]:
        """As many candidates as the options ask for, of the whole beam where some may repeat a phrase."""
        if not phrase or options.sample:
            return self.engine.generate(features, options)
        beam = self.engine.generate(features, options.model_copy(update={"candidates": options.beams}))
        return [repetitions_last(candidates, phrase)[: options.candidates] for candidates in beam]

    def _caption(self, window: _Ready, features: Features, candidates: Sequence[Candidate]) -> Caption:
        """The best candidate, or a vaguer sentence where the model's calibration says that it is probably wrong."""
        trust = self.confidence
        if trust is None:
            best = candidates[0]
            return Caption(window.start, window.end, best.text, best.score, candidates=tuple(candidates))
        trusted = tuple(replace(item, score=trust.probability(item.score)) for item in candidates)
        text, score = trusted[0].text, trusted[0].score
        if trust.is_doubtful(text, score):
            text = trust.vaguer(embedding_of(features), self._vague_embeddings)
        return Caption(window.start, window.end, text, score, candidates=trusted)

    @cached_property
    def _vague_embeddings(self) -> FloatArray:
        assert self.confidence is not None
        return self.engine.embed_text(self.confidence.vague)

    def _extracted(self, batches: Iterable[list[_Heard | _End]]) -> Generator[list[_Ready | _End], None, None]:
        """The batches with features in the place of audio."""
        for batch in batches:
            windows = [event.window for event in batch if isinstance(event, _Heard)]
            silent = [is_silent(window.waveform.samples) for window in windows]
            heard = [window for window, quiet in zip(windows, silent, strict=True) if not quiet]
            found = iter(self.engine.extract(heard) if heard else [])
            features = iter([None if quiet else next(found) for quiet in silent])
            yield [_ready(event, next(features)) if isinstance(event, _Heard) else event for event in batch]

    def _read(
        self, sources: Iterable[Source | CaptionResult | Failure], window: float, limits: ReadLimits
    ) -> Generator[_Heard | _End, None, None]:
        """The windows of each source, then its end."""
        for source in sources:
            if isinstance(source, CaptionResult | Failure):
                yield _End(source.path, source)
                continue
            name = source_name(source)
            try:
                with open_audio(source, limits) as audio:
                    blocks = _bounded(audio, limits.window_seconds) if window == WHOLE else audio.blocks
                    for cut in split_windows(blocks, audio.rate, window):
                        self._warn_if_cut(audio, cut)
                        yield _Heard(cut, audio.declared_seconds)
            except InputError as error:
                yield _End(name, Failure(name, error))
            else:
                yield _End(name)

    def _warn_if_cut(self, audio: Audio, window: Window) -> None:
        if window.waveform.seconds > self.longest_window:
            message = "%s: %.1f s in one window; the model reads the first %.1f s closely, use shorter windows"
            name = printable(audio.name or "audio")
            logger.warning(message, name, window.waveform.seconds, self.longest_window)


def _batches(events: Iterable[_Heard | _End], together: int) -> Iterator[list[_Heard | _End]]:
    """Runs of events that hold a batch of windows; the end of a recording goes with its last window.

    A batch is full when it holds `together` windows or the seconds of so many default ones.
    """
    batch: list[_Heard | _End] = []
    windows, seconds = 0, 0.0
    for event in events:
        if isinstance(event, _Heard):
            if windows >= together or seconds >= together * DEFAULT_WINDOW:
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


def _ready(heard: _Heard, features: Features | None) -> _Ready:
    return _Ready(heard.window.start, heard.window.end, heard.declared, features)


def _progress(done: int, captions: Sequence[Caption], batch: Sequence[_Ready | _End]) -> Progress:
    last = batch[-1]
    if captions and isinstance(last, _Ready):
        return Progress(done, captions[-1].end, last.declared)
    return Progress(done)


def _silence(window: _Ready) -> Caption:
    return Caption(window.start, window.end, SILENCE_TEXT, None, silence=True)
