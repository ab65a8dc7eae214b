"""What tests of the command line share."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enclap.output.plan import RESUME_LOG_OF_FOLDER


@dataclass(frozen=True)
class Done:
    """How a run of `enclap` ended."""

    returncode: int
    stdout: str
    stderr: str


def hear_ctrl_c() -> None:
    """For preexec_fn: SIGINT as a foreground program has it; a shell hands it to what it runs behind as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_terminal(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> Done:
    """How a command ended whose standard error is a terminal."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 80))
    settings = {**environment, "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=side, env=settings, text=True)
    os.close(side)
    output, _ = process.communicate(timeout=100)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65_536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        shown += piece
    os.close(main)
    return Done(process.returncode, output, shown.decode())


class Run(Protocol):
    """Runs `enclap` with arguments; `caption` gets the tiny model unless the arguments name one."""

    def __call__(self, *arguments: str | Path | bytes, stdin: bytes = b"") -> Done: ...


def written(folder: Path) -> list[str]:
    """The files below an output folder, without the record of what is done."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RESUME_LOG_OF_FOLDER)
    return sorted(path.relative_to(folder).as_posix() for path in files)
