"""Where captions go: standard output, files that appear whole, or a folder with files for each recording."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Protocol

from enclap.cli.exit import discard_output
from enclap.errors import AudioNotFound, UsageError
from enclap.files import file_hash, is_special, need_folder, replacing, write_standard_output, writing
from enclap.output.formats import FORMATS, Format
from enclap.output.inputs import Recording
from enclap.output.resume import ResumeLog
from enclap.text import printable
from enclap.types import CaptionResult

logger = logging.getLogger("enclap")

STANDARD_OUTPUT = "-"
RESUME_LOG_OF_FOLDER, RESUME_LOG_OF_FILE = ".enclap-done.jsonl", ".{name}.done.jsonl"


class Places(Protocol):
    """Takes the results, each with the number of its input."""

    def write(self, number: int, result: CaptionResult) -> None:
        """Write one result everywhere that it belongs."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Where captions are to go.

    documents: (format, path or "-") of what holds all recordings together. folder: of a file for each recording and
    each of `styles`. names: of these files without their suffix, one for each input, None where it led to nothing.
    """

    styles: tuple[str, ...]
    documents: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None
    names: tuple[str | None, ...] = ()

    def files(self) -> Iterator[Path]:
        """Every ordinary file that is going to be written."""
        if self.folder is None:
            paths = (Path(path) for _, path in self.documents if path != STANDARD_OUTPUT)
            yield from (path for path in paths if not is_special(path))
            return
        for name in filter(None, self.names):
            yield from (self.folder / (name + FORMATS[style].suffix) for style in self.styles)

    def ledger(self) -> Path | None:
        """Where the record of what is done stands; None when nothing is kept."""
        if self.folder is not None:
            return self.folder / RESUME_LOG_OF_FOLDER
        first = next(self.files(), None)
        return first and first.with_name(RESUME_LOG_OF_FILE.format(name=first.name))

    def prepare(self) -> None:
        """Make the folder; UsageError when what it stands in is missing."""
        for path in [self.folder] if self.folder is not None else self.files():
            need_folder(path)
        if self.folder is not None:
            with writing(str(self.folder)):
                self.folder.mkdir(exist_ok=True)

    @contextmanager
    def opened(self, model: str, ledger: ResumeLog | None, overwrite: bool) -> Iterator[Places]:
        """The places; documents take their names when the block ends well."""
        if self.folder is not None:
            assert ledger is not None, "a folder has a ledger"
            yield _Tree(self, model, ledger, overwrite)
            return
        with ExitStack() as stack:
            yield _Documents([stack.enter_context(_document(*item, model, ledger)) for item in self.documents])


def planned(styles: tuple[str, ...], outputs: Sequence[str], inputs: Sequence[Recording | AudioNotFound]) -> Plan:
    """Where captions in these formats go, as `--output` says; UsageError when it does not say enough."""
    if len(outputs) == 1 and names_folder(outputs[0]):
        return Plan(styles, folder=Path(outputs[0]), names=_names(inputs))
    plan = Plan(styles, tuple(zip(styles, _paths(styles, outputs), strict=True)))
    lonely = [style for style in styles if FORMATS[style].one_recording]
    if lonely and len(inputs) > 1:
        raise UsageError(f"--format {lonely[0]} describes one recording, these are {len(inputs)}; add --output FOLDER/")
    return plan


def names_folder(output: str) -> bool:
    """Whether the path that was typed means a folder."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def refuse_existing(plan: Plan, ledger: ResumeLog | None) -> None:
    """Raises UsageError when a file is in the way that is not ours to replace, before any work is done.

    ledger: None when nothing may be replaced.
    """
    found = [path for path in plan.files() if os.path.lexists(path) and not _is_ours(path, plan, ledger)]
    if found:
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        advice = "--overwrite replaces it, --resume goes on where a run was cut off; or name another output"
        raise UsageError(f"{printable(str(found[0]))}{others}: exists; {advice}")


def _is_ours(path: Path, plan: Plan, ledger: ResumeLog | None) -> bool:
    """Whether we wrote the file: in a folder whoever may have changed it since, a document as it is."""
    if ledger is None:
        return False
    if plan.folder is not None:
        return ledger.written(_relative(path, plan.folder)) is not None
    with path.open("rb") as file:
        return ledger.written(path.name) == file_hash(file)


