"""`enclap caption`: recordings in, sentences out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName, PrecisionName, RerankName, chosen_formats
from enclap.cli.exit import SOME_FAILED
from enclap.cli.memory import require_address_space
from enclap.cli.progress import ProgressBar
from enclap.errors import AudioNotFound, UsageError

if TYPE_CHECKING:
    from enclap.decoding.options import DecodingOptions


def caption(
    paths: options.Paths,
    formats: options.Formats = None,
    outputs: options.Outputs = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    plot: options.Plot = None,
    window: options.Window = 10.0,
    candidates: options.Candidates = 1,
    rerank: options.Rerank = RerankName.likelihood,
    beams: options.Beams = None,
    sample: options.Sample = False,
    seed: options.Seed = None,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: options.Device = "auto",
    precision: options.Precision = PrecisionName.float32,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Describe recordings in English sentences.

    PATH is a sound or video file, a folder, a glob in quotes, or - for
    standard input. A long recording gets a caption for every ten seconds.

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
    require_address_space()
    decoding = decoding_options(beams, candidates, rerank, sample, seed)
    from enclap.cli.messages import messages_shown

    bar = ProgressBar(wanted=not quiet)
    with messages_shown(bar, quiet=quiet, verbose=verbose):
        names = chosen_formats(formats or ["text"])
        from enclap.output.inputs import expand
        from enclap.output.plan import make_plan

        inputs = expand(paths)
        plan = make_plan(names, outputs or [], inputs)
        if resume and plan.resume_log() is None:
            raise UsageError("--resume needs an output to go on with; add --output FILE or FOLDER/")
        from enclap.cli.run import Job, ModelOptions, execute, execute_nothing

        faults = [found for found in inputs if isinstance(found, AudioNotFound)]
        if len(faults) == len(inputs):
            execute_nothing(faults, plan, model)
            raise SystemExit(SOME_FAILED)
        bar.total = len(inputs)
        target = None
        if plot is not None:
            from enclap.output.plot import check_plot

            target = check_plot(plot, inputs, plan, overwrite)
        job = Job(decoding, window, plan, resume, overwrite, quiet, verbose, target)
        model_options = ModelOptions(model, engine.value, device, precision.value, threads)
        if execute(inputs, job, model_options, bar):
            raise SystemExit(SOME_FAILED)


def decoding_options(
    beams: int | None, candidates: int, rerank: RerankName, sample: bool = False, seed: int | None = None
) -> DecodingOptions:
    """Decoding options; a wider search when more candidates are wanted than it has by default."""
    from enclap.decoding.options import DEFAULT_BEAMS, DecodingOptions

    if sample:
        if beams is not None:
            raise UsageError("--sample draws sentences, --beams searches for them; leave one out")
        return DecodingOptions(candidates=candidates, sample=True, seed=seed or 0, rerank=rerank.value)
    if seed is not None:
        raise UsageError("--seed is for --sample; add it, or leave --seed out")
    if beams is not None and candidates > beams:
        raise UsageError(f"--candidates {candidates} needs --beams {candidates} or more; it is {beams}")
    if beams is None and candidates > DEFAULT_BEAMS:
        beams = candidates
    return DecodingOptions(beams=beams, candidates=candidates, rerank=rerank.value)
