"""Several engines as one: the devices of a machine, each with the same model, share what is to be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from enclap.decoding.options import DecodingOptions
from enclap.engines.base import Engine
from enclap.engines.onnx.threads import CancelToken, run_parallel
from enclap.types import Candidate, Features, FloatArray, Window

Item = TypeVar("Item")
Result = TypeVar("Result")


class ParallelEngine:
    """Gives each of its engines an equal part of every call, in a thread of its own.

    engines: at least one, of one model folder. The results are those of a single engine, whose results do not depend on
    what else is in a call.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = list(engines)
        first = self._engines[0]
        self.name, self.code_rate, self.max_frames = first.name, first.code_rate, first.max_frames
        self.windows_together = sum(engine.windows_together for engine in self._engines)
        self.recordings_together = max(engine.recordings_together for engine in self._engines)

    @property
    def can_embed_text(self) -> bool:
        """Whether the model has CLAP's text tower."""
        return self._engines[0].can_embed_text

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        """One Features per window, in order. whole: see `Engine.extract`."""
        return self._divided(lambda engine, part: engine.extract(part, whole=whole), windows)

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first."""
        return self._divided(lambda engine, part: engine.generate(part, options), features)

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, by the first engine."""
        return self._engines[0].embed_text(texts)

    def _divided(self, run: Callable[[Engine, Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """The results in the items' order; the first failure is raised, once no engine is at work any more."""
        size = max(1, -(-len(items) // len(self._engines)))
        parts = [
            (engine, items[start : start + size])
            for engine, start in zip(self._engines, range(0, len(items), size), strict=False)
        ]

        def run_part(part: tuple[Engine, Sequence[Item]], _: CancelToken) -> list[Result]:
            return run(*part)

        return [result for results in run_parallel(run_part, parts, len(parts)) for result in results]
