"""Files at addresses (s3://, gs://, hf:// and others) through fsspec, or pyarrow where fsspec lacks a driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from enclap.errors import AudioNotFound, DataError, MissingExtra
from enclap.text import first_line, printable

SCHEMES = ("s3", "gs", "gcs", "hf", "abfs", "az", "http", "https", "memory")
"""Of addresses that are opened. fsspec knows more, some of which run programs, unpack archives or chain others."""


def is_address(name: str) -> bool:
    """Whether a name is an address and not a path."""
    scheme, found, rest = name.partition("://")
    return bool(found) and scheme in SCHEMES and "::" not in rest


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, as fsspec has them, and the path in it.

    Raises what the driver raises, MissingExtra without fsspec.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra("an address as a source", "batch") from error
    try:
        return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]
    except ImportError:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        try:
            inner, path = FileSystem.from_uri(address)
        except Exception:
            inner = None
        if inner is None:
            raise
        return ArrowFSWrapper(inner), path


def remote_files(address: str) -> Iterator[tuple[str, str]]:
    """The addresses that a glob matches or a folder holds, in order of name, each with its size as a stamp.

    DataError when the place cannot be listed.
    """
    scheme = address.partition("://")[0]
    try:
        files, path = file_system(address)
        listed = files.glob(path, detail=True) if any(sign in path for sign in "*?[") else files.find(path, detail=True)
    except Exception as error:  # whatever a driver raises
        raise DataError(f"{printable(address)}: cannot be listed: {first_line(error)}") from error
    if not listed:
        raise DataError(f"{printable(address)}: no files there")
    for name in sorted(listed):
        if listed[name].get("type") != "directory":
            yield (
                f"{scheme}://{name.lstrip('/')}" if scheme != "memory" else f"memory://{name}",
                str(listed[name].get("size") or ""),
            )


def open_address(address: str) -> Any:
    """The file at an address, open for reading; AudioNotFound says why it cannot be opened."""
    try:
        files, path = file_system(address)
        return files.open(path, "rb")
    except FileNotFoundError as error:
        raise AudioNotFound(f"{printable(address)}: no such file") from error
    except MissingExtra:
        raise
    except Exception as error:  # whatever a driver raises
        raise AudioNotFound(f"{printable(address)}: cannot be opened: {first_line(error)}") from error
