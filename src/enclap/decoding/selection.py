"""Which sentence is shown for a window: the one place for reranking, repeats, calibration and vaguer sentences.

The search proposes candidates; what happens to them afterwards is decided here, for every engine and every command.
Reranking by CLAP and likelihood is EnCLAP++'s (arXiv 2409.01201). How `both` weighs the two is ours: each score is
standardised over a clip's candidates, so that neither outweighs the other by its scale.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enclap.decoding.calibration import Calibration
from enclap.decoding.options import DecodingOptions
from enclap.types import Candidate, Features, FloatArray, embedding_of

SEVERAL = re.compile(r",|\b(?:then|before|while|followed by|along with|at the same time|over the sound of)\b")
"""What joins two sounds in a sentence of mini's grammar."""
WORD = re.compile(r"[a-z0-9'-]+")


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
        for clip, found in zip(features, proposed, strict=True):
            candidates = tuple(replace(item, score=calibration.probability(item.score)) for item in found)
            text, score = candidates[0].text, candidates[0].score
            if is_doubtful(calibration, text, score):  # a vaguer sentence, the one nearest to the sound
                if self._vague is None:
                    self._vague = self._model.embed_text(calibration.vague)
                text = calibration.vague[int(np.argmax(self._vague @ embedding_of(clip)))]
            selections.append(Selection(text, score, candidates))
        return selections

    def _propose(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per clip in the order that the options ask for; those that repeat a phrase come last.

        Of a beam all are ordered, before `options.candidates` of them are kept.
        """
        calibration = self._calibration
        length, weight = (0, 0.0) if calibration is None else (calibration.phrase, calibration.similarity)
        whole_beam = (length or weight or options.rerank != "likelihood") and not options.sample
        searched = options.model_copy(update={"candidates": options.beams}) if whole_beam else options
        found = self._model.generate(features, searched)
        if weight or options.rerank != "likelihood":
            nearness = self._similarities(features, found)
            if weight:
                weighed = [weigh(*clip, weight) for clip in zip(found, nearness, strict=True)]
                found, nearness = [clip[0] for clip in weighed], [clip[1] for clip in weighed]
            if options.rerank != "likelihood":
                found = [rerank(*clip, options.rerank) for clip in zip(found, nearness, strict=True)]
        kept = None if options.sample else options.candidates
        return [repeats_last(candidates, 0 if options.sample else length)[:kept] for candidates in found]

    def _similarities(self, features: Sequence[Features], found: Sequence[Sequence[Candidate]]) -> list[FloatArray]:
        """Cosines [N] of each clip's candidates with its sound.

        Clip by clip: in one batch, texts are padded to the longest, and a cosine would depend on other clips' texts.
        """
        return [
            self._model.embed_text([candidate.text for candidate in candidates]) @ embedding_of(clip)
            for clip, candidates in zip(features, found, strict=True)
        ]


def is_doubtful(calibration: Calibration, text: str, probability: float) -> bool:
    """Whether a vaguer sentence takes the place of a caption that is right with this probability.

    It does for improbable captions of one sound, and for those that repeat a phrase.
    """
    repeats = bool(calibration.phrase) and repeats_phrase(text, calibration.phrase)
    is_single = len(text.split()) <= calibration.longest and not SEVERAL.search(text)
    improbable = probability < calibration.threshold and is_single
    return bool(calibration.vague) and (repeats or improbable)


def weigh(candidates: Sequence[Candidate], similarity: FloatArray, weight: float) -> tuple[list[Candidate], FloatArray]:
    """The candidates with `weight` times their similarity added to their scores, best first; and the similarities."""
    scored = [
        replace(item, score=item.score + weight * float(near))
        for item, near in zip(candidates, similarity, strict=True)
    ]
    order = np.argsort([-item.score for item in scored], kind="stable")
    return [scored[index] for index in order], similarity[order]


def rerank(candidates: Sequence[Candidate], similarity: FloatArray, by: str) -> list[Candidate]:
    """The candidates of one clip, best first; of equals the one that stood first stays first.

    similarity: float [N], cosine between the clip's CLAP embedding and each sentence's. by: "likelihood", the mean
    log-probability; "clap", the similarity; "both", the sum of the two, each standardised.
    """
    likelihood = np.array([candidate.score for candidate in candidates], dtype=np.float64)
    values = {
        "likelihood": likelihood,
        "clap": similarity.astype(np.float64),
        "both": standardised(likelihood) + standardised(similarity.astype(np.float64)),
    }[by]
    return [candidates[index] for index in np.argsort(-values, kind="stable")]


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
