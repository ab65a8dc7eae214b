"""Which sentence is shown for a window: the one place for memory, ranking, repeats, calibration, vaguer sentences.

The search proposes candidates, and the memory others; what happens to them afterwards is decided here, for every engine
and every command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from enclap.decoding.calibration import Calibration, share_of_several, tells_several
from enclap.decoding.memory import SoundMemory
from enclap.decoding.options import DecodingOptions
from enclap.decoding.ranking import beam_values, best_first, likeness_of_halves, nearness_to, repeats_phrase
from enclap.types import Candidate, Features, FloatArray, embedding_of


class SentenceModel(Protocol):
    """What selection asks of an engine; see `enclap.engines.base.Engine`."""

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per clip, best first."""
        ...

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """The sentence that is shown for one window, its score, and all candidates, best first."""

    text: str
    score: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class RankedBeam:
    """All sentences about one window, best first, those that repeat a phrase last, and what tells them apart.

    candidates: with mean log-probabilities as scores. nearness: of each to the sound; see `ranking.nearness_to`.
    share: of the searched candidates that tell several sounds.
    """

    candidates: tuple[Candidate, ...]
    nearness: tuple[float, ...]
    share: float


class SentenceSelector:
    """Asks a model for candidates and decides which of them is shown.

    calibration: None where the model has none. memory: of recordings, used where there is a calibration, which says
    what its sentences count.
    """

    def __init__(
        self, model: SentenceModel, calibration: Calibration | None, memory: SoundMemory | None = None
    ) -> None:
        self._model = model
        self._calibration = calibration
        self._memory = None if calibration is None else memory
        self._vague: FloatArray | None = None  # embeddings [N, E] of the calibration's vaguer sentences

    def select(self, features: Sequence[Features], options: DecodingOptions) -> list[Selection]:
        """One selection per clip, in order; a clip's does not depend on the clips beside it."""
        calibration, selections = self._calibration, []
        for clip, beam in zip(features, self.rank(features, options), strict=True):
            if calibration is None:
                kept = beam.candidates if options.sample else beam.candidates[: options.candidates]
                selections.append(Selection(kept[0].text, kept[0].score, kept))
                continue
            kept = with_probabilities(beam, calibration, options)
            text, score = kept[0].text, kept[0].score
            if is_doubtful(calibration, text, score):
                text = self.vaguer(clip)
            selections.append(Selection(text, score, kept))
        return selections

    def vaguer(self, clip: Features) -> str:
        """The one of the calibration's vaguer sentences that is nearest to the sound."""
        assert self._calibration is not None
        if self._vague is None:
            self._vague = self._model.embed_text(self._calibration.vague)
        return self._calibration.vague[int(np.argmax(self._vague @ embedding_of(self._recalled(clip))))]

    def rank(self, features: Sequence[Features], options: DecodingOptions) -> list[RankedBeam]:
        """All candidates per clip in the order that the options ask for.

        Of a beam all are ordered, and with them what the memory proposes, before any are left out.
        """
        calibration = self._calibration
        length, nears, width = 0, options.rerank != "likelihood", options.width
        if calibration is not None:
            length, nears = calibration.phrase, nears or bool(calibration.similarity or calibration.nearness)
            if calibration.beams is not None and options.beams is None:
                width = max(calibration.beams, options.candidates)
        if options.sample:
            length = 0
        elif length or nears:
            options = options.model_copy(update={"beams": width, "candidates": width})
        given = [self._recalled(clip) for clip in features]
        beams = []
        for clip, recalled, found in zip(features, given, self._model.generate(given, options), strict=True):
            share, near = share_of_several([item.text for item in found]), np.zeros(len(found), np.float32)
            if nears:
                found, near = self._with_nearness(clip, recalled, found, options.sample)
            order = best_first(beam_values(found, near, share, calibration), near, options.rerank)
            if length:
                repeats = [repeats_phrase(item.text, length) for item in found]
                order.sort(key=repeats.__getitem__)
            ranked = tuple(found[place] for place in order)
            beams.append(RankedBeam(ranked, tuple(float(near[place]) for place in order), share))
        return beams

    def _recalled(self, clip: Features) -> Features:
        """The features of a clip as everything but the memory reads them."""
        return clip if self._memory is None else replace(clip, embedding=self._memory.recall(embedding_of(clip)))

    def _with_nearness(
        self, clip: Features, known: Features, found: list[Candidate], sampled: bool
    ) -> tuple[list[Candidate], FloatArray]:
        """The candidates of a clip with what the memory adds to them, and how near each is to the sound.

        clip, known: its features, without and with what the memory says of them. Texts are embedded clip by clip: in
        one batch they are padded to the longest, and a cosine would depend on other clips' texts.
        """
        calibration, heard = self._calibration, embedding_of(clip)
        limit = None if calibration is None else calibration.halves
        changes = limit is not None and likeness_of_halves(heard) < limit
        recalled = embedding_of(known)
        near = nearness_to(recalled, [item.text for item in found], self._model.embed_text, changes)
        if self._memory is None or calibration is None or sampled:
            return found, near
        searched = {item.text for item in found}
        proposals = [item for item in self._memory.proposals(heard, recalled, changes) if item.text not in searched]
        added = [Candidate((), item.text, calibration.guess) for item in proposals]
        return [*found, *added], np.concatenate([near, np.array([item.nearness for item in proposals], np.float32)])


def with_probabilities(beam: RankedBeam, calibration: Calibration, options: DecodingOptions) -> tuple[Candidate, ...]:
    """The candidates that are asked for, best first, with probabilities as scores.

    Those behind the first one stand by their probability, unless the options ask for another order.
    """
    scored = [
        replace(item, score=calibration.probability(item.score, near, item.text, beam.share))
        for item, near in zip(beam.candidates, beam.nearness, strict=True)
    ]
    if options.sample:
        return tuple(scored)
    first, *others = scored[: options.candidates]
    if options.rerank == "likelihood":
        length = calibration.phrase
        others.sort(key=lambda item: (bool(length) and repeats_phrase(item.text, length), -item.score))
    return (first, *others)


def is_doubtful(calibration: Calibration, text: str, probability: float) -> bool:
    """Whether a vaguer sentence takes the place of a caption that is right with this probability.

    It does for improbable captions of one sound, and for those that repeat a phrase.
    """
    repeats = bool(calibration.phrase) and repeats_phrase(text, calibration.phrase)
    is_single = len(text.split()) <= calibration.longest and not tells_several(text)
    improbable = probability < calibration.threshold and is_single
    return bool(calibration.vague) and (repeats or improbable)
