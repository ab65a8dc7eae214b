"""`enclap caption`: recordings in, sentences out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.endings import SOME_FAILED, complain
from enclap.errors import AudioNotFound, UsageError

if TYPE_CHECKING:
    from enclap.captioner import Captioner, Failure
    from enclap.cli.progress import ProgressBar
    from enclap.decoding.options import DecodingOptions
    from enclap.types import CaptionResult

DEFAULT_BEAMS = 4


class FormatName(StrEnum):
    """The formats of `enclap.formats`, here so that --help need not import it."""

    text = "text"
    json = "json"
    jsonl = "jsonl"
    srt = "srt"


class EngineName(StrEnum):
    """The engines of `enclap.engines`."""

    auto = "auto"
    onnx = "onnx"
    torch = "torch"


class DeviceName(StrEnum):
    """Where an engine may run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class PrecisionName(StrEnum):
    """What an engine may compute in."""

    float32 = "float32"
    int8 = "int8"
    bfloat16 = "bfloat16"


class RankName(StrEnum):
    """What puts the candidates in order."""

    likelihood = "likelihood"
    clap = "clap"
    both = "both"


def caption(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Files, folders, globs, or - for standard input.")],
    model: Annotated[str, typer.Option(help="mini, a model folder, or a hub repository.")] = "mini",
    style: Annotated[FormatName, typer.Option("--format", help="How captions are written.")] = FormatName.text,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A file, or a folder for a file per recording.")
    ] = None,
    window: Annotated[float, typer.Option(help="Seconds per caption; 0: one for each recording.")] = 10.0,
    beams: Annotated[
        int | None, typer.Option(min=1, max=64, help="Width of the search; 1 is greedy.", show_default="4")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, max=64, help="Sentences to show for each window.")] = 1,
    rank: Annotated[
        RankName, typer.Option(help="Which candidate is best: the likeliest, most like the sound by CLAP, or both.")
    ] = RankName.likelihood,
    engine: Annotated[EngineName, typer.Option(help="What runs the model.")] = EngineName.auto,
    device: Annotated[DeviceName, typer.Option(help="Where it runs.")] = DeviceName.auto,
    precision: Annotated[PrecisionName, typer.Option(help="What it computes in.")] = PrecisionName.float32,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.", show_default="all cores")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no warnings.")] = False,
) -> None:
    """Write what can be heard in each recording, in English sentences.

    Recordings are any sound or video files; longer ones get a caption for every ten seconds.

    Exit codes: 0 all captioned, 1 some inputs failed, 2 wrong usage, 3 model or environment, 130 interrupted.
    """
    job = Job(style.value, output, window, quiet)
    options = _options(beams, candidates).model_copy(update={"rank": rank.value})
    sources = _sources(paths, job)
    failures = [source for source in sources if not isinstance(source, str)]
    if len(failures) == len(sources):  # nothing to load a model for
        for failure in failures:
            complain(f"enclap: {failure}")
        raise SystemExit(SOME_FAILED)
    from enclap.captioner import Captioner

    captioner = Captioner.from_pretrained(model, engine.value, device.value, precision.value, threads)
    if _run(captioner, sources, options, job):
        raise SystemExit(SOME_FAILED)


@dataclass(frozen=True, slots=True)
class Job:
    """What is written and where; see the options of `caption`."""

    style: str
    output: str | None
    window: float
    quiet: bool


def _options(beams: int | None, candidates: int) -> DecodingOptions:
    """Decoding options; a wider search when more candidates are wanted than it has by default."""
    from enclap.decoding.options import DecodingOptions

    if beams is not None and candidates > beams:
        raise UsageError(f"--candidates {candidates} needs --beams {candidates} or more; it is {beams}")
    return DecodingOptions(beams=max(DEFAULT_BEAMS, candidates) if beams is None else beams, candidates=candidates)


def _sources(paths: Sequence[str], job: Job) -> list[str | AudioNotFound]:
    from enclap.cli.output import names_folder
    from enclap.cli.paths import expand
    from enclap.formats import ONE_RECORDING

    sources = expand(paths)
    one_place = job.output is None or not names_folder(job.output)
    if job.style in ONE_RECORDING and one_place and len(sources) > 1:
        raise UsageError(
            f"--format {job.style} describes one recording, these are {len(sources)}; add --output FOLDER/"
        )
    return sources


def _run(captioner: Captioner, sources: Sequence[str | AudioNotFound], options: DecodingOptions, job: Job) -> int:
    """Caption everything and write it; returns how many inputs failed."""
    from enclap.captioner import Failure
    from enclap.cli.output import deliver
    from enclap.cli.progress import AsideHandler, ProgressBar

    bar = ProgressBar(len(sources), wanted=not job.quiet)
    inputs = [source if isinstance(source, str) else Failure(None, source) for source in sources]
    failures: list[Failure] = []
    handler = AsideHandler(bar, logging.ERROR if job.quiet else logging.WARNING)
    logger = logging.getLogger("enclap")
    logger.addHandler(handler)
    try:
        stream = captioner.stream(inputs, options, job.window, on_progress=bar.update)
        deliver(_captioned(stream, bar, failures), captioner.model, job.style, job.output)
    finally:
        bar.close()
        logger.removeHandler(handler)
    return len(failures)


def _captioned(
    stream: Iterable[CaptionResult | Failure], bar: ProgressBar, failures: list[Failure]
) -> Iterator[CaptionResult]:
    """The results; failures are told on standard error and collected."""
    from enclap.captioner import Failure

    for result in stream:
        with bar.aside():
            if isinstance(result, Failure):
                failures.append(result)
                complain(f"enclap: {result.error}")
            else:
                yield result
