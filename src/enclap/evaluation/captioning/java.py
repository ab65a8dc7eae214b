"""Java found and run, always with a limit of time: what crashes or hangs is an error with the reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enclap.errors import EnvironmentFault
from enclap.text import printable

OLDEST, NEWEST = 8, 21  # major versions that the jars run on
VERSION = re.compile(r'version "(?:1\.)?(\d+)[^"]*"')
VERSION_SECONDS = 60.0
INSTALL = f"install Java {OLDEST} to {NEWEST} (Debian: apt install openjdk-17-jre-headless)"
UTF8 = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
"""What Java reads and writes, whatever the locale says."""
REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that is installed: the program, its major version, and what it says about itself."""

    program: str
    major: int
    version: str


def find_java() -> Java:
    """The Java of JAVA_HOME, or the first on the path; EnvironmentFault when there is none that the jars run on."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=str(Path(home, "bin"))) if home else shutil.which("java")
    if program is None:
        raise EnvironmentFault(f"Java is missing{' in JAVA_HOME' if home else ''}; {INSTALL}")
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{printable(program)}: does not run ({type(error).__name__}); {INSTALL}") from error
    found = VERSION.search(done.stderr + done.stdout)
    if done.returncode or found is None:
        raise EnvironmentFault(f"{printable(program)}: does not say its version; {INSTALL}")
    if not OLDEST <= int(found[1]) <= NEWEST:
        raise EnvironmentFault(f"{printable(program)}: Java {found[1]}; {INSTALL}, and point JAVA_HOME at it")
    return Java(program, int(found[1]), (done.stderr + done.stdout).splitlines()[0])


def run_java(java: Java, arguments: Sequence[str], name: str, seconds: float, text: str = "") -> str:
    """What a Java program called `name` prints when it is given `text`; EnvironmentFault when it fails or is too slow.

    seconds: after which it is ended.
    """
    command = [java.program, *UTF8, *arguments]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(_too_slow(name, seconds)) from error
    except OSError as error:
        raise EnvironmentFault(f"{name}: Java cannot be started: {error.strerror or error}") from error
    if done.returncode:
        raise EnvironmentFault(_failed(name, done.returncode, done.stderr))
    return done.stdout.decode("utf-8", "replace")


class JavaDialogue:
    """A Java program that answers line by line."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path, name: str, seconds: float) -> None:
        self._process = process
        self._errors = errors
        self._name = name
        self._seconds = seconds

    def ask(self, lines: Sequence[str], answers: int) -> list[str]:
        """So many lines of answer to these lines; EnvironmentFault when the program ends or hangs instead.

        Ask so little at once that the answers fit into the buffer of a pipe (64 KiB).
        """
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            self._process.kill()

        watch = threading.Timer(self._seconds, end)
        watch.start()
        try:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
            self._process.stdin.flush()
            found = [self._process.stdout.readline() for _ in range(answers)]
        except BrokenPipeError:
            found = [b""]
        finally:
            watch.cancel()
        if overdue.is_set():
            raise EnvironmentFault(_too_slow(self._name, self._seconds))
        if not all(found):
            raise EnvironmentFault(_failed(self._name, self._process.wait(), self._errors.read_bytes()))
        return [line.decode("utf-8", "replace").strip() for line in found]


@contextmanager
def java_dialogue(java: Java, arguments: Sequence[str], name: str, seconds: float) -> Iterator[JavaDialogue]:
    """A Java program to ask, ended after the block. seconds: that it may take for one answer."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder, "errors")
        with errors.open("wb") as file:
            command = [java.program, *UTF8, *arguments]
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file)
            except OSError as error:
                raise EnvironmentFault(f"{name}: Java cannot be started: {error.strerror or error}") from error
        try:
            yield JavaDialogue(process, errors, name, seconds)
        finally:
            process.kill()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not yet sent has no reader any more
            process.wait()


def _too_slow(name: str, seconds: float) -> str:
    return f"{name}: Java gave no answer in {seconds:g} s and was ended; allow more with --time-limit"


def _failed(name: str, code: int, errors: bytes) -> str:
    """That a program failed, with the line of its errors that says most."""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if "Exception" in line or "Error" in line]
    reason = (telling or lines or ["it says no more"])[0][:REASON_LENGTH]
    return printable(f"{name}: Java ended with exit code {code} ({reason})")
