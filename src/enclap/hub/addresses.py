"""Files from plain addresses, where no hub knows their size and hash: whoever fetches one checks it."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from enclap.errors import EnvironmentFault
from enclap.text import printable

SECONDS_WITHOUT_DATA = 60
BLOCK_BYTES = 2**20


def fetch_file(source: str, target: Path, most_bytes: int, remedy: str) -> None:
    """Write what a source gives into the file `target`; the content is not checked yet.

    source: a http address, or a file that is here. remedy: what to do when an address does not give it. Raises
    EnvironmentFault when nobody answers, the connection breaks, more than most_bytes come or the file cannot be read;
    what came until then is left in `target`.
    """
    shown = printable(source)
    if not source.startswith(("https://", "http://")):
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise EnvironmentFault(f"{shown}: cannot be read: {error.strerror or error}") from error
        return
    try:
        with urllib.request.urlopen(source, timeout=SECONDS_WITHOUT_DATA) as answer, target.open("wb") as file:
            size = copy_at_most(answer, file, most_bytes, shown)
            stated = answer.headers.get("Content-Length")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = printable(str(getattr(error, "reason", error)))
        raise EnvironmentFault(f"{shown}: cannot be fetched ({reason}); {remedy}") from error
    if stated is not None and stated.isdecimal() and size < int(stated):
        raise EnvironmentFault(f"{shown}: cannot be fetched (the connection broke after {size} bytes); {remedy}")


def copy_at_most(source: IO[bytes], target: IO[bytes], most_bytes: int, shown: str) -> int:
    """The number of bytes that were copied; EnvironmentFault when there are more than so many."""
    size = 0
    while block := source.read(BLOCK_BYTES):
        size += len(block)
        if size > most_bytes:
            raise EnvironmentFault(f"{shown}: is larger than {most_bytes} bytes; this is not what was asked for")
        target.write(block)
    return size
