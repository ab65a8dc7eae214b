"""How a command ends: one line on standard error and the right exit code, no traceback for a mistake."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from enclap.errors import EnclapError, EnvironmentFault
from enclap.text import printable

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

SOME_FAILED = 1  # exit code when some inputs were not captioned
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def print_error(message: str) -> None:
    """Write one line to standard error."""
    if sys.stderr is not None:
        print(printable(message), file=sys.stderr, flush=True)  # noqa: T201


def handle_errors(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The command, with its faults turned into one line and an exit code."""

    @functools.wraps(command)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with errors_handled():
            return command(*args, **kwargs)

    return guarded


@contextmanager
def errors_handled() -> Iterator[None]:
    """Turns our errors, Ctrl-C, a closed pipe and too little memory into SystemExit with the right exit code."""
    try:
        yield
    except SystemExit:
        raise
    except KeyboardInterrupt as error:
        print_error("enclap: interrupted")
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError as error:
        from enclap.output.standard_output import discard_standard_output

        discard_standard_output()
        raise SystemExit(0) from error  # the reader has all it wanted
    except BaseException as error:  # the tokenizers' panics are no Exception
        from enclap.cli.memory import SHORTAGE, is_shortage

        if is_shortage(error):
            fault: EnclapError = EnvironmentFault(SHORTAGE)
        elif isinstance(error, EnclapError):
            fault = error
        elif isinstance(error, OSError) and isinstance(error.filename, str | bytes):  # a path that no code has checked
            reason = error.strerror or type(error).__name__
            fault = EnvironmentFault(f"{os.fsdecode(error.filename)}: {reason}; check the path and its permissions")
        else:
            raise  # a fault of the program, whose traceback must be seen
        print_error(f"enclap: {fault}")
        raise SystemExit(fault.exit_code) from error
