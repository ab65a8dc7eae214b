"""Results into what a plan names: standard output, files that appear whole, or a folder with files per recording."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from enclap.errors import EnvironmentFault, InputError
from enclap.files import is_file, is_stream, is_too_long, make_folders, replacement_file, sha256, translate_write_errors
from enclap.output.formats import FORMATS, Format, encode
from enclap.output.plan import STANDARD_OUTPUT, Plan
from enclap.output.resume_log import ResumeLog
from enclap.output.standard_output import discard_standard_output, write_standard_output
from enclap.text import printable
from enclap.types import CaptionResult

logger = logging.getLogger("enclap")


class Writer(Protocol):
    """Takes the results, each with the number of its input."""

    def write(self, number: int, result: CaptionResult) -> None:
        """Write one result everywhere that it belongs; InputError when its name is not one that can be written."""
        ...


@contextmanager
def open_writer(plan: Plan, model: str, log: ResumeLog | None, overwrite: bool) -> Iterator[Writer]:
    """The writer of a plan; documents take their names when the block ends well. model: its name, for the documents."""
    if plan.folder is not None:
        assert log is not None, "a folder has a resume log"
        yield _FolderWriter(plan, plan.folder, model, log, overwrite)
        return
    with ExitStack() as stack:
        documents = [_document(style, path, model, plan, log) for style, path in plan.documents]
        yield _DocumentWriter([stack.enter_context(document) for document in documents])


class _FolderWriter:
    """Files for each recording, in folders like those that the recordings come from."""

    def __init__(self, plan: Plan, folder: Path, model: str, log: ResumeLog, overwrite: bool) -> None:
        self._plan, self._folder, self._model, self._log, self._overwrite = plan, folder, model, log, overwrite

    def write(self, number: int, result: CaptionResult) -> None:
        for style in self._plan.formats:
            content = b"".join(FORMATS[style].encoded([result], self._model))
            try:
                self._put(self._folder / f"{self._plan.names[number]}{FORMATS[style].suffix}", content)
            except EnvironmentFault as fault:
                if not is_too_long(fault):
                    raise
                raise InputError(str(fault)) from fault  # the others can be written

    def _put(self, path: Path, content: bytes) -> None:
        """The file holds the content afterwards, unless it is there and someone else has written it."""
        name, digest = self._plan.logged_name(path), sha256(content)
        if is_file(path) and not self._overwrite:
            with translate_write_errors(path):
                present = sha256(path)
            if present == digest:
                return
            if present != self._log.written(name):
                logger.warning("%s: changed by someone else; kept, --overwrite replaces it", printable(str(path)))
                return
        with translate_write_errors(path.parent):
            make_folders(path.parent)
        self._log.announce(name, digest)
        with replacement_file(path) as file, translate_write_errors(path):
            file.write(content)


class _DocumentWriter:
    """Documents that hold all recordings together."""

    def __init__(self, documents: Sequence[_Document]) -> None:
        self._documents = documents

    def write(self, number: int, result: CaptionResult) -> None:
        for document in self._documents:
            try:
                document.add(result)
            except BrokenPipeError:  # whoever read this document has all they wanted; the others are to be completed
                if len(self._documents) == 1:
                    raise
                document.abandon()


class _Document:
    """One format's pieces, written as the results come."""

    def __init__(self, form: Format, model: str, write: Callable[[str], None], discard: Callable[[], None]) -> None:
        self._waiting: deque[CaptionResult] = deque()

        def results() -> Iterator[CaptionResult]:
            while self._waiting:
                yield self._waiting.popleft()

        self._pieces = form(results(), model)
        self._write: Callable[[str], None] | None = write
        self._discard = discard
        self._write_next()

    def add(self, result: CaptionResult) -> None:
        self._waiting.append(result)
        self._write_next()

    def close(self) -> None:
        """Write what comes after the last result."""
        self._write_next()

    def abandon(self) -> None:
        """Write no more."""
        self._write = None
        self._discard()

    def _write_next(self) -> None:
        piece = next(self._pieces)
        if self._write is not None:
            self._write(piece)


@contextmanager
def _document(style: str, path: str, model: str, plan: Plan, log: ResumeLog | None) -> Iterator[_Document]:
    if path == STANDARD_OUTPUT:
        document = _Document(FORMATS[style], model, write_standard_output, discard_standard_output)
        yield document
        document.close()
        return
    is_file = not is_stream(Path(path))
    with replacement_file(Path(path)) as file:

        def write(piece: str) -> None:
            with translate_write_errors(path):
                file.write(encode(piece))
                file.flush()  # a full disk shows now, not after hours

        document = _Document(FORMATS[style], model, write, lambda: None)
        yield document
        document.close()
        if log is not None and is_file:
            with translate_write_errors(path):
                digest = sha256(file)
            log.announce(plan.logged_name(Path(path)), digest)
