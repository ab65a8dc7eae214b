"""What tests of the command line share: a process that captions with the tiny model."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Protocol


class Run(Protocol):
    """Runs `enclap` with arguments; `caption` gets the tiny model."""

    def __call__(
        self, *arguments: str | Path | bytes, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]: ...
