"""A question to a library, with the model that the library was made with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from enclap.captioner import Captioner
from enclap.errors import ModelError
from enclap.search.copies import find_copies
from enclap.search.hearing import require_text_tower
from enclap.search.library import Library
from enclap.search.likeness import search_like
from enclap.search.listing import Hit, list_copies, list_hits
from enclap.search.query import Filters, search_words
from enclap.search.words import check_words


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: one of words, the path of a recording, and copies; see `search_words` for the rest."""

    words: str | None
    like: str | None
    copies: bool
    limit: int
    filters: Filters
    segments: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What runs the model; see `Captioner.from_pretrained`. model: None for the library's own."""

    model: str | None = None
    engine: str = "auto"
    device: str = "auto"
    threads: int | None = None


def answer(path: Path, question: Question, style: str, run: Run) -> str:
    """What the library at `path` answers, in a format of `listing`."""
    if question.words is not None:
        check_words(question.words)
    library = Library.open(path)
    folder = library.folder
    if question.copies:
        pairs = find_copies(library)
        return list_copies(style, [replace(p, path=str(folder / p.path), of=str(folder / p.of)) for p in pairs])
    hits = find(library, library_model(library, run), question)
    return list_hits(style, [replace(hit, path=str(folder / hit.path)) for hit in hits])


def find(library: Library, captioner: Captioner, question: Question) -> list[Hit]:
    """The hits for words or a recording, their paths below the library's folder."""
    limit, filters, segments = question.limit, question.filters, question.segments
    if question.words is not None:
        return search_words(library, captioner.engine, question.words, limit, filters, segments=segments)
    return search_like(library, captioner, question.like or "", limit, filters, segments=segments)


def library_model(library: Library, run: Run) -> Captioner:
    """The model whose embeddings the library holds, loaded.

    Raises UsageError when the model of that name has others now, ModelError when it is not there.
    """
    name = run.model or library.facts.model
    captioner = Captioner.from_pretrained(name, run.engine, run.device, threads=run.threads)
    if captioner.folder is None:
        raise ModelError(f"{name}: has no folder, so nobody can tell whether the library is of it")
    require_text_tower(captioner.engine, name)
    library.require_space(captioner.folder)
    return captioner
