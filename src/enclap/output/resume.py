"""Which recordings of a run are done already, so that a run that was cut off goes on and a finished one is extended.

Whatever a `--resume` writes equals what one uninterrupted run would have written, in every format.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enclap.captioner import Captioner, Failure
from enclap.decoding.options import DecodingOptions
from enclap.errors import AudioNotFound
from enclap.files import is_file, locked, remove_partial, sha256
from enclap.output.inputs import Input
from enclap.output.plan import Plan
from enclap.output.resume_log import ResumeLog
from enclap.types import CaptionResult
from enclap.version import __version__

SMALL = 2**20  # bytes; larger files of a model folder are told apart by size and time of change, not read


@dataclass(frozen=True, slots=True)
class Key:
    """What a recording is known by, and the stamp of its file, which changes when the file does."""

    name: str
    stamp: tuple[int, ...]


class RunState:
    """Knows of each input whether it is done, and keeps what comes out; without a resume log nothing is ever done.

    settings: see `settings_key`. resume: whether what the log holds is used.
    """

    def __init__(self, log: ResumeLog | None, settings: str, resume: bool) -> None:
        self._log = log
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
            key = recording_key(found.path, self._settings) if self._log is not None else None
            known = self._log.find(key.name, found.path) if key and self._log and self._resume else None
            self._waiting.append((key, known is not None))
            yield known or found.path

    def settle(self, found: Input, result: CaptionResult | Failure) -> bool:
        """Keep the result of the next input; whether it was done before."""
        key, was_done = self._waiting.popleft()
        if self._log is None or key is None or isinstance(found, AudioNotFound) or isinstance(result, Failure):
            return was_done
        if is_unchanged(key, found.path):  # else it is not known which bytes were captioned
            self._log.record(key.name, result)
        return was_done


@contextmanager
def output_held(plan: Plan, inputs: int, *, resume: bool, overwrite: bool) -> Iterator[ResumeLog | None]:
    """The resume log of the output, which is ours alone until the block ends; None for standard output.

    The log stays when there is something to go on from: after an end before the end, in a folder, after several
    recordings, and when `resume` says that more is to come. Raises UsageError and EnvironmentFault.
    """
    plan.prepare()
    path = plan.resume_log()
    if path is None:
        yield None
        return
    is_new = not is_file(path)
    with locked(path, plan.shown) as file, path.open("rb") as reader:
        log = ResumeLog(path, file, reader)
        keep = True
        try:
            if not is_new:
                remove_partial(plan.files())
            plan.check(log if resume else None, overwrite)
            yield log
            keep = plan.folder is not None or resume or inputs > 1 or not is_new
        finally:
            if not keep or log.is_empty:
                with suppress(PermissionError):  # Windows removes no open file: there an empty log stays
                    path.unlink()


def settings_key(captioner: Captioner, options: DecodingOptions, window: float, **run: object) -> str:
    """A hash of everything but the recording that decides what its captions are.

    run: what else does, as the device and the precision that were asked for.
    """
    facts = {
        "enclap": __version__,
        "model": None if captioner.folder is None else model_fingerprint(captioner.folder),
        "engine": captioner.engine.name,
        "window": window,
        "options": options.model_dump(),
        **run,
    }
    return sha256(json.dumps(facts, sort_keys=True).encode())


def recording_key(path: str, settings: str) -> Key | None:
    """The key of a recording under `settings`; None for what is no ordinary file or cannot be read.

    The ending of its name belongs to it, because FFmpeg takes a hint from there.
    """
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            content = sha256(file)
    except OSError:
        return None  # reading it for its captions will say why
    facts = content.encode() + b"\0" + os.fsencode(Path(path).suffix) + b"\0" + settings.encode()
    return Key(sha256(facts), stamp)


def is_unchanged(key: Key, path: str) -> bool:
    """Whether the file still looks as it did when its key was made."""
    try:
        return _stamp(Path(path).stat()) == key.stamp
    except OSError:
        return False


def model_fingerprint(folder: Path) -> str:
    """A hash that changes when a file of the model folder does."""
    facts: list[bytes] = []
    for path in sorted(path for path in folder.rglob("*") if is_file(path)):
        stat = path.stat()
        is_read = stat.st_size <= SMALL and os.access(path, os.R_OK)
        content = path.read_bytes() if is_read else str(stat.st_mtime_ns).encode()
        facts += [os.fsencode(path.relative_to(folder)), f"\0{stat.st_size}\0".encode(), content]
    return sha256(*facts)


def _stamp(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
