"""All metrics of several rows of captions: what can be computed is, and the rest is named with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from enclap.errors import EnvironmentFault, ModelError
from enclap.evaluation.captioning import ngrams
from enclap.evaluation.captioning.downloads import corenlp_folder, locked_archive
from enclap.evaluation.captioning.java import Java, find_java
from enclap.evaluation.captioning.meteor import running_meteor
from enclap.evaluation.captioning.ngrams import require_pycocoevalcap
from enclap.evaluation.captioning.rows import COMPARED, SYSTEM, Row
from enclap.evaluation.captioning.scores import ClipScores, group_clips, mean_scores
from enclap.evaluation.captioning.spice import spice
from enclap.evaluation.captioning.tokenizer import tokenize_ptb

BLEU = tuple(f"bleu_{n}" for n in range(1, ngrams.ORDER + 1))
ROUGE_L, METEOR, CIDER_D, SPICE, SPIDER = "rouge_l", "meteor", "cider_d", "spice", "spider"
METRICS = (*BLEU, ROUGE_L, METEOR, CIDER_D, SPICE, SPIDER)
"""The metrics of this module, in the order of a table."""
JAVA_SECONDS = 600.0  # that Java may take for one answer
SPICE_SECONDS = 1.0  # more for each caption
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """How captions are compared.

    ptb: tokenise with the PTB tokenizer, else captions are taken as they are. corenlp: the folder of CoreNLP's jars;
    None for the usual one. seconds: that Java may take for one answer; None for limits that leave room.
    """

    ptb: bool = True
    corenlp: Path | None = None
    seconds: float | None = None


@dataclass(slots=True)
class SuiteResult:
    """The scores of each row by its name and by metric, why a metric has none, and the programs that were used."""

    scores: dict[str, dict[str, ClipScores]] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def attempt(self, metrics: Sequence[str], compute: Callable[[], Result]) -> Result | None:
        """What compute gives; None when the machine lacks something, which is then the reason of these metrics."""
        try:
            return compute()
        except (EnvironmentFault, ModelError) as error:
            reason = str(error)
        except MemoryError:
            reason = "the memory of this machine is too small; compare fewer clips"
        self.not_computed |= dict.fromkeys(metrics, reason)
        return None

    def add(self, row: Row, scores: ClipScores) -> None:
        """Keep the scores of a row's captions, those of one clip taken together."""
        grouped = group_clips(scores, row.clips, max(row.clips) + 1)
        self.scores.setdefault(row.name, {})[scores.name] = grouped


def score_rows(rows: Sequence[Row], references: Sequence[Sequence[str]], options: SuiteOptions) -> SuiteResult:
    """The metrics of all rows; SPICE and SPIDEr, which take long, of the predictions and what they are compared with.

    references: of the whole set of clips, after which CIDEr-D weighs words.
    """
    result = SuiteResult()
    with scoring(result, rows, references, options):
        pass  # nothing else to do meanwhile
    return result


@contextmanager
def scoring(
    result: SuiteResult, rows: Sequence[Row], references: Sequence[Sequence[str]], options: SuiteOptions
) -> Iterator[None]:
    """What `score_rows` does, into the result; METEOR, which takes longest, works on while the block runs."""
    if not result.attempt(METRICS, require_pycocoevalcap):
        yield
        return
    seconds = options.seconds or JAVA_SECONDS
    # Without Java there are no tokens, and so no metric: another tokenizer would give other scores.
    java = result.attempt(METRICS if options.ptb else (METEOR, SPICE, SPIDER), find_java)
    result.versions["java"] = java.version if java else "none"
    with ExitStack() as stack:
        # METEOR reads its table of paraphrases while others work.
        meteor = java and result.attempt([METEOR], lambda: stack.enter_context(running_meteor(java, seconds)))
        if options.ptb:
            found = java and result.attempt(METRICS, lambda: tokenize_rows(rows, references, java, seconds))
            if not found:
                yield
                return
            rows, references = found
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waiting = meteor and pool.submit(lambda: [meteor.score(row.candidates, row.references) for row in rows])
        add_ngrams(result, rows, references)
        if java:
            add_spice(result, [row for row in rows if row.name in (SYSTEM, COMPARED)], java, options)
        yield
        for row, scores in zip(rows, (waiting and result.attempt([METEOR], waiting.result)) or [], strict=False):
            result.add(row, scores)


def tokenize_rows(
    rows: Sequence[Row], references: Sequence[Sequence[str]], java: Java, seconds: float
) -> tuple[list[Row], list[list[str]]]:
    """The rows and references with tokens instead of captions; EnvironmentFault when Java fails."""
    lists = [texts for row in rows for texts in (row.candidates, *row.references)] + list(references)
    tokens = iter(tokenize_ptb([text for texts in lists for text in texts], java, seconds))

    def take(texts: Sequence[str]) -> list[str]:
        return [next(tokens) for _ in texts]

    found = [Row(row.name, take(row.candidates), [take(texts) for texts in row.references], row.clips) for row in rows]
    return found, [take(texts) for texts in references]


def add_ngrams(result: SuiteResult, rows: Sequence[Row], references: Sequence[Sequence[str]]) -> None:
    """Add BLEU, ROUGE-L and CIDEr-D of the rows.

    references: of the whole set of clips, after which CIDEr-D weighs words.
    """
    frequencies = result.attempt([CIDER_D], partial(ngrams.document_frequencies, references))
    for row in rows:
        pairs = row.candidates, row.references
        found: list[ClipScores | None] = [*(result.attempt(BLEU, partial(ngrams.bleu, *pairs)) or [])]
        found += [result.attempt([ROUGE_L], partial(ngrams.rouge_l, *pairs))]
        if frequencies is not None:
            found += [result.attempt([CIDER_D], partial(ngrams.cider_d, *pairs, frequencies, len(references)))]
        for scores in found:
            if scores is not None:
                result.add(row, scores)


def add_spice(result: SuiteResult, rows: Sequence[Row], java: Java, options: SuiteOptions) -> None:
    """Add SPICE of the rows, all in one run, and SPIDEr, its mean with CIDEr-D for each clip (arXiv 1612.00370)."""
    candidates = [text for row in rows for text in row.candidates]
    references = [texts for row in rows for texts in row.references]
    seconds = options.seconds or JAVA_SECONDS + SPICE_SECONDS * len(candidates)
    folder = options.corenlp or corenlp_folder()
    found = result.attempt((SPICE, SPIDER), lambda: spice(candidates, references, java, folder, seconds))
    if found is None:
        return
    result.versions["corenlp"] = f"archive with SHA-256 {locked_archive(folder)}"
    start = 0
    for row in rows:
        clips = found.clips[start : start + len(row.candidates)]
        start += len(row.candidates)
        result.add(row, mean_scores(SPICE, clips))
        if cider := result.scores[row.name].get(CIDER_D):
            result.add(row, mean_scores(SPIDER, (cider.clips + clips) / 2.0))
    if CIDER_D in result.not_computed:
        result.not_computed[SPIDER] = result.not_computed[CIDER_D]
