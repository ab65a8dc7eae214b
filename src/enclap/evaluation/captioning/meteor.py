"""METEOR 1.5 by its own jar: matches are counted once for each caption, scores are computed from the counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning.java import Java, JavaDialogue, java_dialogue
from enclap.evaluation.captioning.scores import Array, ClipScores

METEOR = "METEOR"
MEMORY = "-Xmx2G"  # the table of paraphrases takes 1.2 GB
ASKED_TOGETHER = 100  # captions; their answers fit into the buffer of a pipe
STATISTICS = 23
LENGTHS, CHUNKS, WORDS = slice(0, 2), 20, slice(21, 23)  # of candidate and reference, among the statistics
SEPARATOR = re.compile(r"\|{2,}")

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
MODULE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
"""METEOR 1.5's parameters for English (Denkowski and Lavie 2014, and the jar's defaults)."""


def meteor_jar() -> Path:
    """The jar, which comes with pycocoevalcap and its table of paraphrases beside it."""
    from pycocoevalcap.meteor import meteor

    return Path(meteor.__file__).with_name(meteor.METEOR_JAR)


class Meteor:
    """A running METEOR; it takes longer to start than to score a thousand clips."""

    def __init__(self, dialogue: JavaDialogue) -> None:
        self._dialogue = dialogue
        self._known: dict[str, tuple[list[float], float]] = {}  # counts and score by question: rows share clips

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> ClipScores:
        """METEOR of tokenised captions, of a set from its summed counts; EnvironmentFault when Java fails.

        A caption with the same references is asked about once, whichever row has it.
        """
        lines = [
            " ||| ".join(["SCORE", *(_safe(text) for text in texts), _safe(candidate)])
            for candidate, texts in zip(candidates, references, strict=True)
        ]
        new = [line for line in dict.fromkeys(lines) if line not in self._known]
        for start in range(0, len(new), ASKED_TOGETHER):
            part = new[start : start + ASKED_TOGETHER]
            found = self._dialogue.ask(part, len(part))
            parsed = [parse_statistics(line) for line in found]  # before METEOR waits for what it cannot read
            self._known.update(zip(part, zip(parsed, self._evaluate(found)[:-1], strict=True), strict=True))
        counts, clips = zip(*(self._known[line] for line in lines), strict=True)
        statistics = without_perfect_chunks(np.array(counts))
        value = self._evaluate([" ".join(str(number) for number in statistics.sum(axis=0))])[-1]
        return ClipScores("meteor", value, np.array(clips), statistics, meteor_of_sums)

    def _evaluate(self, counts: Sequence[str]) -> list[float]:
        """The score of each of these counts, then that of all together."""
        answers = self._dialogue.ask([" ||| ".join(["EVAL", *counts])], len(counts) + 1)
        try:
            return [float(answer) for answer in answers]
        except ValueError as error:
            raise EnvironmentFault(f"{METEOR}: answers {answers[0][:80]!r} where a score belongs") from error


@contextmanager
def running_meteor(java: Java, seconds: float) -> Iterator[Meteor]:
    """METEOR for the block. seconds: that it may take for one answer."""
    arguments = ["-XX:+UseSerialGC", MEMORY, "-jar", str(meteor_jar()), "-", "-", "-stdio", "-l", "en", "-norm"]
    with java_dialogue(java, arguments, METEOR, seconds) as dialogue:
        yield Meteor(dialogue)


def _safe(text: str) -> str:
    """The text without what METEOR takes for its separator."""
    return " ".join(SEPARATOR.sub(" ", text).split())


def parse_statistics(line: str) -> list[float]:
    """The counts in a line that METEOR answers; EnvironmentFault when they are not as many as they must be."""
    numbers = line.split()
    if len(numbers) != STATISTICS:
        raise EnvironmentFault(f"{METEOR}: answers {line[:80]!r} where {STATISTICS} counts belong")
    return [float(number) for number in numbers]


def meteor_of_sums(sums: Array) -> Array:
    """METEOR [sets] of summed counts [sets, 23], by the formula of Denkowski and Lavie (2014).

    The counts are the jar's: length of candidate and reference, their function words, then for each module the matched
    content words of candidate and reference and their matched function words, then chunks and matched words of both.
    It is for intervals, which need thousands of scores; scores themselves come from the jar, which tests hold this to.
    """
    lengths, functions = sums[:, LENGTHS], sums[:, 2:4]  # [sets, 2]: candidate, reference
    modules = sums[:, 4:20].reshape(-1, 4, 2, 2)  # [sets, module, content or function, candidate or reference]
    kinds = np.array([DELTA, 1.0 - DELTA])
    matched = np.einsum("amks,m,k->as", modules, MODULE_WEIGHTS, kinds)
    weighted = DELTA * (lengths - functions) + (1.0 - DELTA) * functions
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = (matched / weighted).T
        mean = precision * recall / (ALPHA * precision + (1.0 - ALPHA) * recall)
        fragmentation = sums[:, CHUNKS] / sums[:, WORDS].mean(axis=1)
        scores: Array = mean * (1.0 - GAMMA * fragmentation**BETA)
    return np.nan_to_num(scores)


def without_perfect_chunks(counts: Array) -> Array:
    """The counts [clips, 23] with no chunk for a caption that matches a reference from end to end.

    The jar does so before it adds counts: what is whole is not fragmented.
    """
    whole = (counts[:, WORDS] == counts[:, LENGTHS]).all(axis=1) & (counts[:, CHUNKS] == 1)
    statistics = counts.copy()
    statistics[whole, CHUNKS] = 0.0
    return statistics
