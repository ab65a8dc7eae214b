"""FENSE and SPIDEr-FL: similarity in meaning, and SPIDEr, each with a penalty for captions that are no good English."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning.rows import Row
from enclap.evaluation.captioning.scores import Array, ClipScores, mean_scores
from enclap.evaluation.captioning.sentence_models import FluencyDetector, SentenceModel, find_sentence_model
from enclap.types import FloatArray

SBERT_SIM, FLUENCY_ERROR, FENSE, SPIDER_FL = "sbert_sim", "fluency_error", "fense", "spider_fl"
METRICS = (SPIDER_FL, SBERT_SIM, FLUENCY_ERROR, FENSE)
"""The metrics of this module, in the order of a table."""
ERROR_THRESHOLD, PENALTY = 0.9, 0.9
"""Above which probability a caption has an error, and which share of its score that costs (arXiv 2110.04684)."""
SENTENCE_MODEL = "sentence-transformers/paraphrase-TinyBERT-L6-v2"
"""That published scores were computed with."""

Embed = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True, slots=True)
class FenseModels:
    """Names of the two models, each a folder or a repository on the hub; None for one that is not there."""

    sentences: str | None = None
    fluency: str | None = None

    def sentence_model(self) -> SentenceModel:
        """The sentence model; EnvironmentFault when none was named, ModelError when it cannot be had."""
        if self.sentences is None:
            raise EnvironmentFault(f"needs a sentence model; give --sentence-model {SENTENCE_MODEL}, or its folder")
        return SentenceModel(find_sentence_model(self.sentences))

    def fluency_detector(self) -> FluencyDetector:
        """The detector of fluency errors; EnvironmentFault when none was named, ModelError when it cannot be had."""
        if self.fluency is None:
            made = "a folder that `enclap metrics convert` makes of FENSE's checkpoint"
            raise EnvironmentFault(f"needs FENSE's detector of fluency errors; give --fluency-model and {made}")
        return FluencyDetector(find_sentence_model(self.fluency))


def similarities(rows: Sequence[Row], embed: Embed) -> list[Array]:
    """For each row, float64 [captions]: the mean cosine between a caption and its references, as FENSE takes it."""
    texts = list(dict.fromkeys(text for row in rows for texts in (row.candidates, *row.references) for text in texts))
    embeddings = embed(texts).astype(np.float64)
    index = {text: number for number, text in enumerate(texts)}
    found = []
    for row in rows:
        pairs = zip(row.candidates, row.references, strict=True)
        means = [
            embeddings[[index[text] for text in others]].mean(axis=0) @ embeddings[index[own]] for own, others in pairs
        ]
        found.append(np.array(means, dtype=np.float64))
    return found


def error_probabilities(rows: Sequence[Row], probabilities: Embed) -> list[Array]:
    """For each row, float64 [captions]: how probable a fluency error is."""
    texts = list(dict.fromkeys(text for row in rows for text in row.candidates))
    known = dict(zip(texts, probabilities(texts).tolist(), strict=True))
    return [np.array([known[text] for text in row.candidates], dtype=np.float64) for row in rows]


def penalised(scores: Array, has_error: Array) -> Array:
    """The scores [captions], a tenth of them where has_error [captions] is 1 and not 0."""
    found: Array = scores * (1.0 - PENALTY * has_error)
    return found


def fense_scores(similarity: Array | None, errors: Array | None) -> list[ClipScores]:
    """What can be made of the similarities and probabilities of errors of a row's captions."""
    has_error = None if errors is None else (errors > ERROR_THRESHOLD).astype(np.float64)
    found = []
    if similarity is not None:
        found.append(mean_scores(SBERT_SIM, similarity))
    if has_error is not None:
        found.append(mean_scores(FLUENCY_ERROR, has_error))
    if similarity is not None and has_error is not None:
        found.append(mean_scores(FENSE, penalised(similarity, has_error)))
    return found


def spider_fl(spider: ClipScores, fluency_error: ClipScores) -> ClipScores:
    """SPIDEr with FENSE's penalty, of one caption for each clip; of a set it is the mean."""
    return mean_scores(SPIDER_FL, penalised(spider.clips, fluency_error.clips))
