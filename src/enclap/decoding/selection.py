"""Which sentence is shown for a window: the one place for reranking, repeats, calibration and vaguer sentences.

The search proposes candidates; what happens to them afterwards is decided here, for every engine and every command.
Reranking by CLAP and likelihood is EnCLAP++'s (arXiv 2409.01201). How `both` weighs the two is ours: each score is
standardised over a clip's candidates, so that neither outweighs the other by its scale.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enclap.decoding.calibration import SEVERAL, Calibration, share_of_several, tells_several
from enclap.decoding.options import DecodingOptions
from enclap.types import Candidate, Features, FloatArray, embedding_of

WORD = re.compile(r"[a-z0-9'-]+")
EMBEDDED_SPANS = 3
"""Parts of mini's embedding: of the whole window and of its halves."""
SHORTEST_NAME = 4
"""Letters of a word that names something."""
LIGHT_WORDS = {"with", "along", "same", "time", "over", "sound", "background", "someone", "something", "person"}
LIGHT_WORDS |= {"play", "speak", "sing"}
"""What two sounds may share, without an s at the end."""


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


class SentenceSelector:
    """Asks a model for candidates and decides which of them is shown. calibration: None where the model has none."""

    def __init__(self, model: SentenceModel, calibration: Calibration | None) -> None:
        self._model = model
        self._calibration = calibration
        self._vague: FloatArray | None = None  # embeddings [N, E] of the calibration's vaguer sentences

    def select(self, features: Sequence[Features], options: DecodingOptions) -> list[Selection]:
        """One selection per clip, in order; a clip's does not depend on the clips beside it."""
        proposed = self._propose(features, options)
        calibration = self._calibration
        if calibration is None:
            return [Selection(found[0].text, found[0].score, tuple(found)) for found in proposed]
        selections = []
        for clip, candidates in zip(features, proposed, strict=True):
            text, score = candidates[0].text, candidates[0].score
            if is_doubtful(calibration, text, score):  # a vaguer sentence, the one nearest to the sound
                if self._vague is None:
                    self._vague = self._model.embed_text(calibration.vague)
                text = calibration.vague[int(np.argmax(self._vague @ embedding_of(clip)))]
            selections.append(Selection(text, score, tuple(candidates)))
        return selections

    def _propose(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per clip in the order that the options ask for; those that repeat a phrase come last.

        Their scores are probabilities where there is a calibration, else mean log-probabilities. Of a beam all are
        ordered, before `options.candidates` of them are kept.
        """
        calibration = self._calibration
        length, nears, width = 0, options.rerank != "likelihood", options.width
        if calibration is not None:
            length, nears = calibration.phrase, nears or bool(calibration.similarity or calibration.nearness)
            if calibration.beams is not None and options.beams is None:
                width = max(calibration.beams, options.candidates)
        whole_beam = (length or nears) and not options.sample
        searched = options.model_copy(update={"beams": width, "candidates": width}) if whole_beam else options
        proposed = []
        for clip, found in zip(features, self._model.generate(features, searched), strict=True):
            nearness = self._nearness(clip, found) if nears else np.zeros(len(found), np.float32)
            values = beam_values(found, nearness, calibration, clip)
            order = best_first(values, nearness, options.rerank)
            if calibration is not None:
                share = share_of_several([item.text for item in found])
                found = [
                    replace(item, score=calibration.probability(item.score, float(near), item.text, share))
                    for item, near in zip(found, nearness, strict=True)
                ]
            ordered = repeats_last([found[index] for index in order], 0 if options.sample else length)
            proposed.append(ordered if options.sample else ordered[: options.candidates])
        return proposed

    def _nearness(self, clip: Features, found: Sequence[Candidate]) -> FloatArray:
        """Cosines [N] of a clip's candidates with its sound.

        Clip by clip: in one batch, texts are padded to the longest, and a cosine would depend on other clips' texts.
        """
        return self._model.embed_text([candidate.text for candidate in found]) @ embedding_of(clip)


def is_doubtful(calibration: Calibration, text: str, probability: float) -> bool:
    """Whether a vaguer sentence takes the place of a caption that is right with this probability.

    It does for improbable captions of one sound, and for those that repeat a phrase.
    """
    repeats = bool(calibration.phrase) and repeats_phrase(text, calibration.phrase)
    is_single = len(text.split()) <= calibration.longest and not tells_several(text)
    improbable = probability < calibration.threshold and is_single
    return bool(calibration.vague) and (repeats or improbable)


def beam_values(
    candidates: Sequence[Candidate], nearness: FloatArray, calibration: Calibration | None, clip: Features
) -> NDArray[np.float64]:
    """What the candidates [N] of one clip are ordered by: mean log-probabilities, and what the calibration adds.

    nearness: float [N], cosine between the CLAP embeddings of clip and sentence.
    """
    values = np.array([item.score for item in candidates], dtype=np.float64)
    if calibration is None:
        return values
    has_company = calibration.halves is None or likeness_of_halves(clip) < calibration.halves
    company = calibration.company if has_company else 0.0
    told = [-calibration.echo if tells_twice(item.text) else company * tells_several(item.text) for item in candidates]
    return values + calibration.similarity * nearness.astype(np.float64) + told


def best_first(values: NDArray[np.float64], nearness: FloatArray, by: str = "likelihood") -> list[int]:
    """The places of one clip's candidates, best first; of equals the one that stands first.

    by: "likelihood", the values; "clap", the nearness; "both", the sum of the two, each standardised. Those alike by
    this are ordered by their values.
    """
    near = nearness.astype(np.float64)
    keys = {"likelihood": values, "clap": near, "both": standardised(values) + standardised(near)}[by]
    return [int(place) for place in np.lexsort((-values, -keys))]


def likeness_of_halves(clip: Features) -> float:
    """The cosine of a window's halves, for an embedding of the whole and of its halves; low where the sound changes."""
    _, first, second = np.split(embedding_of(clip), EMBEDDED_SPANS)
    return float(first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-9))


def tells_twice(text: str) -> bool:
    """Whether two parts of a sentence share a word that names something: "Birds sing while a bird chirps."."""
    parts = [
        {word.removesuffix("s") for word in WORD.findall(part) if len(word) >= SHORTEST_NAME} - LIGHT_WORDS
        for part in SEVERAL.split(text.lower())
    ]
    return any(first & second for first, second in itertools.combinations(parts, 2))


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [N] with mean 0 and standard deviation 1; zeros when all are equal."""
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)


def repeats_phrase(text: str, words: int) -> bool:
    """Whether a sentence holds the same run of `words` words twice; capitals and punctuation do not count.

    A rule on tokens misses "A dog barks, and then a dog barks.": "A" and " a" are different tokens.
    """
    spoken = WORD.findall(text.lower())
    runs = [tuple(spoken[start : start + words]) for start in range(len(spoken) - words + 1)]
    return len(set(runs)) < len(runs)


def repeats_last(candidates: Sequence[Candidate], words: int) -> list[Candidate]:
    """The candidates in their order, but those that repeat a phrase of `words` words after all others; 0: as given."""
    if not words:
        return list(candidates)
    return sorted(candidates, key=lambda candidate: repeats_phrase(candidate.text, words))
