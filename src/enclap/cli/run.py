"""One run of `enclap caption`: recordings go through the captioner, results to their places, and it is kept account."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enclap.captioner import Captioner, Failure
from enclap.cli.exit import print_error
from enclap.cli.progress import AsideHandler, ProgressBar
from enclap.cli.summary import Tally
from enclap.decoding.calibration import Calibration
from enclap.decoding.options import DecodingOptions
from enclap.engines import load_engine
from enclap.errors import AudioNotFound
from enclap.files import locked, remove_partial
from enclap.hub.resolve import find_model
from enclap.output.inputs import Recording
from enclap.output.resume import Key, ResumeLog, is_unchanged, model_fingerprint, recording_key
from enclap.output.writer import Plan, refuse_existing
from enclap.text import printable
from enclap.types import CaptionResult
from enclap.version import __version__

logger = logging.getLogger("enclap")

Input = Recording | AudioNotFound


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
    picture: Path | None


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how it is run; see `Captioner.from_pretrained`."""

    model: str
    engine: str
    device: str
    precision: str
    threads: int | None

    def captioner(self, folder: Path) -> Captioner:
        """A captioner over the folder that `model` has led to."""
        began = time.monotonic()
        engine = load_engine(folder, self.engine, self.device, self.precision, self.threads)
        logger.info("%s: loaded in %.2f s, %s engine", printable(self.model), time.monotonic() - began, engine.name)
        return Captioner(engine, self.model, Calibration.read(folder))


class RunState:
    """Knows of each input whether it is done, and keeps what comes out; without a ledger nothing is ever done."""

    def __init__(self, ledger: ResumeLog | None, settings: str, resume: bool) -> None:
        self._ledger = ledger
        self._settings = settings
        self._resume = resume
        self._waiting: deque[tuple[Key | None, bool]] = deque()  # of inputs that went in and have not come out

    def sources(self, inputs: Sequence[Input]) -> Iterator[str | CaptionResult | Failure]:
        """What the captioner shall do about each input: caption it, or pass on what is known of it."""
        for found in inputs:
            if isinstance(found, AudioNotFound):
                self._waiting.append((None, False))
                yield Failure(None, found)
                continue
            key = recording_key(found.path, self._settings) if self._ledger is not None else None
            known = self._ledger.find(key, found.path) if key and self._ledger and self._resume else None
            self._waiting.append((key, known is not None))
            yield known or found.path

    def settle(self, found: Input, result: CaptionResult | Failure) -> bool:
        """Keep the result of the next input; whether it was done before."""
        key, was_done = self._waiting.popleft()
        if self._ledger is None or key is None or isinstance(found, AudioNotFound) or isinstance(result, Failure):
            return was_done
        if is_unchanged(key, found.path):  # else it is not known which bytes were heard
            self._ledger.record(key, result)
        return was_done


@contextmanager
def output_held(job: Job, inputs: int) -> Iterator[ResumeLog | None]:
    """The ledger of the output, which is ours alone until the block ends; None for standard output.

    It stays when there is something to go on from: after an end before the end, in a folder, after several
    recordings, and when --resume says that more is to come. Raises UsageError and EnvironmentFault.
    """
    job.plan.prepare()
    path = job.plan.ledger()
    if path is None:
        yield None
        return
    shown = str(job.plan.folder or next(job.plan.files()))
    is_new = not path.exists()
    with locked(path, shown) as file, path.open("rb") as reader:
        ledger = ResumeLog(path, file, reader)
        keep = True
        try:
            if not is_new:
                remove_partial(job.plan.files())
            if not job.overwrite:
                refuse_existing(job.plan, ledger if job.resume else None)
            yield ledger
            keep = job.plan.folder is not None or job.resume or inputs > 1 or not is_new
        finally:
            if not keep or ledger.is_empty:
                with suppress(PermissionError):  # Windows removes no open file: there an empty record stays
                    path.unlink()


def settings_key(folder: Path, captioner: Captioner, loading: ModelOptions, job: Job) -> str:
    """A hash of everything but the recording that decides what its captions are."""
    facts = {
        "enclap": __version__,
        "model": model_fingerprint(folder),
        "engine": captioner.engine.name,
        "device": loading.device,
        "precision": loading.precision,
        "window": job.window,
        "options": job.options.model_dump(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def execute(inputs: Sequence[Input], job: Job, loading: ModelOptions) -> int:
    """Caption everything and write it; returns how many inputs failed. The summary comes last."""
    tally = Tally()
    bar = ProgressBar(len(inputs), wanted=not job.quiet)
    with _telling(bar, job), output_held(job, len(inputs)) as ledger:
        folder = find_model(loading.model)
        captioner = loading.captioner(folder)
        captioner.check_window(job.window)
        settings = settings_key(folder, captioner, loading, job) if ledger else ""
        account = RunState(ledger, settings, job.resume)
        stream = captioner.stream(account.sources(inputs), job.options, job.window, on_progress=bar.update)
        with closing(stream), job.plan.opened(captioner.model, ledger, job.overwrite) as places:
            for number, (found, result) in enumerate(zip(inputs, stream, strict=True)):
                was_done = account.settle(found, result)
                with bar.aside():
                    if isinstance(result, CaptionResult):
                        places.write(number, result)
                    _count(tally, result, was_done)
        if job.picture and isinstance(result, CaptionResult):
            from enclap.output.plot import draw

            draw(result, job.picture)
    if not job.quiet and (job.verbose or tally.is_worth_telling()):
        print_error(f"enclap: {tally}")
    return tally.failed


def _count(tally: Tally, result: CaptionResult | Failure, was_done: bool) -> None:
    """Tell of one input, as far as that is wanted, and count it."""
    name = printable(result.path or "audio")
    if isinstance(result, Failure):
        tally.failed += 1
        print_error(f"enclap: {result.error}")
    elif was_done:
        tally.skipped += 1
        logger.info("%s: done before", name)
    else:
        tally.captioned += 1
        tally.seconds += result.duration
        logger.info("%s: captioned, %.1f s of audio", name, result.duration)


@contextmanager
def _telling(bar: ProgressBar, job: Job) -> Iterator[None]:
    """Shows what is logged, as much as was asked for, beside the bar."""
    level = logging.ERROR if job.quiet else logging.INFO if job.verbose else logging.WARNING
    handler = AsideHandler(bar, level)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        bar.close()
        logger.removeHandler(handler)
        logger.setLevel(before)
