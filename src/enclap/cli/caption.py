"""`enclap caption`: recordings in, sentences out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli.choices import (
    FORMAT_NAMES,
    DeviceName,
    EngineName,
    PrecisionName,
    chosen_formats,
    complete_formats,
)
from enclap.cli.endings import SOME_FAILED, complain
from enclap.errors import AudioNotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from enclap.cli.output import Plan
    from enclap.cli.paths import Recording
    from enclap.decoding.options import DecodingOptions

DEFAULT_BEAMS = 4


def caption(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", hidden=True)],
    styles: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help=f"{', '.join(FORMAT_NAMES)}; several with commas; text unless set.",
            show_default=False,
            autocompletion=complete_formats,
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="A file, or FOLDER/ for files per recording; once or per format."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what an earlier run to --output has done.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw spectrogram and captions, as .png or .svg.")
    ] = None,
    window: Annotated[
        float, typer.Option(metavar="SECONDS", help="Audio per caption; 0: one for each recording.")
    ] = 10.0,
    candidates: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Sentences for each caption, with scores.")
    ] = 1,
    beams: Annotated[
        int | None,
        typer.Option(min=1, max=64, metavar="N", help="Width of the search, 4 unless set; 1 is greedy."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw sentences instead of searching for the best.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of --sample, 0 unless set; the same draws the same.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="mini, a model folder, or a hub repository.")] = "mini",
    engine: Annotated[EngineName, typer.Option(help="What runs the model.")] = EngineName.auto,
    device: Annotated[DeviceName, typer.Option(help="Where it runs.")] = DeviceName.auto,
    precision: Annotated[PrecisionName, typer.Option(help="What it computes in.")] = PrecisionName.float32,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processor threads; all cores unless set.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but failures.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell of every recording.")] = False,
) -> None:
    """Write what can be heard in each recording, in English sentences.

    PATH is a sound or video file, a folder, a glob in quotes, or - for
    standard input. Long recordings get a caption for every ten seconds.

    \b
    Examples:
      enclap caption doorbell.mp3
      enclap caption walk.m4a --format srt --output walk.srt
      enclap caption recordings/ --format text,json --output captions/
      enclap caption recordings/ -f csv -o captions.csv --resume
      enclap caption "more/*.mp4" --candidates 3

    \b
    Exit codes: 0 all captioned, 1 some inputs failed, 2 wrong usage,
    3 model or environment, 130 interrupted.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other; leave one out")
    options = _options(beams, candidates, sample, seed)
    inputs, plan = _inputs_and_plan(paths, styles or ["text"], outputs or [], resume)
    failures = [found for found in inputs if isinstance(found, AudioNotFound)]
    if len(failures) == len(inputs):  # nothing to load a model for
        for failure in failures:
            complain(f"enclap: {failure}")
        raise SystemExit(SOME_FAILED)
    from enclap.cli.run import Job, Loading, execute

    picture = _picture(plot, inputs, overwrite)
    job = Job(options, window, plan, resume, overwrite, quiet, verbose, picture)
    if execute(inputs, job, Loading(model, engine.value, device.value, precision.value, threads)):
        raise SystemExit(SOME_FAILED)


def _options(beams: int | None, candidates: int, sample: bool, seed: int | None) -> DecodingOptions:
    """Decoding options; a wider search when more candidates are wanted than it has by default."""
    from enclap.decoding.options import DecodingOptions

    if sample:
        if beams is not None:
            raise UsageError("--sample draws sentences, --beams searches for them; leave one out")
        return DecodingOptions(candidates=candidates, sample=True, seed=seed or 0)
    if seed is not None:
        raise UsageError("--seed is for --sample; add it, or leave --seed out")
    if beams is not None and candidates > beams:
        raise UsageError(f"--candidates {candidates} needs --beams {candidates} or more; it is {beams}")
    return DecodingOptions(beams=max(DEFAULT_BEAMS, candidates) if beams is None else beams, candidates=candidates)


def _inputs_and_plan(
    paths: Sequence[str], styles: Sequence[str], outputs: Sequence[str], resume: bool
) -> tuple[list[Recording | AudioNotFound], Plan]:
    """The recordings that are meant, and where their captions go."""
    names = chosen_formats(styles)
    from enclap.cli.output import planned
    from enclap.cli.paths import expand

    inputs = expand(paths)
    plan = planned(names, outputs, inputs)
    if resume and plan.ledger() is None:
        raise UsageError("--resume needs an output to go on with; add --output FILE or FOLDER/")
    return inputs, plan


def _picture(plot: str | None, inputs: Sequence[Recording | AudioNotFound], overwrite: bool) -> Path | None:
    """The file that `--plot` names, if it does."""
    if plot is None:
        return None
    from enclap.cli.plot import check_plot

    return check_plot(plot, inputs, overwrite)
