"""The command line's front door; it imports next to nothing, so that an early Ctrl-C ends in one line too."""

from __future__ import annotations

import sys

from enclap.cli.endings import endings


def main() -> None:
    """Run the command line; the process ends with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 shows escapes instead of failing
            stream.reconfigure(errors="backslashreplace")
    with endings():
        from enclap.cli.app import app

        app(prog_name="enclap")


if __name__ == "__main__":
    main()
