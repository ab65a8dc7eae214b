"""What tests of the command line share."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enclap.cli.output import LEDGER_OF_FOLDER


@dataclass(frozen=True)
class Done:
    """How a run of `enclap` ended."""

    returncode: int
    stdout: str
    stderr: str


def hear_ctrl_c() -> None:
    """For preexec_fn: SIGINT as a foreground program has it; a shell hands it to what it runs behind as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run(Protocol):
    """Runs `enclap` with arguments; `caption` gets the tiny model unless the arguments name one."""

    def __call__(self, *arguments: str | Path | bytes, stdin: bytes = b"") -> Done: ...


def written(folder: Path) -> list[str]:
    """The files below an output folder, without the record of what is done."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LEDGER_OF_FOLDER)
    return sorted(path.relative_to(folder).as_posix() for path in files)
