"""Standard output, written piece by piece."""

from __future__ import annotations

import os
import sys

from enclap.errors import EnvironmentFault
from enclap.files import translate_write_errors


def write_standard_output(piece: str) -> None:
    """Write to standard output at once; EnvironmentFault when that fails, after which nothing more is tried."""
    if sys.stdout is None:
        raise EnvironmentFault("standard output: is closed; leave it open, or add --output FILE")
    try:
        with translate_write_errors("standard output"):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except EnvironmentFault:
        discard_standard_output()
        raise


def discard_standard_output() -> None:
    """Point standard output at nothing: Python's last flush would complain about what it cannot write."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
