"""A progress bar on the terminal's standard error, which steps aside for everything else that is written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

    from enclap.captioner import Progress

DELAY = 0.7  # seconds before a bar appears: short work gets none, and does not pay for importing it


class ProgressBar:
    """Counts recordings; a long recording moves the bar by the share of it that is captioned.

    total: how many recordings there are; set it before the first update.
    """

    def __init__(self, wanted: bool) -> None:
        self.total = 0
        self._wanted = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._shows_from = time.monotonic() + DELAY
        self._bar: rich.progress.Progress | None = None

    def update(self, progress: Progress) -> None:
        """Show how far the work has come."""
        if not self._wanted or time.monotonic() < self._shows_from:
            return
        share = min(progress.seconds / progress.declared, 1.0) if progress.declared else 0.0
        if self._bar is None:
            from rich import progress as rich_progress
            from rich.console import Console

            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TextColumn("{task.fields[count]}"),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,  # captions are written there by us; rich would send them to its own console
                redirect_stderr=False,
            )
            self._bar.add_task("captioning", total=self.total, count="")
        self._bar.start()
        task = self._bar.task_ids[0]
        partly = f", {progress.seconds:.0f} s of the next" if progress.seconds else ""
        self._bar.update(task, completed=progress.done + share, count=f"{progress.done}/{self.total}{partly}")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Takes the bar off the screen while the block writes; the next update brings it back."""
        if self._bar is not None:
            self._bar.stop()
        yield

    def close(self) -> None:
        """Take the bar off the screen for good."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
