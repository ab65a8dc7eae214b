"""One run of `enclap caption`: recordings go through the captioner, results to their outputs, failures are counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from enclap.captioner import Captioner, Failure
from enclap.cli.exit import print_error
from enclap.cli.progress import ProgressBar
from enclap.cli.summary import Tally
from enclap.decoding.options import DecodingOptions
from enclap.errors import AudioNotFound, InputError
from enclap.files import is_stream
from enclap.output.inputs import Input
from enclap.output.plan import STANDARD_OUTPUT, Plan
from enclap.output.resume import RunState, output_held, settings_key
from enclap.output.writer import open_writer
from enclap.text import printable
from enclap.types import CaptionResult

logger = logging.getLogger("enclap")


@dataclass(frozen=True, slots=True)
class Job:
    """What `enclap caption` was asked to do beside loading a model; see its options."""

    options: DecodingOptions
    window: float
    plan: Plan
    resume: bool
    overwrite: bool
    quiet: bool
    verbose: bool
    plot: Path | None


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how it is run; see `Captioner.from_pretrained`."""

    model: str
    engine: str
    device: str
    precision: str
    threads: int | None

    def captioner(self) -> Captioner:
        """The model, loaded."""
        began = time.monotonic()
        loaded = Captioner.from_pretrained(self.model, self.engine, self.device, self.precision, self.threads)
        seconds, engine = time.monotonic() - began, loaded.engine.name
        logger.info("%s: loaded in %.2f s, %s engine", printable(self.model), seconds, engine)
        return loaded


def execute(inputs: Sequence[Input], job: Job, model_options: ModelOptions, bar: ProgressBar) -> int:
    """Caption everything and write it; returns how many inputs failed. The summary comes last."""
    tally = Tally()
    with output_held(job.plan, len(inputs), resume=job.resume, overwrite=job.overwrite) as log:
        captioner = model_options.captioner()
        captioner.check_window(job.window)
        captioner.check_rerank(job.options)
        device = {"device": model_options.device, "precision": model_options.precision}
        state = RunState(log, settings_key(captioner, job.options, job.window, **device) if log else "", job.resume)
        stream = captioner.stream(state.sources(inputs), job.options, job.window, on_progress=bar.update)
        with closing(stream), open_writer(job.plan, captioner.model, log, job.overwrite) as writer:
            for number, (found, result) in enumerate(zip(inputs, stream, strict=True)):
                was_done = state.settle(found, result)
                with bar.aside():
                    try:
                        if isinstance(result, CaptionResult):
                            writer.write(number, result)
                    except InputError as error:
                        result = Failure(result.path, error)
                    tally.count(result, was_done)
        if job.plot and isinstance(result, CaptionResult):
            from enclap.output.plot import draw

            draw(result, job.plot)
    bar.close()
    if not job.quiet and (job.verbose or tally.needs_summary()):
        print_error(f"enclap: {tally}")
    return tally.failed


def execute_nothing(inputs: Sequence[AudioNotFound], plan: Plan, model: str) -> None:
    """Report inputs that all led to nothing: no model is loaded, no file is written or replaced.

    Standard output gets a complete document without results, which whoever reads it can parse.
    """
    documents = tuple(item for item in plan.documents if item[1] == STANDARD_OUTPUT or is_stream(Path(item[1])))
    with open_writer(replace(plan, folder=None, documents=documents), model, None, overwrite=False):
        for fault in inputs:
            print_error(f"enclap: {fault}")