def _paths(styles: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """A path or "-" for each format."""
    listed = ",".join(styles)
    if not outputs and len(styles) == 1:
        return (STANDARD_OUTPUT,)
    if len(outputs) == 1 and len(styles) > 1 and outputs[0] != STANDARD_OUTPUT:
        suffixes = {form.suffix for form in FORMATS.values()}
        path = Path(outputs[0])
        stem = path.with_suffix("") if path.suffix in suffixes else path
        return tuple(str(stem) + FORMATS[style].suffix for style in styles)
    if len(outputs) != len(styles):
        advice = f"add --output FOLDER/, --output NAME, or {len(styles)} times --output FILE"
        raise UsageError(f"--format {listed} needs a place for each; {advice}")
    for output in outputs:
        if len(outputs) > 1 and names_folder(output):
            raise UsageError(f"{printable(output)}: a folder takes all formats; name it alone, or name files")
    if len({Path(output) for output in outputs}) < len(outputs):
        raise UsageError(f"--format {listed} needs a place for each; two cannot share {printable(outputs[0])}")
    return tuple(outputs)


def _names(inputs: Sequence[Recording | AudioNotFound]) -> tuple[str | None, ...]:
    """deep/dog for deep/dog.wav; deep/dog.mp3, then deep/dog.mp3-2, when a recording before it had that name.

    They are compared without case, because some file systems do not tell Dog.srt from dog.srt.
    """
    taken: set[str] = set()
    names: list[str | None] = []
    for found in inputs:
        if not isinstance(found, Recording):
            names.append(None)
            continue
        mirror = found.mirror
        choices = chain([str(Path(mirror).with_suffix("")), mirror], (f"{mirror}-{number}" for number in count(2)))
        name = next(choice for choice in choices if choice.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


class _Tree:
    """A folder with files for each recording, in the shape of the folder that they come from."""

    def __init__(self, plan: Plan, model: str, ledger: ResumeLog, overwrite: bool) -> None:
        assert plan.folder is not None
        self._plan, self._folder = plan, plan.folder
        self._model, self._ledger, self._overwrite = model, ledger, overwrite

    def write(self, number: int, result: CaptionResult) -> None:
        for style in self._plan.styles:
            content = _encoded("".join(FORMATS[style]([result], self._model)))
            self._put(self._folder / f"{self._plan.names[number]}{FORMATS[style].suffix}", content)

    def _put(self, path: Path, content: bytes) -> None:
        """The file holds the content afterwards, unless it is there and someone else has written it."""
        name = _relative(path, self._folder)
        if os.path.lexists(path) and not self._overwrite:
            with writing(str(path)), path.open("rb") as file:
                present = file_hash(file)
            if present == _hash(content):
                return
            if present != self._ledger.written(name):
                logger.warning("%s: changed by someone else; kept, --overwrite replaces it", printable(str(path)))
                return
        with writing(str(path.parent)):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._ledger.announce(name, _hash(content))
        with replacing(path) as file, writing(str(path)):
            file.write(content)


class _Documents:
    """Documents that hold all recordings together."""

    def __init__(self, documents: Sequence[_Document]) -> None:
        self._documents = documents

    def write(self, number: int, result: CaptionResult) -> None:
        for document in self._documents:
            try:
                document.add(result)
            except BrokenPipeError:  # whoever read standard output has all they wanted; the files have not
                if len(self._documents) == 1:
                    raise
                document.abandon()


class _Document:
    """One format's pieces, written as the results come."""

    def __init__(self, form: Format, model: str, write: Callable[[str], None]) -> None:
        self._waiting: deque[CaptionResult] = deque()
        self._pieces = form(self._results(), model)
        self._write: Callable[[str], None] | None = write
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
        discard_output()

    def _results(self) -> Iterator[CaptionResult]:
        while self._waiting:
            yield self._waiting.popleft()

    def _write_next(self) -> None:
        piece = next(self._pieces)
        if self._write is not None:
            self._write(piece)


@contextmanager
def _document(style: str, path: str, model: str, ledger: ResumeLog | None) -> Iterator[_Document]:
    if path == STANDARD_OUTPUT:
        document = _Document(FORMATS[style], model, write_standard_output)
        yield document
        document.close()
        return
    with replacing(Path(path)) as file:

        def write(piece: str) -> None:
            with writing(path):
                file.write(_encoded(piece))
                file.flush()  # a full disk shows now, not after hours

        document = _Document(FORMATS[style], model, write)
        yield document
        document.close()
        if ledger is not None and not is_special(Path(path)):
            with writing(path):
                content = file_hash(file)
            ledger.announce(Path(path).name, content)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
