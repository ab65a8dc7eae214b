"""SHA-256 of files and bytes, and names cut to a length that every file system takes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO


def sha256(*contents: Path | BinaryIO | bytes) -> str:
    """SHA-256, in hexadecimal, of files, whole open files and bytes, one after the other."""
    digest = hashlib.sha256()
    for content in contents:
        if isinstance(content, bytes):
            digest.update(content)
        elif isinstance(content, Path):
            with content.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        else:
            content.seek(0)
            hashlib.file_digest(content, lambda: digest)  # type: ignore[arg-type]  # BinaryIO lacks readinto
    return digest.hexdigest()


def shortened(name: str, most: int) -> str:
    """The name, or where it has more than `most` bytes, its beginning and a hash of it in so many bytes."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    mark = f"~{sha256(encoded)[:8]}"
    return encoded[: most - len(mark)].decode("utf-8", "ignore") + mark
