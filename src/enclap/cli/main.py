"""The entry point of the command line; it imports next to nothing, so that an early Ctrl-C ends in one line too."""

from __future__ import annotations

import os
import sys
from typing import Any

from enclap.cli.exit import INTERRUPTED, errors_handled, print_error


def main() -> None:
    """Run the command line; the process ends with the exit code. A wrong option is reported in one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 shows escapes instead of failing
            stream.reconfigure(errors="backslashreplace")
    # numpy's OpenBLAS: its products here are small, and after each its threads wait for the next by computing nothing,
    # on the cores that the model and the decoder want. Read when numpy is imported; workers inherit it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with errors_handled():
        import typer

        from enclap.cli.app import app

        wrong_usage: Any = typer.BadParameter.__mro__[1]  # click's UsageError, which typer keeps under a private name
        try:
            code = app(prog_name="enclap", standalone_mode=False) or 0
        except typer.Abort as error:
            raise KeyboardInterrupt from error
        except wrong_usage as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                context = getattr(error, "ctx", None)
                path = "enclap" if context is None else context.command_path
                message = error.format_message().rstrip(".")
                print_error(f"{path}: {message[:1].lower()}{message[1:]}; see {path} --help")
            code = int(error.exit_code)
        else:
            if code == INTERRUPTED:  # what typer makes of Ctrl-C outside of our commands, without a word
                raise KeyboardInterrupt
        sys.exit(code)


if __name__ == "__main__":
    main()
