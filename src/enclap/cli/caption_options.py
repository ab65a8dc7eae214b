"""The options of `enclap caption`: their names, limits and help."""

from __future__ import annotations

from typing import Annotated

import typer

from enclap.cli.choices import (
    FORMAT_NAMES,
    DeviceName,
    EngineName,
    PrecisionName,
    RerankName,
    complete_formats,
)

MOST = 64  # beams and candidates

Paths = Annotated[list[str], typer.Argument(metavar="PATH", hidden=True)]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAME",
        help=f"{', '.join(FORMAT_NAMES)}; several with commas; text unless set.",
        autocompletion=complete_formats,
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "--output", "-o", metavar="PATH", help="A file, or FOLDER/ for files per recording; once or per format."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Skip what an earlier run to --output has done.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Plot = Annotated[str | None, typer.Option(metavar="FILE", help="Draw spectrogram and captions, as .png or .svg.")]
Window = Annotated[float, typer.Option(metavar="SECONDS", help="Audio per caption; 0: one for each recording.")]
Candidates = Annotated[int, typer.Option(min=1, max=MOST, metavar="N", help="Sentences for each caption, with scores.")]
Rerank = Annotated[RerankName, typer.Option(help="Best is the likeliest, the nearest by CLAP, or both.")]
Beams = Annotated[
    int | None, typer.Option(min=1, max=MOST, metavar="N", help="Width of the search, 4 unless set; 1 is greedy.")
]
Sample = Annotated[bool, typer.Option("--sample", help="Draw sentences instead of searching for the best.")]
Seed = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Of --sample, 0 unless set; the same draws the same.")
]
Model = Annotated[str, typer.Option(metavar="NAME", help="mini, official, a model folder, or a hub repository.")]
Engine = Annotated[EngineName, typer.Option(help="What runs the model.")]
Device = Annotated[DeviceName, typer.Option(help="Where it runs.")]
Precision = Annotated[PrecisionName, typer.Option(help="What it computes in.")]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processor threads; all cores unless set.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but failures.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell of every recording.")]
