"""`enclap caption`: recordings in, sentences out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enclap.cli import caption_options as options
from enclap.cli.choices import DeviceName, EngineName, PrecisionName, RerankName, chosen_formats
from enclap.cli.exit import SOME_FAILED, print_error
from enclap.errors import AudioNotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from enclap.decoding.options import DecodingOptions
    from enclap.output.inputs import Recording
    from enclap.output.writer import Plan

DEFAULT_BEAMS = 4


def caption(
    paths: options.Paths,
    styles: options.Formats = None,
    outputs: options.Outputs = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    plot: options.Plot = None,
    window: options.Window = 10.0,
    candidates: options.Candidates = 1,
    rank: options.Rank = RerankName.likelihood,
    beams: options.Beams = None,
    sample: options.Sample = False,
    seed: options.Seed = None,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.float32,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
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
    decoding = _decoding(beams, candidates, sample, seed).model_copy(update={"rerank": rank.value})
    inputs, plan = _inputs_and_plan(paths, styles or ["text"], outputs or [], resume)
    failures = [found for found in inputs if isinstance(found, AudioNotFound)]
    if len(failures) == len(inputs):  # nothing to load a model for
        for failure in failures:
            print_error(f"enclap: {failure}")
        raise SystemExit(SOME_FAILED)
    from enclap.cli.run import Job, ModelOptions, execute

    picture = _picture(plot, inputs, overwrite)
    job = Job(decoding, window, plan, resume, overwrite, quiet, verbose, picture)
    if execute(inputs, job, ModelOptions(model, engine.value, device.value, precision.value, threads)):
        raise SystemExit(SOME_FAILED)


def _decoding(beams: int | None, candidates: int, sample: bool, seed: int | None) -> DecodingOptions:
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
    from enclap.output.inputs import expand
    from enclap.output.writer import planned

    inputs = expand(paths)
    plan = planned(names, outputs, inputs)
    if resume and plan.ledger() is None:
        raise UsageError("--resume needs an output to go on with; add --output FILE or FOLDER/")
    return inputs, plan


def _picture(plot: str | None, inputs: Sequence[Recording | AudioNotFound], overwrite: bool) -> Path | None:
    """The file that `--plot` names, if it does."""
    if plot is None:
        return None
    from enclap.output.plot import check_plot

    return check_plot(plot, inputs, overwrite)
