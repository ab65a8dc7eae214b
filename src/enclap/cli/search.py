"""`enclap search`: sounds of a library by words, by another sound, or by their copies."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName
from enclap.errors import UsageError


class HitFormat(StrEnum):
    """The formats of `enclap.search.listing`."""

    text = "text"
    json = "json"
    csv = "csv"
    m3u = "m3u"


Library = Annotated[Path, typer.Argument(metavar="LIBRARY", help="What `enclap index` has made.")]
Words = Annotated[str | None, typer.Argument(metavar="WORDS", help="What is to be heard, in quotes.")]
Like = Annotated[str | None, typer.Option("--like", metavar="FILE", help="Find what sounds like this recording.")]
Duplicates = Annotated[bool, typer.Option("--duplicates", help="List files that hold the same sound, and where.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="N", help="Number of hits at most.")]
Format = Annotated[HitFormat, typer.Option("--format", "-f", help="Output format; m3u is a list that players play.")]
Segments = Annotated[bool, typer.Option("--segments", help="Show every part that fits, not each file once.")]
Below = Annotated[str | None, typer.Option("--folder", metavar="DIR", help="Only files below this one of its folders.")]
Shortest = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Only recordings at least so long.")]
Longest = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Only recordings at most so long.")]
Since = Annotated[str | None, typer.Option(metavar="DAY", help="Only files changed on this day or later: 2026-11-27.")]
Until = Annotated[str | None, typer.Option(metavar="DAY", help="Only files changed on this day or earlier.")]
LeastScore = Annotated[float, typer.Option("--min-score", min=0, max=1, metavar="P", help="Least score of a hit.")]
SameModel = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="The model of the library, if it lies elsewhere now.")
]


def search(
    library: Library,
    words: Words = None,
    like: Like = None,
    duplicates: Duplicates = False,
    limit: Limit = 20,
    style: Format = HitFormat.text,
    segments: Segments = False,
    folder: Below = None,
    min_duration: Shortest = None,
    max_duration: Longest = None,
    since: Since = None,
    until: Until = None,
    min_score: LeastScore = 0.0,
    model: SameModel = None,
    engine: options.Engine = EngineName.auto,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Find sounds by words, by another sound, or find copies.

    Sound, captions and file names all count. The score is the probability
    that a hit fits. Needs the extra search.

    \b
    Examples:
      enclap search library "water dripping in a cave"
      enclap search library "dog" --limit 5 --format m3u > dogs.m3u
      enclap search library --like bark.wav
      enclap search library --duplicates --format csv

    \b
    Exit codes: 0 done, 1 the recording of --like fails, 2 wrong usage,
    3 model or library, 130 interrupted.
    """
    if [words is not None, like is not None, duplicates].count(True) != 1:
        raise UsageError("give one of WORDS, --like FILE and --duplicates")
    if duplicates and style is HitFormat.m3u:
        raise UsageError("--duplicates lists pairs, which m3u cannot hold; use text, json or csv")
    from enclap.cli.extras import require_extra
    from enclap.cli.messages import messages_shown
    from enclap.output.standard_output import write_standard_output

    require_extra("enclap search", "search", "lancedb")
    from enclap.search.asking import Question, Run, answer
    from enclap.search.query import Filters, parse_day

    days = [text and parse_day(text, option) for text, option in ((since, "--since"), (until, "--until"))]
    filters = Filters(folder, min_duration, max_duration, days[0] or None, days[1] or None, min_score)
    question = Question(words, like, duplicates, limit, filters, segments)
    with messages_shown():
        write_standard_output(answer(library, question, style.value, Run(model, engine.value, device, threads)))
