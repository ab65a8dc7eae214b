"""From scores to probabilities: a curve fitted on recordings that nothing was trained on, and how reliable it is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from enclap.audio.window import DEFAULT_WINDOW, split_windows
from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.calibration import VERSION, Calibration
from enclap.decoding.options import DecodingOptions
from enclap.decoding.selection import is_doubtful, repeats_last, weigh
from enclap.engines.base import Engine
from enclap.evaluation.baselines import score_named
from enclap.evaluation.hearing import FAMILY_NAMED, SOUND_NAMED, Hearing, mentions_label
from enclap.evaluation.sound_pairs import LabelledClip
from enclap.evaluation.wording import PHRASE_WORDS
from enclap.types import Block, FloatArray, embedding_of

logger = logging.getLogger(__name__)

SIMILARITY = 5.0
"""What nearness to the sound counts beside the mean log-probability: on validation, 4 to 6 name most sounds that are
alone, and pairs are named alike from 2.5 to 6."""
THRESHOLDS = np.linspace(0.0, 0.6, 25)
LEAST_SLOPE = 1e-6
"""Of a calibration: where all captions are right, or none, scores say nothing, and the fit is zero but for rounding."""
LONGEST_OF_ONE_SOUND = 10
"""Words that a sentence about one sound has at most."""


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """A caption with its raw score, the labels that it should name, and the vaguer sentence that could replace it."""

    labels: tuple[str, ...]
    text: str
    score: float
    vaguer: str

    @property
    def is_correct(self) -> bool:
        """Whether all labels are named."""
        return all(mentions_label(self.text, label) for label in self.labels)


def vague_sentences() -> tuple[str, ...]:
    """A sentence for each family of sounds, in order of the families' names."""
    families = load_lexicon().families
    return tuple(finish(families[name].clause) for name in sorted(families))


def score_captions(engine: Engine, clips: Iterable[LabelledClip]) -> list[ScoredCaption]:
    """The best caption of each clip's first window, scored by likelihood and nearness to the sound.

    One clip at a time, so that a score does not depend on its neighbours even in the last bit.
    """
    vague, options = vague_sentences(), DecodingOptions(candidates=DecodingOptions().beams)
    embeddings, captions = engine.embed_text(vague), []
    for clip in clips:
        window = next(iter(split_windows([Block(clip.waveform.samples, 0)], clip.waveform.rate, DEFAULT_WINDOW)))
        [features] = engine.extract([window])
        found = engine.generate([features], options)[0]
        cosines = engine.embed_text([candidate.text for candidate in found]) @ embedding_of(features)
        best = repeats_last(weigh(found, cosines, SIMILARITY)[0], PHRASE_WORDS)[0]
        vaguer = vague[int(np.argmax(embeddings @ embedding_of(features)))]
        captions.append(ScoredCaption(clip.labels, best.text, best.score, vaguer))
    return captions


def fit_calibration(captions: Sequence[ScoredCaption]) -> Calibration:
    """The calibration that these captions ask for: the curve of their scores, and the best threshold.

    The threshold is that under which vaguer sentences make the captions of single sounds name the sound or its family
    most often, as a mean over labels.
    """
    scores = np.array([caption.score for caption in captions])
    slope, offset = fit_logistic(scores, np.array([float(caption.is_correct) for caption in captions]))
    vague = vague_sentences()
    curve = Calibration(
        version=VERSION,
        slope=max(slope, LEAST_SLOPE),
        offset=offset,
        threshold=0.0,
        longest=LONGEST_OF_ONE_SOUND,
        vague=vague,
        phrase=PHRASE_WORDS,
        similarity=SIMILARITY,
    )
    rates = []
    for threshold in THRESHOLDS:
        named, family = named_shares(captions, curve.model_copy(update={"threshold": float(threshold)}))
        logger.info("threshold %.3f: named %.3f, named or family named %.3f", threshold, named, family)
        rates.append(family)
    best = float(THRESHOLDS[int(np.argmax(rates))])
    return curve.model_copy(update={"threshold": best, "vague": vague if best > 0 else ()})


def named_shares(captions: Sequence[ScoredCaption], calibration: Calibration) -> tuple[float, float]:
    """Shares of the single sounds named, and named or their family named, as means over labels.

    The captions are those that the calibration lets through, with vaguer sentences in place of the doubtful ones.
    """
    single = [caption for caption in captions if len(caption.labels) == 1]
    texts = [
        caption.vaguer
        if is_doubtful(calibration, caption.text, calibration.probability(caption.score))
        else caption.text
        for caption in single
    ]
    scores = Hearing(over_labels=True).score(texts, [caption.labels for caption in single])
    return score_named(scores, SOUND_NAMED).value, score_named(scores, FAMILY_NAMED).value


def fit_logistic(scores: FloatArray, correct: FloatArray, steps: int = 50) -> tuple[float, float]:
    """Slope and offset of the logistic curve of `correct` (0 or 1) over `scores`, both [N], by Newton's method.

    The targets are Platt's, a little inside 0 and 1, which keeps the curve finite where the classes part.
    """
    positives = float(correct.sum())
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (len(correct) - positives + 2.0)
    targets = np.where(correct > 0.5, high, low)
    design = np.stack([scores, np.ones_like(scores)], axis=1).astype(np.float64)  # [N, 2]
    weights = np.zeros(2)
    for _ in range(steps):
        probability = 1.0 / (1.0 + np.exp(-(design @ weights)))
        gradient = design.T @ (targets - probability)
        curvature = (design * (probability * (1.0 - probability))[:, None]).T @ design + 1e-9 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, gradient)
    return float(weights[0]), float(weights[1])


@dataclass(frozen=True, slots=True)
class Bin:
    """Captions of similar probability: how many, their mean probability, the share that is correct."""

    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: FloatArray, correct: FloatArray, bins: int = 5) -> list[Bin]:
    """Captions in `bins` groups of equal size by probability, the least probable first."""
    order = np.argsort(probabilities, kind="stable")
    return [
        Bin(len(part), float(probabilities[part].mean()), float(correct[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean difference between confidence and accuracy, weighted by count (expected calibration error, 1706.04599)."""
    return sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / sum(part.count for part in bins)
