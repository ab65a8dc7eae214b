"""Where captions go, decided and checked before any work is done."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from enclap.errors import EnvironmentFault, UsageError
from enclap.files import (
    descriptor_of,
    file_identity,
    is_file,
    is_folder,
    is_stream,
    is_too_long,
    require_parent,
    sha256,
    shortened,
    translate_write_errors,
)
from enclap.output.formats import FORMATS
from enclap.output.inputs import STANDARD_INPUT, Input, InputFile
from enclap.output.resume_log import ResumeLog
from enclap.text import printable

STANDARD_OUTPUT = "-"
RESUME_LOG_OF_FOLDER, RESUME_LOG_OF_FILE = ".enclap-done.jsonl", ".{name}.done.jsonl"
STDIN, STDOUT = 0, 1  # numbers of open files
LONGEST_NAME = 255 - max(len(form.suffix) for form in FORMATS.values())
"""Bytes of a file's name without its suffix, where names may have 255."""
SHORT_NAME = 100  # bytes of an output's name in the name of its resume log


@dataclass(frozen=True, slots=True)
class Plan:
    """Where captions are to go.

    documents: (format, path or "-") of what holds all recordings together. folder: of a file for each recording and
    each of `formats`. names: of these files without their suffix, one for each input, None where it led to nothing.
    """

    formats: tuple[str, ...]
    documents: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None
    names: tuple[str | None, ...] = ()

    def files(self) -> Iterator[Path]:
        """Every ordinary file that is going to be written."""
        if self.folder is None:
            paths = (Path(path) for _, path in self.documents if path != STANDARD_OUTPUT)
            yield from (path for path in paths if not is_stream(path))
            return
        for name in filter(None, self.names):
            yield from (self.folder / (name + FORMATS[style].suffix) for style in self.formats)

    @property
    def shown(self) -> str:
        """What the output is called in messages."""
        return str(self.folder or next(self.files()))

    def resume_log(self) -> Path | None:
        """The file that records what is done; None when nothing is kept."""
        if self.folder is not None:
            return self.folder / RESUME_LOG_OF_FOLDER
        first = next(self.files(), None)
        if first is None:
            return None
        real = Path(os.path.realpath(first))
        return real.with_name(RESUME_LOG_OF_FILE.format(name=shortened(real.name, SHORT_NAME)))

    def prepare(self) -> None:
        """Make the folder; UsageError when the folder that the output is to stand in is missing."""
        if self.folder is None:
            for path in self.files():
                require_parent(path)
            return
        require_parent(self.folder)
        if is_file(self.folder):
            raise UsageError(f"{printable(str(self.folder))}: is a file; name a folder, or leave out the slash")
        with translate_write_errors(self.folder):
            Path(os.path.realpath(self.folder)).mkdir(exist_ok=True)

    def check(self, log: ResumeLog | None, overwrite: bool) -> None:
        """Raises UsageError when a file is in the way that is not ours to replace, EnvironmentFault when none can be.

        log: knows which files are ours; None when none is.
        """
        refused = []
        for path in self.files():
            try:
                if not is_in_the_way(path) or overwrite:
                    continue
            except EnvironmentFault as fault:
                if self.folder is None or not is_too_long(fault):
                    raise
                continue  # concerns one recording, and is said when its captions are written
            written = None if log is None else log.written(self.logged_name(path))
            if self.folder is None and written is not None:  # in a folder whoever may have changed it since
                with translate_write_errors(path):
                    written = written if written == sha256(path) else None
            if written is None:
                refused.append(path)
        if refused:
            others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            advice = "--overwrite replaces it, --resume goes on where a run was cut off; or name another output"
            raise UsageError(f"{printable(str(refused[0]))}{others}: exists; {advice}")

    def logged_name(self, path: Path) -> str:
        """What the resume log calls an output: a path below the folder, or the file's own name, its links followed."""
        if self.folder is not None:
            return path.relative_to(self.folder).as_posix()
        real, first = Path(os.path.realpath(path)), Path(os.path.realpath(next(self.files())))
        return real.name if real.parent == first.parent else str(real)


