"""BLEU, ROUGE-L and CIDEr-D of tokenised captions, computed by pycocoevalcap.

Its scorers keep the counts of every caption; here they are given one clip at a time, so that a set of any size fits
into memory.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from enclap.errors import EnvironmentFault, MissingExtra
from enclap.evaluation.captioning.scores import Array, ClipScores, mean_scores

ORDER = 4  # longest n-gram
TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap's guards against division by zero, bleu_scorer.py

References = Sequence[Sequence[str]]
Frequencies = defaultdict[tuple[str, ...], float]


def require_pycocoevalcap() -> bool:
    """True; MissingExtra unless pycocoevalcap is installed."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise MissingExtra("comparing captions with references", "eval")
    return True


def bleu(candidates: Sequence[str], references: References) -> list[ClipScores]:
    """BLEU-1 to BLEU-4 with the closest reference length; of a set they are computed from its summed counts."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=ORDER)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
        scorer.crefs.clear()  # not needed once the candidate is counted
    _, clips = scorer.compute_score(option="closest")
    statistics = np.array([bleu_counts(item) for item in scorer.ctest], dtype=np.float64)
    totals = statistics.sum(axis=0)
    whole = BleuScorer(n=ORDER)
    whole.ctest = [
        {
            "correct": totals[:ORDER].tolist(),
            "guess": totals[ORDER : 2 * ORDER].tolist(),
            "testlen": totals[-2],
            "reflen": [totals[-1]],
        }
    ]
    values, _ = whole.compute_score(option="closest")
    return [
        ClipScores(f"bleu_{n}", float(values[n - 1]), np.array(clips[n - 1]), statistics, bleu_of_sums(n))
        for n in range(1, ORDER + 1)
    ]


def bleu_counts(item: dict[str, Any]) -> list[float]:
    """Matches and n-grams of each order, then length of the candidate and of the closest reference."""
    closest = min((abs(length - item["testlen"]), length) for length in item["reflen"])[1]
    return [*item["correct"], *item["guess"], item["testlen"], closest]


def bleu_of_sums(order: int) -> Callable[[Array], Array]:
    """BLEU of sums of `bleu_counts`, as pycocoevalcap computes it (bleu_scorer.py), for many sets at once."""

    def aggregate(sums: Array) -> Array:
        precisions = (sums[:, :order] + TINY) / (sums[:, ORDER : ORDER + order] + SMALL)
        ratio = (sums[:, -2] + TINY) / (sums[:, -1] + SMALL)
        brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
        scores: Array = np.prod(precisions, axis=1) ** (1.0 / order) * brevity
        return scores

    return aggregate


def rouge_l(candidates: Sequence[str], references: References) -> ClipScores:
    """ROUGE-L, the best precision and recall over the references; of a set it is the mean."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    pairs = zip(candidates, references, strict=True)
    return mean_scores("rouge_l", [rouge.calc_score([candidate], list(texts)) for candidate, texts in pairs])


def document_frequencies(references: References) -> Frequencies:
    """In how many clips' references each n-gram occurs."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer(n=ORDER)
    scorer.crefs = _References(references, len(references))
    scorer.compute_doc_freq()
    frequencies: Frequencies = scorer.document_frequency
    return frequencies


def cider_d(
    candidates: Sequence[str], references: References, frequencies: Frequencies, clips_of_set: int
) -> ClipScores:
    """CIDEr-D (arXiv 1411.5726, with clipping and the penalty of length), 0 to 10; of a set it is the mean.

    frequencies: of n-grams among the references of clips_of_set clips, which these clips are some or all of.
    EnvironmentFault for one clip alone, among which no n-gram is rarer than another.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_test

    if clips_of_set < 2:
        raise EnvironmentFault("cider_d: needs two clips or more; it weighs words by how few clips have them")
    scorer = CiderScorer(n=ORDER)
    scorer.crefs = _References(references, clips_of_set)
    scorer.ctest = (cook_test(candidate) for candidate in candidates)
    scorer.document_frequency = frequencies
    return mean_scores("cider_d", np.array(scorer.compute_cider(), dtype=np.float64))


class _References:
    """The n-grams of references, counted when they are asked for; as long as the whole set, whatever part this is."""

    def __init__(self, references: References, clips_of_set: int) -> None:
        self._references = references
        self._clips_of_set = clips_of_set

    def __len__(self) -> int:
        return self._clips_of_set

    def __iter__(self) -> Iterator[list[dict[tuple[str, ...], int]]]:
        from pycocoevalcap.cider.cider_scorer import cook_refs

        return (cook_refs(list(texts)) for texts in self._references)
