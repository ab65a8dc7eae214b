"""The options of `enclap caption`: their names, limits and help."""

from __future__ import annotations

from typing import Annotated

import typer

from enclap.cli.choices import (
    FORMAT_NAMES,
    EngineName,
    PrecisionName,
    RerankName,
    complete_formats,
)

MOST = 64  # beams and candidates
MOST_THREADS = 512  # that of the engines, which would take time to import here

Paths = Annotated[list[str], typer.Argument(metavar="PATH", hidden=True)]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAME",
        help=f"Output format: {', '.join(FORMAT_NAMES)}; several with commas. [default: text]",
        autocompletion=complete_formats,
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Write to a file, or to FOLDER/ with a file per recording; give it once, or once per format.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an earlier run to the same --output; finished recordings are reused.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]
Plot = Annotated[
    str | None, typer.Option(metavar="FILE", help="Draw the spectrogram with its captions to a .png or .svg file.")
]
Window = Annotated[
    float, typer.Option(metavar="SECONDS", help="Length of audio per caption; 0 gives one per recording.")
]
Candidates = Annotated[
    int, typer.Option(min=1, max=MOST, metavar="N", help="Number of sentences to show per caption, with scores.")
]
Rerank = Annotated[
    RerankName, typer.Option(help="Order the candidates by likelihood, by similarity to the sound (CLAP), or by both.")
]
Beams = Annotated[
    int | None,
    typer.Option(min=1, max=MOST, metavar="N", help="Beam width; 1 is greedy search. [default: mini 6, others 4]"),
]
Sample = Annotated[bool, typer.Option("--sample", help="Sample sentences instead of searching for the most likely.")]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Random seed for --sample. [default: 0]")]
Model = Annotated[
    str, typer.Option(metavar="NAME", help="mini, official, a model folder, or a repository on the Hugging Face hub.")
]
Engine = Annotated[EngineName, typer.Option(help="Inference engine.")]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda, mps, cuda:1, or several that share the work: cuda:0,1.")
]
Precision = Annotated[PrecisionName, typer.Option(help="Numeric precision of the caption model.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=MOST_THREADS, metavar="N", help="CPU threads. [default: all cores]")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for every recording.")]