def make_plan(formats: tuple[str, ...], outputs: Sequence[str], inputs: Sequence[Input]) -> Plan:
    """Where captions in these formats go, as `--output` says; UsageError when it does not say enough."""
    for output in outputs:
        if not output:
            raise UsageError("--output '': names nothing; give a file, FOLDER/, or - for standard output")
    if len(outputs) == 1 and names_folder(outputs[0]):
        plan = Plan(formats, folder=Path(outputs[0]), names=_names(inputs))
    else:
        plan = Plan(formats, tuple(zip(formats, _documents(formats, outputs), strict=True)))
        alone = [style for style in formats if FORMATS[style].one_recording]
        if alone and len(inputs) > 1:
            advice = f"describes one recording, these are {len(inputs)}; add --output FOLDER/"
            raise UsageError(f"--format {alone[0]} {advice}")
    uses_stdout = any(path == STANDARD_OUTPUT for _, path in plan.documents)
    refuse_inputs(chain(plan.files(), [STDOUT] if uses_stdout else []), inputs)
    return plan


def names_folder(output: str) -> bool:
    """Whether the path that was typed means a folder."""
    return is_folder(output) or output.endswith(("/", os.sep))


def is_in_the_way(path: Path) -> bool:
    """Whether there is a file at the path, or where it links to.

    Raises UsageError when it is a folder, EnvironmentFault when nothing can be written there.
    """
    with translate_write_errors(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            if path.is_symlink():
                require_parent(path)
            return False
    if stat.S_ISDIR(mode):
        raise UsageError(f"{printable(str(path))}: is a folder; name a file there, or another output")
    return True


def refuse_inputs(outputs: Iterable[Path | int], inputs: Sequence[Input]) -> None:
    """Raises UsageError when an output, a path or the number of an open file, is one of the recordings, by any name."""
    sources: dict[tuple[int, int] | None, str] = {}
    for found in inputs:
        if isinstance(found, InputFile):
            sources[file_identity(STDIN if found.path == STANDARD_INPUT else found.path)] = found.path
    sources.pop(None, None)
    for output in outputs if sources else ():
        source = sources.get(file_identity(output))
        if source is not None:
            shown = "standard output" if isinstance(output, int) else printable(str(output))
            raise UsageError(f"{shown}: is the recording {printable(source)}; name another output")


def _documents(formats: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """A path or "-" for each format, as typed or made of the one name that was typed.

    Raises UsageError when there are too few or too many, when one is a folder, or when two lead to one file.
    """
    needs = f"--format {','.join(formats)} needs an output for each"
    paths = list(outputs) or [STANDARD_OUTPUT]
    if len(outputs) == 1 and len(formats) > 1 and outputs[0] != STANDARD_OUTPUT:
        path = Path(outputs[0])
        stem = path.with_suffix("") if path.suffix in {form.suffix for form in FORMATS.values()} else path
        paths = [str(stem) + FORMATS[style].suffix for style in formats]
    elif len(paths) != len(formats):
        raise UsageError(f"{needs}; add --output FOLDER/, --output NAME, or {len(formats)} times --output FILE")
    for output in outputs if len(outputs) > 1 else ():
        if names_folder(output):
            raise UsageError(f"{printable(output)}: a folder takes all formats; name it alone, or name files")
    targets: list[object] = []  # what outputs that lead to one file have in common
    for name in paths:
        descriptor = STDOUT if name == STANDARD_OUTPUT else descriptor_of(Path(name))
        target: object = os.path.realpath(name) if descriptor is None else descriptor
        target = file_identity(name if descriptor is None else descriptor) or target
        if target in targets:
            raise UsageError(f"{needs}; two cannot share {printable(name)}")
        targets.append(target)
    return tuple(STANDARD_OUTPUT if descriptor_of(Path(path)) == STDOUT else path for path in paths)


def _names(inputs: Sequence[Input]) -> tuple[str | None, ...]:
    """deep/dog for deep/dog.wav; deep/dog.mp3, then deep/dog.mp3-2, when a recording before it had that name.

    They are compared without case, because some file systems do not tell Dog.srt from dog.srt.
    """
    taken: set[str] = set()
    names: list[str | None] = []
    for found in inputs:
        if not isinstance(found, InputFile):
            names.append(None)
            continue
        mirror = found.mirror
        wishes = chain([Path(mirror).with_suffix(""), Path(mirror)], (Path(f"{mirror}-{n}") for n in count(2)))
        fitting = (str(wish.with_name(shortened(wish.name, LONGEST_NAME))) for wish in wishes)
        name = next(name for name in fitting if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)
