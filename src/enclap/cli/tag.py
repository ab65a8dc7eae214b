"""`enclap tag`: labels of recordings, with times."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName
from enclap.cli.exit import SOME_FAILED, print_error


class TagFormat(StrEnum):
    """The formats of `enclap.search.tagging`."""

    text = "text"
    json = "json"
    csv = "csv"


Paths = Annotated[list[str], typer.Argument(metavar="PATH...", help="Recordings, folders, or globs in quotes.")]
Labels = Annotated[
    str | None,
    typer.Option(metavar="WORDS|FILE", help='Labels with commas, as "dog,rain", or a file of one a line.'),
]
Threshold = Annotated[float, typer.Option(min=0, max=1, metavar="P", help="Least probability of a label.")]
Format = Annotated[TagFormat, typer.Option("--format", "-f", help="Output format.")]


def tag(
    paths: Paths,
    labels: Labels = None,
    threshold: Threshold = 0.3,
    style: Format = TagFormat.text,
    window: options.Window = 10.0,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Say which labels fit recordings, and when.

    Without --labels, the labels are the sounds that mini has learned. A label
    that nobody taught the model works too: texts and sounds are compared.

    \b
    Examples:
      enclap tag doorbell.mp3
      enclap tag recordings/ --labels "dog,rain,engine" --format csv

    \b
    Exit codes: 0 all tagged, 1 some inputs failed, 2 wrong usage,
    3 model or environment, 130 interrupted.
    """
    from enclap.captioner import Captioner
    from enclap.cli.messages import messages_shown
    from enclap.output.inputs import expand
    from enclap.output.standard_output import write_standard_output
    from enclap.search.tagging import TAG_FORMATS, Tagged, read_labels, tag_recordings

    wanted = None if labels is None else read_labels(labels)
    form, failed = TAG_FORMATS[style.value], 0
    with messages_shown():
        inputs = expand(paths)
        captioner = Captioner.from_pretrained(model, engine.value, device, threads=threads)
        results = tag_recordings(captioner, inputs, wanted, threshold, window)
        write_standard_output(form.head(captioner.model))
        separator = ""
        for result in results:
            if isinstance(result, Tagged):
                write_standard_output(separator + form.piece(result))
                separator = form.separator
            else:
                failed += 1
                print_error(f"enclap: {result}")
        write_standard_output(form.tail)
    if failed:
        raise SystemExit(SOME_FAILED)
