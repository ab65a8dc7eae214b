"""`enclap rate`: people judge captions on a page, and what they said becomes a report."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from enclap.cli.exit import handle_errors, print_error
from enclap.errors import MissingExtra, UsageError

EVERYWHERE = {"0.0.0.0", "::"}
PAGE = "page"

Predictions = Annotated[list[str], typer.Argument(metavar="FILE...", help="Captions of a system each, or NAME=FILE.")]
References = Annotated[str, typer.Option(metavar="FILE", help="What people wrote of the same clips.")]
Recordings = Annotated[str, typer.Option(metavar="DIR", help="The recordings, under the names of the clips.")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Keeps the study and all answers.")]
Clips = Annotated[int, typer.Option(min=1, metavar="N", help="Drawn when there are more.")]
Raters = Annotated[int, typer.Option(min=1, max=50, metavar="N", help="Each gets a code.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Of what is drawn.")]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Other machines reach it unless this is loopback.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, metavar="N", help="0 lets the system choose.")]
ReportFolder = Annotated[
    str | None, typer.Option("--output", "-o", metavar="DIR", help="For the report; DIR/report unless given.")
]
Resamples = Annotated[int, typer.Option(min=10, max=100_000, metavar="N", help="Of the bootstrap.")]


class PageUnlessNamed(TyperGroup):
    """Takes what names no command for the arguments of the page, so that files may follow `enclap rate` at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with the name of the command before them."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [PAGE, *args]
        return super().parse_args(ctx, args)


rate = typer.Typer(cls=PageUnlessNamed, no_args_is_help=True)


@rate.callback()
def _rate() -> None:
    """Let people rate captions: enclap rate FILE ... --references FILE --audio DIR --output DIR.

    \b
    Examples:
      enclap rate mini.csv other.csv --references test.csv --audio sounds \\
          --output ratings
      enclap rate report ratings
    """


@rate.command(PAGE)
@handle_errors
def page(
    predictions: Predictions,
    references: References,
    audio: Recordings,
    output: Output,
    clips: Clips = 100,
    raters: Raters = 5,
    seed: Seed = 0,
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Serve the page; `page` may be left out.

    A link and the raters' codes are printed; send each rater the link and one
    code. The same command goes on with a study. Needs extras eval and serve.
    """
    try:
        from enclap.rating.answers import ANSWERS, AnswerStore
        from enclap.rating.server import build_app, listen
        from enclap.rating.study import choose_clips, open_study
    except ModuleNotFoundError as error:
        raise MissingExtra("enclap rate", "serve") from error
    from enclap.evaluation.captioning.tables import read_predictions, read_references

    systems = {name: read_predictions(path) for name, path in named_files(predictions).items()}
    chosen = choose_clips(systems, read_references(Path(references)), clips, seed)
    study = open_study(Path(output), chosen, Path(audio), seed, raters)
    answers = AnswerStore(Path(output) / ANSWERS)

    def announce(port: int) -> None:
        name = socket.getfqdn() if host in EVERYWHERE else host
        typer.echo(f"http://{f'[{name}]' if ':' in name else name}:{port}/{study.token}/")
        for number, code in enumerate(study.codes, 1):
            typer.echo(f"rater {number}: {code[:5]}-{code[5:]}")
        print_error(f"enclap: {len(study.clips)} clips are ready to be rated; Ctrl-C stops, the same command goes on")

    try:
        listen(build_app(study, answers), host, port, announce)
    finally:
        answers.close()


@rate.command()
@handle_errors
def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The --output of `enclap rate`.")],
    output: ReportFolder = None,
    resamples: Resamples = 1_000,
    seed: Seed = 0,
) -> None:
    """Say what came out: means, agreement of the raters, paired tests.

    May be asked for while people still rate.
    """
    from enclap.rating.answers import ANSWERS, AnswerStore
    from enclap.rating.report import rating_table, write_report
    from enclap.rating.statistics import rating_results
    from enclap.rating.study import read_study

    study = read_study(Path(folder))
    store = AnswerStore(Path(folder) / ANSWERS)
    try:
        found = store.all()
    finally:
        store.close()
    results = rating_results(study, found, resamples, seed)
    for line in rating_table(results):
        typer.echo(line)
    target = Path(output) if output is not None else Path(folder) / "report"
    write_report(results, study, found, target)
    print_error(f"enclap: report in {target}")


def named_files(typed: list[str]) -> dict[str, Path]:
    """Files by the names of their systems: of NAME=FILE, else of the file; UsageError when two have the same name."""
    found: dict[str, Path] = {}
    for item in typed:
        name, equals, path = item.partition("=")
        if not equals or Path(item).exists():
            name, path = Path(item).stem, item
        if name in found or not name:
            raise UsageError(f"{name or item}: two systems with one name; write NAME=FILE for one of them")
        found[name] = Path(path)
    return found
