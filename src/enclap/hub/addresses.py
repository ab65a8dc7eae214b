"""Files from plain addresses, where no hub knows their size and hash: whoever fetches one checks it."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from enclap.errors import EnvironmentFault
from enclap.text import printable

SECONDS_WITHOUT_DATA = 60
BLOCK_BYTES = 2**20


def fetch_address(address: str, target: Path, most_bytes: int, remedy: str) -> None:
    """Write what a http address gives into the file `target`, whose content is not yet checked.

    remedy: what to do when it cannot be had. Raises EnvironmentFault when nobody answers, the connection breaks or more
    than most_bytes come; what came until then is left in the file.
    """
    shown = printable(address)
    try:
        with urllib.request.urlopen(address, timeout=SECONDS_WITHOUT_DATA) as answer, target.open("wb") as file:
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
