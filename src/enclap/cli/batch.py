"""`enclap batch`: captions for whole corpora."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclap.cli import caption_options as options
from enclap.cli.choices import EngineName, PrecisionName, RerankName
from enclap.cli.exit import SOME_FAILED, print_error
from enclap.errors import UsageError

if TYPE_CHECKING:
    from enclap.batch.run import Totals

EVERY = 10.0  # seconds between lines of progress

Sources = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="Folders, globs, lists, .tar archives, addresses, or a data set."),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for shards and manifest.json.")]
Ray = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on Ray: the address of a cluster's head, or auto.")
]
Dashboard = Annotated[bool, typer.Option("--dashboard", help="Give a Ray that is started here its dashboard.")]
ShardSize = Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Recordings in a shard.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=4096, metavar="N", help="Processes that each load the model. [default: fitting]"),
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Columns of the shards, with commas. [default: all but embedding]"),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda, mps, cuda:1, or several, a worker on each: cuda:0,1.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first recording that cannot be captioned.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many files and hours, and how long it would take.")]


def batch(
    sources: Sources,
    output: Output,
    ray: Ray = None,
    dashboard: Dashboard = False,
    shard_size: ShardSize = 256,
    workers: Workers = None,
    columns: Columns = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    window: options.Window = 10.0,
    candidates: options.Candidates = 1,
    rerank: options.Rerank = RerankName.likelihood,
    beams: options.Beams = None,
    model: options.Model = "mini",
    engine: options.Engine = EngineName.auto,
    device: Device = "auto",
    precision: options.Precision = PrecisionName.float32,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Caption a corpus into Parquet shards, in processes here or on Ray.

    SOURCE is a folder, a glob in quotes, a list of paths or addresses (.txt,
    .csv, .tsv, .jsonl, .parquet), a .tar archive (WebDataset), an address
    (s3://, gs://, hf:// ...), or a Hugging Face data set. The same command
    goes on where it was stopped or killed. A recording that cannot be
    captioned is a row with an error. Needs the extra batch; --ray needs ray.

    \b
    Examples:
      enclap batch recordings/ --output captions
      enclap batch list.parquet --output captions --workers 8
      enclap batch "archive/*.tar" --output captions --ray auto
      enclap batch recordings/ --output captions --dry-run

    \b
    Exit codes: 0 all captioned, 1 some recordings failed, 2 wrong usage,
    3 sources, model or environment, 130 interrupted.
    """
    from enclap.cli.caption import decoding_options
    from enclap.cli.extras import require_extra
    from enclap.cli.messages import messages_shown

    require_extra("enclap batch", "batch", "pyarrow", "fsspec")
    from enclap.batch.devices import runner_for, worker_devices
    from enclap.batch.run import caption_corpus, dry_run_lines
    from enclap.batch.work import Captioning, ModelRun, chosen_columns

    with messages_shown(quiet=quiet):
        work = Captioning(decoding_options(beams, candidates, rerank), window, chosen_columns(columns))
        devices, cores = worker_devices(device, workers, threads)
        run = ModelRun(model, engine.value, devices[0], precision.value, cores)
        if dashboard and ray is None:
            raise UsageError("--dashboard is Ray's; add --ray auto, or leave it out")
        if dry_run:
            for line in dry_run_lines(sources, work, run, len(devices)):
                typer.echo(line)
            return
        tell = None if quiet else print_error
        with runner_for(ray, workers, threads, dashboard=dashboard, tell=tell) as runner:
            progress = None if quiet else ProgressLines()
            totals = caption_corpus(
                sources,
                output,
                work,
                run,
                shard_size=shard_size,
                devices=devices,
                strict=strict,
                runner=runner,
                on_progress=progress,
            )
    if totals.failed:
        for kind, count in totals.failures.most_common():
            print_error(f"enclap: {kind}: {count}, such as {totals.examples[kind]}")
    if not quiet:
        print_error(f"enclap: {totals}")
    if totals.failed:
        raise SystemExit(SOME_FAILED)


class ProgressLines:
    """Prints how far a run has come, a line at a time, every ten seconds at most."""

    def __init__(self) -> None:
        self._next = time.monotonic() + EVERY

    def __call__(self, totals: Totals) -> None:
        """Print it, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            print_error(f"enclap: {totals}")
