"""A whole evaluation: every metric with its interval, baselines and people beside it, two systems compared."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from math import isnan
from pathlib import Path

from enclap.errors import UsageError
from enclap.evaluation.captioning import fense, language, suite
from enclap.evaluation.captioning.bootstrap import Difference, Interval, differences, intervals
from enclap.evaluation.captioning.fense import FenseModels
from enclap.evaluation.captioning.rows import COMPARED, SYSTEM, Row, comparison_rows, system_row
from enclap.evaluation.captioning.scores import ClipScores
from enclap.evaluation.captioning.sentence_models import find_sentence_model
from enclap.evaluation.captioning.suite import JAVA_SECONDS, SuiteOptions, SuiteResult, scoring
from enclap.evaluation.captioning.tables import CaptionSet
from enclap.files import sha256
from enclap.hub.layout import WEIGHTS
from enclap.text import printable
from enclap.version import __version__

CLAP_SIMILARITY = "clap_similarity"
OF_CAPTIONS = (*language.HEARING, *language.WORDING, language.UNGRAMMATICAL)
METRICS = (*suite.METRICS, *fense.METRICS, CLAP_SIMILARITY, *OF_CAPTIONS)
"""All metrics, in the order of a table."""
COMPARISON_CLIPS = 300
RESAMPLES = 1_000
LATIN_SHARE = 0.5
"""Of a caption's letters; with fewer it is not English."""
Similarity = Callable[[Sequence[Sequence[str]]], list[ClipScores]]
"""Gives, for each system's captions, how similar they are to the sounds."""
PACKAGES = ("numpy", "pycocoevalcap", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is computed, and how.

    tokenizer: "ptb" or "none". resamples: of the bootstrap. seed: of everything that is drawn. comparison_clips: that
    baselines and people are scored on at most; 0 for no such rows. corenlp and seconds: see `SuiteOptions`; link-parser
    has the seconds of one answer of Java. models: of FENSE and SPIDEr-FL.
    """

    tokenizer: str = "ptb"
    resamples: int = RESAMPLES
    seed: int = 0
    comparison_clips: int = COMPARISON_CLIPS
    corenlp: Path | None = None
    seconds: float | None = None
    models: FenseModels = field(default_factory=FenseModels)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out: scores by row and metric, their intervals, and the metrics that have none, with the reason.

    difference: the predictions minus what they are compared with, by metric; empty unless there is such a system.
    """

    captions: CaptionSet
    compared: Sequence[str] | None
    options: EvaluationOptions
    scores: Mapping[str, Mapping[str, ClipScores]]
    intervals: Mapping[str, Mapping[str, Interval]]
    difference: Mapping[str, Difference]
    not_computed: Mapping[str, str]
    warnings: Sequence[str]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> Mapping[str, ClipScores]:
        """The scores of the predictions, by metric; empty when none could be computed."""
        return self.scores.get(SYSTEM, {})


def evaluate(
    captions: CaptionSet,
    options: EvaluationOptions | None = None,
    compared: Sequence[str] | None = None,
    similarity: Similarity | None = None,
) -> Evaluation:
    """The evaluation of predictions.

    compared: another system's captions of the same clips, in the same order. similarity: where there are sounds.
    """
    options = options or EvaluationOptions()
    rows = [system_row(SYSTEM, captions.predictions, captions.references)]
    if compared is not None:
        rows.append(system_row(COMPARED, compared, captions.references))
    if options.comparison_clips:
        rows += comparison_rows(captions, options.comparison_clips, options.seed)
    suite_options = SuiteOptions(options.tokenizer == "ptb", options.corenlp, options.seconds)
    result = SuiteResult()
    with scoring(result, rows, captions.references, suite_options):
        add_language(result, rows, captions, options.seconds or JAVA_SECONDS)
        add_fense(result, rows, options.models)
    add_spider_fl(result)
    if similarity is None:
        result.not_computed[CLAP_SIMILARITY] = "needs the recordings; give --model and --data"
    else:
        add_similarity(result, [row for row in rows if row.name in (SYSTEM, COMPARED)], similarity)
    scores = _in_order(result)
    drawn = options.resamples, options.seed
    pair = [list(scores[name].values()) for name in (SYSTEM, COMPARED) if name in scores]
    return Evaluation(
        captions=captions,
        compared=compared,
        options=options,
        scores=scores,
        intervals={name: intervals(list(metrics.values()), *drawn) for name, metrics in scores.items()},
        difference=differences(pair[0], pair[1], *drawn) if len(pair) == 2 else {},
        not_computed=result.not_computed,
        warnings=caption_warnings(captions),
        versions=versions() | result.versions,
    )


def _in_order(result: SuiteResult) -> dict[str, dict[str, ClipScores]]:
    """The scores in the order of a table; what is about no clip of these is named among what was not computed."""
    undefined = [name for name, scores in result.scores[SYSTEM].items() if isnan(scores.value)]
    result.not_computed |= dict.fromkeys(undefined, "no clip has what it is about")
    return {
        name: {metric: metrics[metric] for metric in METRICS if metric in metrics and metric not in undefined}
        for name, metrics in result.scores.items()
    }


def add_language(result: SuiteResult, rows: Sequence[Row], captions: CaptionSet, seconds: float) -> None:
    """Add what can be said of captions without other captions; grammar, which takes long, of whole systems alone."""
    for row in rows:
        found = language.wording(row.candidates)
        if row.name in (SYSTEM, COMPARED):
            found += result.attempt(language.HEARING, partial(language.hearing, row.candidates, captions.labels)) or []
            grammar = partial(language.ungrammatical, row.candidates, seconds)
            found += filter(None, [result.attempt([language.UNGRAMMATICAL], grammar)])
        for scores in found:
            result.add(row, scores)


def add_fense(result: SuiteResult, rows: Sequence[Row], models: FenseModels) -> None:
    """Add FENSE of the rows and the parts that it is made of, as far as their models are there.

    Captions go into the models as they are, not tokenised.
    """
    errors = result.attempt(
        [fense.FLUENCY_ERROR, fense.FENSE, fense.SPIDER_FL],
        lambda: fense.error_probabilities(rows, models.fluency_detector().probabilities),
    )
    similarity = result.attempt(
        [fense.SBERT_SIM, fense.FENSE], lambda: fense.similarities(rows, models.sentence_model().embed)
    )
    for kind, name, found in (
        ("sentence model", models.sentences, similarity),
        ("fluency model", models.fluency, errors),
    ):
        if name is not None and found is not None:
            result.versions[kind] = f"{name} with SHA-256 {sha256(find_sentence_model(name) / WEIGHTS)}"
    nothing = [None] * len(rows)
    for row, similar, faulty in zip(rows, similarity or nothing, errors or nothing, strict=True):
        for scores in fense.fense_scores(similar, faulty):
            result.add(row, scores)


def add_similarity(result: SuiteResult, rows: Sequence[Row], similarity: Similarity) -> None:
    """Add the similarity of sounds and captions of the systems' rows."""
    found = result.attempt([CLAP_SIMILARITY], lambda: similarity([row.candidates for row in rows]))
    for row, scores in zip(rows, found or [], strict=False):
        result.add(row, scores)


def add_spider_fl(result: SuiteResult) -> None:
    """Add SPIDEr-FL of the rows that have SPIDEr and fluency errors."""
    for scores in result.scores.values():
        if suite.SPIDER in scores and fense.FLUENCY_ERROR in scores:
            scores[fense.SPIDER_FL] = fense.spider_fl(scores[suite.SPIDER], scores[fense.FLUENCY_ERROR])
    if suite.SPIDER in result.not_computed:
        result.not_computed.setdefault(fense.SPIDER_FL, result.not_computed[suite.SPIDER])


def check_metrics(names: Sequence[str]) -> None:
    """Raises UsageError for a name that no metric has."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UsageError(f"{printable(unknown[0])}: not a metric; choose from {', '.join(METRICS)}")


def caption_warnings(captions: CaptionSet) -> list[str]:
    """What a reader of the scores must know about these captions."""
    found = []
    foreign = [clip for clip, text in zip(captions.clips, captions.predictions, strict=True) if not _is_latin(text)]
    foreign += [
        clip for clip, texts in zip(captions.clips, captions.references, strict=True) if not all(map(_is_latin, texts))
    ]
    if foreign:
        clips = len(set(foreign))
        found.append(f"{clips} clips have captions in another script than Latin; every metric here is made for English")
    single = sum(len(texts) == 1 for texts in captions.references)
    if single:
        found.append(f"{single} clips have one reference; scores against few references are lower than published ones")
    return found


def _is_latin(text: str) -> bool:
    """Whether most letters of a text are Latin (below U+0250); True for a text without letters."""
    letters = [character for character in text if character.isalpha()]
    return sum(character < "\u0250" for character in letters) >= LATIN_SHARE * len(letters)


def versions() -> dict[str, str]:
    """The versions of the packages that scores depend on."""
    found = {"enclap": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
