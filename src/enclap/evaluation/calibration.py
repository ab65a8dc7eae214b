"""From candidates to probabilities: a curve fitted on recordings that nothing was trained on, and how reliable it is.

Recordings of one source are alike, so a source with many of them would speak for all strangers: each clip counts by the
root of its sources' sizes. Sentences that tell several sounds have a likelihood of their own, and terms in the curve.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enclap.audio.window import first_window
from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.calibration import VERSION, Calibration, tells_several
from enclap.decoding.memory import SoundMemory
from enclap.decoding.options import DecodingOptions
from enclap.decoding.selection import SentenceSelector, is_doubtful
from enclap.engines.base import Engine
from enclap.evaluation.baselines import score_named
from enclap.evaluation.hearing import FAMILY_NAMED, SOUND_NAMED, Hearing, mentions_label
from enclap.evaluation.sound_pairs import LabelledClip
from enclap.evaluation.wording import PHRASE_WORDS

logger = logging.getLogger(__name__)

LEAST_SLOPE = 1e-6
"""Of a calibration: where all captions are right, or none, scores say nothing, and the fit is zero but for rounding."""
RIDGE = 1.0
"""What the square of a coefficient costs in the fit, for inputs of unit variance; see `fit_logistic`."""
LONGEST_OF_ONE_SOUND = 10
"""Words that a sentence about one sound has at most."""
ORDER = Calibration(
    version=VERSION,
    slope=LEAST_SLOPE,
    offset=0.0,
    threshold=0.0,
    longest=LONGEST_OF_ONE_SOUND,
    phrase=PHRASE_WORDS,
    similarity=4.0,
    company=0.3,
    echo=0.5,
    halves=0.6,
    guess=-0.9,
    beams=6,
)
"""How the beam is ordered, chosen on validation (docs/decisions/0014); the curve and the threshold are fitted."""
THRESHOLDS = np.round(np.linspace(0.0, 0.5, 21), 3)
"""A caption that is rather right than wrong stays."""


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """A caption, what its probability is made of, what it should name, and the vaguer sentence that could replace it.

    likelihood: the mean log-probability. nearness: cosine of sentence and sound in CLAP's space. share: of its beam
    that tells several sounds. sources: source repositories of the recordings.
    """

    labels: tuple[str, ...]
    text: str
    likelihood: float
    nearness: float
    vaguer: str
    share: float = 0.0
    sources: tuple[str, ...] = ()

    @property
    def is_correct(self) -> bool:
        """Whether all labels are named."""
        return all(mentions_label(self.text, label) for label in self.labels)

    def probability(self, calibration: Calibration) -> float:
        """How probable it is, by a calibration, that it is correct."""
        return calibration.probability(self.likelihood, self.nearness, self.text, self.share)


def vague_sentences() -> tuple[str, ...]:
    """A sentence for each family of sounds, in order of the families' names."""
    families = load_lexicon().families
    return tuple(finish(families[name].clause) for name in sorted(families))


def score_captions(engine: Engine, clips: Iterable[LabelledClip], memory: SoundMemory | None) -> list[ScoredCaption]:
    """The best caption of each clip's first window, before vaguer sentences take its place.

    One clip at a time, so that a score does not depend on its neighbours even in the last bit.
    """
    order = ORDER.model_copy(update={"vague": vague_sentences()})
    selector, options, captions = SentenceSelector(engine, order, memory), DecodingOptions(), []
    for clip in clips:
        [features] = engine.extract([first_window(clip.waveform)])
        [beam] = selector.rank([features], options)
        best, nearness, vaguer = beam.candidates[0], beam.nearness[0], selector.vaguer(features)
        captions.append(ScoredCaption(clip.labels, best.text, best.score, nearness, vaguer, beam.share, clip.sources))
    return captions


def fit_calibration(captions: Sequence[ScoredCaption]) -> Calibration:
    """The calibration that these captions ask for: the curve of their probabilities, and the best threshold.

    The threshold is that under which vaguer sentences make the captions of single sounds name the sound or its family
    most often, as a mean over labels; of several the highest: a vaguer sentence that costs nothing beats a wrong name.
    """
    curve, vague = fit_curve(captions), vague_sentences()
    rates = []
    for threshold in THRESHOLDS:
        named, family = named_shares(captions, curve.model_copy(update={"threshold": float(threshold)}))
        logger.info("threshold %.3f: named %.3f, named or family named %.3f", threshold, named, family)
        rates.append(family)
    best = float(THRESHOLDS[np.flatnonzero(np.array(rates) == max(rates))[-1]])
    return curve.model_copy(update={"threshold": best, "vague": vague if best > 0 else ()})


