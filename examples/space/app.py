"""The page of captions as a Hugging Face Space, which anybody may use; it runs like this on any machine too."""

from __future__ import annotations

import os
import sys

from enclap.cli.main import main

LIMITS = ["--max-upload", "64MB", "--max-seconds", "1800", "--queue", "8"]
"""A Space has two cores and many visitors. No `--rate`: behind its proxy all of them are one client."""


def arguments() -> list[str]:
    """What `enclap serve` is started with; a Space tells the name by which it is reached in SPACE_HOST."""
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    host = os.environ.get("SPACE_HOST")
    reached = ["--host", "0.0.0.0", "--allow-anonymous", "--allowed-host", host] if host else []
    return ["serve", "--port", port, *reached, *LIMITS]


if __name__ == "__main__":
    sys.argv[1:] = arguments()
    main()
