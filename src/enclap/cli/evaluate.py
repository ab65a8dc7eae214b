"""`enclap evaluate`: how good captions are, beside baselines and people."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.exit import SOME_FAILED, print_error
from enclap.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from enclap.data.datasets.base import CaptionedClip
    from enclap.evaluation.captioning.evaluate import Evaluation, EvaluationOptions, Similarity
    from enclap.evaluation.captioning.predict import Predicted


class TokenizerName(StrEnum):
    """What splits captions into words before they are compared."""

    ptb = "ptb"
    none = "none"


Predictions = Annotated[
    str | None, typer.Option(metavar="FILE", help="Captions of any system: .csv, .tsv, .jsonl, .parquet.")
]
References = Annotated[str | None, typer.Option(metavar="FILE", help="What people wrote of the same clips.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="A model that captions the recordings of --data.")]
Data = Annotated[str | None, typer.Option(metavar="FILE", help="References that name recordings in path.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Of --data; all of it unless given.")]
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
TimeLimit = Annotated[
    float | None, typer.Option(min=1.0, metavar="SECONDS", help="That Java or link-parser may take for an answer.")
]
SentenceModel = Annotated[str | None, typer.Option(metavar="NAME", help="For FENSE: a folder, or a name on the hub.")]
FluencyModel = Annotated[str | None, typer.Option(metavar="NAME", help="For FENSE and SPIDEr-FL, the same.")]


def evaluate(
    predictions: Predictions = None,
    references: References = None,
    model: Model = None,
    data: Data = None,
    split: Split = None,
    output: Output = None,
    compare: Compare = None,
    require: Require = None,
    tokenizer: Tokenizer = TokenizerName.ptb,
    comparison_clips: ComparisonClips = 300,
    resamples: Resamples = 1_000,
    seed: Seed = 0,
    time_limit: TimeLimit = None,
    sentence_model: SentenceModel = None,
    fluency_model: FluencyModel = None,
) -> None:
    """Compare captions with what people wrote: BLEU, METEOR, CIDEr-D, SPICE, SPIDEr, FENSE ...

    A metric that needs what this machine lacks is named with the remedy, and
    the others are computed. Needs the extra eval, and Java 8 to 21.

    \b
    Tables name a clip in path, file_name, fname, file_path, youtube_id or
    audiocap_id, its captions in caption, candidate, caption_1 ... or
    reference_1 ...

    \b
    Examples:
      enclap evaluate --predictions mine.csv --references test.csv
      enclap evaluate --predictions mine.csv --references test.csv -o report
      enclap evaluate --predictions a.csv --compare b.csv --references test.csv
      enclap evaluate --model mini --data data.csv --split test -o report

    \b
    Exit codes: 0 some metric was computed, 1 some recordings failed, 2 wrong
    usage, 3 a metric that --require names was not, 130 interrupted.
    """
    from enclap.evaluation.captioning.evaluate import EvaluationOptions, check_metrics
    from enclap.evaluation.captioning.fense import FenseModels
    from enclap.files import check_free

    check_metrics(require or [])
    if output is not None:
        check_free(Path(output))
    options = EvaluationOptions(
        tokenizer=tokenizer.value,
        resamples=resamples,
        seed=seed,
        comparison_clips=comparison_clips,
        seconds=time_limit,
        models=FenseModels(sentence_model, fluency_model),
    )
    if split is not None and data is None:
        raise UsageError("--split is one of --data; tables of --predictions and --references are compared whole")
    if predictions and references and not model and not data:
        source = {"predictions": predictions, "references": references}
    elif model and data and not predictions and not references:
        source = {"model": model, "data": data} | ({} if split is None else {"split": split})
    else:
        raise UsageError("give --predictions FILE and --references FILE, or --model NAME and --data FILE")
    _evaluate(source, compare, options, output, require or [])


def _evaluate(
    source: dict[str, str], compare: str | None, options: EvaluationOptions, output: str | None, require: Sequence[str]
) -> None:
    """Compute, show and write what was asked for; SystemExit when something of it is missing."""
    from enclap.evaluation.captioning import evaluate as evaluation
    from enclap.evaluation.captioning.report import write_folder
    from enclap.evaluation.captioning.tables import ClipCaptions, match, read_predictions, read_references

    similarity, failures = None, 0
    clips = _clips(source["data"], source.get("split")) if "model" in source else []
    truth = source.get("data") or source["references"]
    references = [ClipCaptions(clip.name, clip.captions, clip.labels) for clip in clips]
    references = references or read_references(Path(truth))
    others: dict[str, str] = {}
    if compare is not None:
        matched = match(read_predictions(Path(compare)), references, f"{compare} and {truth}")
        others = dict(zip(matched.clips, matched.predictions, strict=True))
    if "model" in source:
        predicted, similarity = _predict(source["model"], clips)
        captions, failures = predicted.captions, len(predicted.failures)
    else:
        captions = match(read_predictions(Path(source["predictions"])), references, " and ".join(source.values()))
    other = [others[clip] for clip in captions.clips] if compare is not None else None
    source |= {} if compare is None else {"compared with": compare}
    found = evaluation.evaluate(captions, options, other, similarity)
    _show(found)
    if output is not None:
        write_folder(found, Path(output), source)
    missing = [name for name in require if name not in found.metrics]
    if missing:
        raise EnvironmentFault(f"not computed, but asked for: {', '.join(missing)}")
    if failures:
        raise SystemExit(SOME_FAILED)


def _clips(data: str, split: str | None) -> Sequence[CaptionedClip]:
    """The clips of a data set's table, or of one split; every caption counts, also one that a clip has twice."""
    from enclap.data.datasets.base import common_split, in_split
    from enclap.data.datasets.table import TableDataset
    from enclap.evaluation.captioning.tables import check_length

    dataset = TableDataset(Path(data), is_distinct=False)
    found = list(dataset) if split is None else in_split(dataset, common_split(split))
    if not found:
        known = ", ".join(sorted({clip.split for clip in dataset}))
        raise UsageError(f"--split {split}: no clip of {data} is in it; its splits are {known}")
    for clip in found:
        check_length(data, clip.name, clip.captions)
    return found


def _predict(model: str, clips: Sequence[CaptionedClip]) -> tuple[Predicted, Similarity]:
    """The model's captions, and what computes how similar captions are to the sounds."""
    from enclap.captioner import Captioner
    from enclap.evaluation.captioning.predict import clap_similarity, predict

    captioner = Captioner.from_pretrained(model)
    predicted = predict(captioner, clips)
    for failure in predicted.failures:
        print_error(f"enclap: {failure}")
    if not predicted.captions.clips:
        raise SystemExit(SOME_FAILED)
    return predicted, partial(clap_similarity, captioner.engine, predicted.sources)


def _show(evaluation: Evaluation) -> None:
    """Print the scores, then on standard error what is missing."""
    from enclap.evaluation.captioning.rows import SYSTEM

    for name, scores in evaluation.metrics.items():
        interval = evaluation.intervals[SYSTEM].get(name)
        bounds = "" if interval is None else f"  [{interval.low:.4f}, {interval.high:.4f}]"
        typer.echo(f"{name:<22}{scores.value:9.4f}{bounds}")
    for name, item in evaluation.difference.items():
        typer.echo(f"difference in {name:<22}{item.value:+9.4f}  [{item.low:+.4f}, {item.high:+.4f}]")
    for warning in evaluation.warnings:
        print_error(f"warning: {warning}")
    for name, reason in evaluation.not_computed.items():
        print_error(f"not computed: {name}: {reason}")