def fit_curve(captions: Sequence[ScoredCaption]) -> Calibration:
    """The calibration with the curve that these captions ask for, and a threshold of zero."""
    inputs = np.array([(item.likelihood, item.nearness, tells_several(item.text), item.share) for item in captions])
    correct = np.array([float(caption.is_correct) for caption in captions])
    slope, nearness, several, crowd, offset = fit_logistic(inputs, correct, source_weights(captions)).tolist()
    return ORDER.model_copy(
        update={
            "slope": max(slope, LEAST_SLOPE),
            "nearness": max(nearness, 0.0),
            "several": several,
            "crowd": crowd,
            "offset": offset,
            "vague": vague_sentences(),
        }
    )


def cross_fitted(captions: Sequence[ScoredCaption]) -> NDArray[np.float64]:
    """The probability [N] of each caption by curves that were fitted without its sources: as if they were strangers.

    A pair of two sources has the mean of its two. Needs at least three sources, so that something is left to fit.
    """
    sums, counts = np.zeros(len(captions)), np.zeros(len(captions))
    for source in sorted({source for caption in captions for source in caption.sources}):
        curve = fit_curve([caption for caption in captions if source not in caption.sources])
        for place, caption in enumerate(captions):
            if source in caption.sources:
                sums[place], counts[place] = sums[place] + caption.probability(curve), counts[place] + 1
    return sums / counts


def named_shares(captions: Sequence[ScoredCaption], calibration: Calibration) -> tuple[float, float]:
    """Shares of the single sounds named, and named or their family named, as means over labels.

    The captions are those that the calibration lets through, with vaguer sentences in place of the doubtful ones.
    """
    single = [caption for caption in captions if len(caption.labels) == 1]
    texts = [
        caption.vaguer if is_doubtful(calibration, caption.text, caption.probability(calibration)) else caption.text
        for caption in single
    ]
    scores = Hearing(over_labels=True).score(texts, [caption.labels for caption in single])
    return score_named(scores, SOUND_NAMED).value, score_named(scores, FAMILY_NAMED).value


def source_weights(captions: Sequence[ScoredCaption]) -> NDArray[np.float64]:
    """What each caption counts in the fit, float [N] with a mean of 1: less, the more captions its sources have.

    The weight is the mean over its sources of the inverse root of their number; without sources all count alike.
    Recordings alone and in pairs have that mean of 1 each: pairs are drawn of the commonest labels, so of few sources.
    """
    alone, weights = np.array([len(item.labels) == 1 for item in captions]), np.ones(len(captions))
    for places in filter(None, (np.flatnonzero(alone).tolist(), np.flatnonzero(~alone).tolist())):
        counts = Counter(source for place in places for source in captions[place].sources)
        roots = [[counts[source] ** -0.5 for source in captions[place].sources] or [1.0] for place in places]
        means = np.array([np.mean(row) for row in roots])
        weights[places] = means / means.mean()
    return weights


def fit_logistic(
    inputs: NDArray[np.float64], correct: NDArray[np.float64], weights: NDArray[np.float64], steps: int = 50
) -> NDArray[np.float64]:
    """Coefficients [F + 1], the offset last, of the logistic curve of `correct` [N], 0 or 1, over inputs [N, F].

    weights: float [N], what each row counts. By Newton's method. The targets are Platt's, a little inside 0 and 1, and
    a ridge on standardised inputs, which keep the curve finite where the classes part and steady where rows are few.
    """
    positives, negatives = float(weights @ correct), float(weights @ (1.0 - correct))
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0)
    targets = np.where(correct > 0.5, high, low)
    means, deviations = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-9)
    design = np.column_stack([(inputs - means) / deviations, np.ones(len(inputs))]).astype(np.float64)  # [N, F + 1]
    penalty = np.append(np.full(inputs.shape[1], RIDGE), 1e-9)
    found = np.zeros(len(penalty))
    for _ in range(steps):
        probability = 1.0 / (1.0 + np.exp(-(design @ found)))
        gradient = design.T @ (weights * (targets - probability)) - penalty * found
        spread = weights * probability * (1.0 - probability)
        curvature = (design * spread[:, None]).T @ design + np.diag(penalty)
        found = found + np.linalg.solve(curvature, gradient)
    slopes = found[:-1] / deviations
    return np.append(slopes, found[-1] - slopes @ means)


@dataclass(frozen=True, slots=True)
class Bin:
    """Captions of similar probability: how many, their mean probability, the share that is correct."""

    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: NDArray[np.float64], correct: NDArray[np.float64], bins: int = 5) -> list[Bin]:
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
