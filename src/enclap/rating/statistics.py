"""What ratings say: means per system and scale, agreement of the raters, paired tests of systems."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enclap.errors import MissingExtra
from enclap.evaluation.captioning.bootstrap import intervals
from enclap.evaluation.captioning.scores import Array, group_clips, mean_scores
from enclap.rating.answers import Answer
from enclap.rating.scales import POINTS, SCALE_NAMES
from enclap.rating.study import Study

EXACT_CLIPS = 12
"""Up to which number of clips a test goes through all sign changes; with more it draws some."""
DRAWN_CHANGES = 10_000
CLOSE = 1e-12  # of sums in another order

Given = Mapping[tuple[int, int, str], Mapping[int, int]]
"""By rater, clip and scale: the values of the systems, by their numbers."""


@dataclass(frozen=True, slots=True)
class MeanRating:
    """The mean of all answers, and the middle 95 % of it over resampled sets of clips."""

    value: float
    low: float
    high: float
    answers: int


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two systems on one scale, on the clips on which some rater judged both.

    difference: the first's mean minus the second's, the mean over clips of the means over raters. probability: of a
    mean so far from zero if it were by chance which system is which on each clip. adjusted: the same after Holm's
    correction for all tests of a report.
    """

    scale: str
    first: str
    second: str
    clips: int
    difference: float
    low: float
    high: float
    probability: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class RatingResults:
    """All figures of a report.

    means: by system and scale, of those that have answers. agreement: Krippendorff's alpha by scale, or why there is
    none. progress: by rater, how many captions have all answers. captions: that each rater is shown.
    """

    means: Mapping[str, Mapping[str, MeanRating]]
    agreement: Mapping[str, float | str]
    tests: Sequence[PairedTest]
    progress: Mapping[int, int]
    captions: int


def rating_results(study: Study, answers: Sequence[Answer], resamples: int, seed: int) -> RatingResults:
    """The results of the answers; MissingExtra without the package krippendorff."""
    given: dict[tuple[int, int, str], dict[int, int]] = {}
    for answer in answers:
        values = given.setdefault((answer.rater, answer.clip, answer.scale), {})
        for name in study.clips[answer.clip].items[answer.item].systems:
            values[study.systems.index(name)] = answer.value
    captions = [(clip, item) for clip, rated in enumerate(study.clips) for item in range(len(rated.items))]
    counts: dict[tuple[int, int, int], int] = {}
    for answer in answers:
        key = answer.rater, answer.clip, answer.item
        counts[key] = counts.get(key, 0) + 1
    complete = [rater for (rater, _, _), count in counts.items() if count == len(SCALE_NAMES)]
    return RatingResults(
        means=mean_ratings(study, given, resamples, seed),
        agreement={scale: agreement([item for item in answers if item.scale == scale]) for scale in SCALE_NAMES},
        tests=paired_tests(study.systems, given, resamples, seed),
        progress={rater: complete.count(rater) for rater in range(1, len(study.codes) + 1)},
        captions=len(captions),
    )


def mean_ratings(study: Study, given: Given, resamples: int, seed: int) -> dict[str, dict[str, MeanRating]]:
    """The mean of each system on each scale; all have intervals over the same resamples of the clips."""
    found: dict[str, dict[str, MeanRating]] = {}
    for number, system in enumerate(study.systems):
        scores = []
        for scale in SCALE_NAMES:
            pairs = [
                (clip, values[number])
                for (_, clip, name), values in given.items()
                if name == scale and number in values
            ]
            if pairs:
                clips, values = zip(*pairs, strict=True)
                scores.append((len(pairs), group_clips(mean_scores(scale, values), clips, len(study.clips))))
        bounds = intervals([item for _, item in scores], resamples, seed)
        found[system] = {
            item.name: MeanRating(item.value, bounds[item.name].low, bounds[item.name].high, count)
            for count, item in scores
        }
    return found


def agreement(answers: Sequence[Answer]) -> float | str:
    """Krippendorff's alpha, ordinal, of answers on one scale; or in words why there is none (Krippendorff 2004)."""
    try:
        import krippendorff
    except ModuleNotFoundError as error:
        raise MissingExtra("Krippendorff's alpha", "eval") from error

    raters = sorted({answer.rater for answer in answers})
    captions = sorted({(answer.clip, answer.item) for answer in answers})
    table = np.full((len(raters), len(captions)), np.nan)
    rows, columns = ({key: number for number, key in enumerate(keys)} for keys in (raters, captions))
    for answer in answers:
        table[rows[answer.rater], columns[answer.clip, answer.item]] = answer.value
    shared = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    if shared.size == 0:
        return "no caption was rated by two people"
    if len(np.unique(shared[~np.isnan(shared)])) == 1:
        return "all answers are the same"
    return float(krippendorff.alpha(shared, value_domain=POINTS, level_of_measurement="ordinal"))


def paired_tests(systems: Sequence[str], given: Given, resamples: int, seed: int) -> list[PairedTest]:
    """Every pair of systems on every scale; none of pairs that nobody rated on the same clip."""
    found = []
    for scale, (first, second) in itertools.product(SCALE_NAMES, itertools.combinations(range(len(systems)), 2)):
        by_clip: dict[int, list[int]] = {}
        for (_, clip, name), values in given.items():
            if name == scale and first in values and second in values:
                by_clip.setdefault(clip, []).append(values[first] - values[second])
        if not by_clip:
            continue
        differences = np.array([np.mean(by_clip[clip]) for clip in sorted(by_clip)])
        bounds = intervals([mean_scores(scale, differences)], resamples, seed)[scale]
        probability = sign_change_test(differences, seed)
        names = systems[first], systems[second]
        mean = float(differences.mean())
        found.append(PairedTest(scale, *names, len(by_clip), mean, bounds.low, bounds.high, probability, probability))
    adjusted = holm([test.probability for test in found])
    return [
        PairedTest(
            test.scale,
            test.first,
            test.second,
            test.clips,
            test.difference,
            test.low,
            test.high,
            test.probability,
            value,
        )
        for test, value in zip(found, adjusted, strict=True)
    ]


def sign_change_test(differences: Array, seed: int) -> float:
    """The share of all ways to change signs that give a mean at least as far from zero (Fisher 1935), two-sided.

    differences: float64 [clips]. With more than twelve clips 10,000 ways are drawn, and this one is counted with them.
    """
    clips = len(differences)
    observed = abs(differences.sum()) - CLOSE
    if clips <= EXACT_CLIPS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=clips)))
        return float(np.mean(np.abs(signs @ differences) >= observed))
    generator = np.random.default_rng(seed)
    drawn = generator.choice((-1.0, 1.0), size=(DRAWN_CHANGES, clips)) @ differences
    return float((np.sum(np.abs(drawn) >= observed) + 1) / (DRAWN_CHANGES + 1))


def holm(probabilities: Sequence[float]) -> list[float]:
    """The probabilities with Holm's (1979) correction for their number, in their order."""
    adjusted = [0.0] * len(probabilities)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(probabilities)), key=lambda index: probabilities[index])):
        largest = max(largest, min(1.0, probabilities[number] * (len(probabilities) - place)))
        adjusted[number] = largest
    return adjusted
