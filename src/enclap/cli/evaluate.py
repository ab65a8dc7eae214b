"""`enclap evaluate`: how good captions are, beside baselines and people."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.exit import print_error
from enclap.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from enclap.evaluation.captioning.evaluate import Evaluation


class TokenizerName(StrEnum):
    """What splits captions into words before they are compared."""

    ptb = "ptb"
    none = "none"


Predictions = Annotated[str | None, typer.Option(metavar="FILE", help="Captions of any system, .csv or .jsonl.")]
References = Annotated[str | None, typer.Option(metavar="FILE", help="What people wrote of the same clips.")]
Output = Annotated[str | None, typer.Option("--output", "-o", metavar="DIR", help="A new folder for the report.")]
Compare = Annotated[str | None, typer.Option(metavar="FILE", help="Captions of a second system to compare with.")]
Require = Annotated[
    list[str] | None, typer.Option(metavar="METRIC", help="Exit with 3 when this metric cannot be computed.")
]
Tokenizer = Annotated[TokenizerName, typer.Option(help="none takes captions as they are.")]
ComparisonClips = Annotated[
    int, typer.Option(min=0, metavar="N", help="Clips for baselines and people at most; 0 leaves them out.")
]
Resamples = Annotated[int, typer.Option(min=10, max=100_000, metavar="N", help="Of the bootstrap.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Of what is drawn.")]
TimeLimit = Annotated[float | None, typer.Option(min=1.0, metavar="SECONDS", help="That Java may take for one answer.")]


def evaluate(
    predictions: Predictions = None,
    references: References = None,
    output: Output = None,
    compare: Compare = None,
    require: Require = None,
    tokenizer: Tokenizer = TokenizerName.ptb,
    comparison_clips: ComparisonClips = 300,
    resamples: Resamples = 1_000,
    seed: Seed = 0,
    time_limit: TimeLimit = None,
) -> None:
    """Compare captions with what people wrote: BLEU, ROUGE-L, METEOR, CIDEr-D, SPICE, SPIDEr.

    A metric that needs what this machine lacks is named with the remedy, and
    the others are computed. Needs the extra eval, and Java 8 to 21.

    \b
    Tables name a clip in path, file_name, fname or audiocap_id, and its
    captions in caption, candidate, caption_1 ... or reference_1 ...

    \b
    Examples:
      enclap evaluate --predictions mine.csv --references test.csv
      enclap evaluate --predictions mine.csv --references test.csv -o report
      enclap evaluate --predictions a.csv --compare b.csv --references test.csv

    \b
    Exit codes: 0 some metric was computed, 2 wrong usage, 3 none was, or not
    one that --require names, 130 interrupted.
    """
    if predictions is None or references is None:
        raise UsageError("give both --predictions FILE and --references FILE")
    from enclap.evaluation.captioning.evaluate import EvaluationOptions, check_metrics
    from enclap.evaluation.captioning.evaluate import evaluate as compute
    from enclap.evaluation.captioning.report import write_folder
    from enclap.evaluation.captioning.tables import match, read_predictions, read_references
    from enclap.files import check_free

    check_metrics(require or [])
    if output is not None:
        check_free(Path(output))
    truth = read_references(Path(references))
    captions = match(read_predictions(Path(predictions)), truth, f"{predictions} and {references}")
    other = None
    if compare is not None:
        other = match(read_predictions(Path(compare)), truth, f"{compare} and {references}").predictions
    options = EvaluationOptions(
        tokenizer=tokenizer.value,
        resamples=resamples,
        seed=seed,
        comparison_clips=comparison_clips,
        seconds=time_limit,
    )
    evaluation = compute(captions, options, other)
    _show(evaluation)
    if output is not None:
        source = {"predictions": predictions, "references": references}
        write_folder(evaluation, Path(output), source | ({"compared with": compare} if compare else {}))
    missing = [name for name in require or [] if name not in evaluation.metrics]
    if missing or not evaluation.metrics:
        raise EnvironmentFault(
            f"not computed, but asked for: {', '.join(missing)}" if missing else "no metric was computed"
        )


def _show(evaluation: Evaluation) -> None:
    """Print the scores, then on standard error what is missing."""
    from enclap.evaluation.captioning.rows import SYSTEM

    for name, scores in evaluation.metrics.items():
        interval = evaluation.intervals[SYSTEM].get(name)
        bounds = "" if interval is None else f"  [{interval.low:.4f}, {interval.high:.4f}]"
        typer.echo(f"{name:<12}{scores.value:8.4f}{bounds}")
    for name, item in evaluation.difference.items():
        typer.echo(f"difference in {name:<12}{item.value:+8.4f}  [{item.low:+.4f}, {item.high:+.4f}]")
    for warning in evaluation.warnings:
        print_error(f"warning: {warning}")
    for name, reason in evaluation.not_computed.items():
        print_error(f"not computed: {name}: {reason}")
