"""What the package logs, as lines on standard error while a command runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from enclap.cli.exit import print_error
from enclap.cli.progress import ProgressBar


@contextmanager
def messages_shown(
    bar: ProgressBar | None = None, *, quiet: bool = False, verbose: bool = False, levels: bool = True
) -> Iterator[None]:
    """Shows what is logged, as much as was asked for, beside the bar, which is closed in the end.

    levels: whether each line says "warning: " or "info: ".
    """
    bar = bar or ProgressBar(wanted=False)
    logger = logging.getLogger("enclap")
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    handler = _LineHandler(bar, level, levels)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        bar.close()
        logger.removeHandler(handler)
        logger.setLevel(before)


class _LineHandler(logging.Handler):
    """Writes each message as one line on standard error, beside the bar."""

    def __init__(self, bar: ProgressBar, level: int, levels: bool) -> None:
        super().__init__(level)
        self._bar = bar
        self._levels = levels

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        prefix = f"{record.levelname.lower()}: " if self._levels else ""
        with self._bar.aside():
            print_error(prefix + record.getMessage())
