"""The summary of a run, in one line."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from enclap.captioner import Failure
from enclap.cli.exit import print_error
from enclap.text import printable
from enclap.types import CaptionResult

logger = logging.getLogger("enclap")

SECONDS_PER_HOUR = 3600.0
LONG = 60.0  # seconds of audio from which even a single recording gets a summary


@dataclass(slots=True)
class Tally:
    """Counts the recordings of a run that began when this was made. seconds: of audio captioned."""

    captioned: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def count(self, result: CaptionResult | Failure, was_done: bool) -> None:
        """Count a recording; a failure is reported, the rest is logged. was_done: by an earlier run."""
        name = printable(result.path or "audio")
        if isinstance(result, Failure):
            self.failed += 1
            print_error(f"enclap: {result.error}")
        elif was_done:
            self.skipped += 1
            logger.info("%s: done before", name)
        else:
            self.captioned += 1
            self.seconds += result.duration
            logger.info("%s: captioned, %.1f s of audio", name, result.duration)

    def needs_summary(self) -> bool:
        """Whether there is more to say than the captions themselves do."""
        return self.captioned + self.skipped + self.failed > 1 or self.seconds >= LONG

    def __str__(self) -> str:
        """One line: files, hours of audio, how many times faster than real time, what was done before, failures."""
        elapsed = max(time.monotonic() - self.began, 1e-3)
        files = f"{self.captioned} {'file' if self.captioned == 1 else 'files'} captioned"
        audio = f"{self.seconds / SECONDS_PER_HOUR:.3g} hours of audio in {elapsed:.1f} s"
        done = f"; {self.skipped} done before" if self.skipped else ""
        return f"{files}, {audio}, {self.seconds / elapsed:.1f} times real time{done}; {self.failed} failed"
