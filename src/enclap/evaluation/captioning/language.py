"""Metrics that read no references or labels alone, brought into the form of the others: a score for each clip."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from enclap.errors import EnvironmentFault
from enclap.evaluation.base import Metric
from enclap.evaluation.captioning.scores import ClipScores, mean_scores
from enclap.evaluation.hearing import Hearing
from enclap.evaluation.wording import Wording

WORDING = ("words", "vocabulary", "repeated_phrase", "unfinished")
UNGRAMMATICAL = "ungrammatical"
HEARING = ("sound_named", "sound_or_family_named", "order_correct")
PARSER = """
import json, sys
from enclap.errors import EnvironmentFault
from enclap.evaluation.grammar import unparsed
try:
    found = unparsed(json.load(sys.stdin))
except EnvironmentFault as error:
    found = str(error)
json.dump(found, sys.stdout)
"""
"""Prints as JSON the captions that cannot be parsed, or a text that says why nobody knows."""
CLOSE = 1e-9  # of a mean that is computed in another order


def wording(predictions: Sequence[str]) -> list[ClipScores]:
    """Words a caption, different words in all, the shares that say a phrase twice and that have no end."""
    scores = metric_scores(Wording(), predictions, [()] * len(predictions))
    return [replace(item, aggregate=None) if item.name == "vocabulary" else item for item in scores]


def hearing(predictions: Sequence[str], labels: Sequence[Sequence[str]]) -> list[ClipScores]:
    """The shares of captions that name the clips' sounds, or their families, and name them in their order.

    EnvironmentFault when clips have no labels, or labels that the lexicon lacks.
    """
    if not all(labels):
        raise EnvironmentFault("the references need a column labels that names each clip's sounds")
    try:
        return metric_scores(Hearing(), predictions, labels)
    except KeyError as error:
        raise EnvironmentFault(f"the lexicon has no label {error.args[0]!r}") from error


def ungrammatical(predictions: Sequence[str], seconds: float) -> ClipScores:
    """The share of captions that link-grammar cannot parse.

    seconds: after which link-parser is ended. EnvironmentFault then, and without link-parser.
    """
    distinct = list(dict.fromkeys(predictions))
    command = [sys.executable, "-c", PARSER]
    # A session of its own, so that link-parser ends with the Python that waits for it.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(json.dumps(distinct), timeout=seconds)
        except subprocess.TimeoutExpired as error:
            limit = f"link-parser gave no answer in {seconds:g} s and was ended; allow more with --time-limit"
            raise EnvironmentFault(limit) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    found = json.loads(output) if process.returncode == 0 else f"link-parser's reader ended with {process.returncode}"
    if isinstance(found, str):
        raise EnvironmentFault(found)
    faulty = set(found)
    return mean_scores(UNGRAMMATICAL, [float(text in faulty) for text in predictions])


def metric_scores(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[ClipScores]:
    """The scores of any metric, with those of each clip alone.

    A score has an interval where it is the mean over the clips that have one, as is most often the case.
    """
    pairs = zip(predictions, references, strict=True)
    clips = [[score.value for score in metric.score([text], [others])] for text, others in pairs]
    columns = np.array(clips, dtype=np.float64).T
    found = []
    for score, values in zip(metric.score(predictions, references), columns, strict=True):
        item = mean_scores(score.name.replace(" ", "_"), values)
        is_mean = abs(item.value - score.value) <= CLOSE or item.value != item.value
        aggregate = item.aggregate if is_mean else None
        found.append(ClipScores(item.name, score.value, values, item.statistics, aggregate))
    return found
