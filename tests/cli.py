"""What tests of the command line share."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import termios
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def receive_ctrl_c() -> None:
    """For preexec_fn: SIGINT as a foreground program has it; what a shell runs in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_terminal(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> Done:
    """How a command ended whose standard error is a terminal."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 80))
    settings = {**environment, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=side, env=settings, text=True) as process:
        os.close(side)
        with ThreadPoolExecutor(1) as pool:
            shown = pool.submit(_read_terminal, main)  # meanwhile: a terminal that nobody reads takes 4096 bytes
            output, _ = process.communicate(timeout=100)
    os.close(main)
    return Done(process.returncode, output, shown.result().decode())


def _read_terminal(descriptor: int) -> bytes:
    shown = b""
    while True:
        try:
            shown += os.read(descriptor, 65_536)
        except OSError:  # Linux's way to say that the other side is closed
            return shown


def unprivileged(command: Sequence[str]) -> list[str]:
    """The command, but with permissions in force: the superuser's right to pass over them is a capability."""
    if os.geteuid() != 0:
        return list(command)
    program = shutil.which("setpriv")
    assert program, "this test needs setpriv when it runs as root"
    return [program, "--bounding-set", "-dac_override,-dac_read_search", *command]


class Run(Protocol):
    """Runs `enclap` with arguments; `caption` gets the tiny model unless the arguments name one."""

    def __call__(self, *arguments: str | Path | bytes, stdin: bytes = b"") -> Done: ...


def written(folder: Path) -> list[str]:
    """The files below an output folder, without the record of what is done."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RESUME_LOG_OF_FOLDER)
    return sorted(path.relative_to(folder).as_posix() for path in files)
