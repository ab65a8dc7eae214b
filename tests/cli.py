"""What tests of the command line share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Done:
    """How a run of `enclap` ended."""

    returncode: int
    stdout: str
    stderr: str


class Run(Protocol):
    """Runs `enclap` with arguments; `caption` gets the tiny model unless the arguments name one."""

    def __call__(self, *arguments: str | Path | bytes, stdin: bytes = b"") -> Done: ...
