"""`enclap extract`: the features of a data set, computed once for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enclap.cli.caption_options import Device
from enclap.cli.choices import EngineName
from enclap.cli.exit import SOME_FAILED, print_error

Manifest = Annotated[
    list[str], typer.Argument(metavar="MANIFEST...", help="Tables, folders, .tar archives, or a data set on the hub.")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the shards.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="The model whose encoders hear the clips.")]
Audio = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the audio that tables name; without it the table's own.")
]
SkipFaulty = Annotated[bool, typer.Option("--skip-faulty", help="Leave out rows that have a fault, and list them.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first clip that cannot be extracted.")]
Engine = Annotated[EngineName, typer.Option(help="What runs the encoders.")]
Ray = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Run on Ray: a cluster's head, or auto.")]
Threads = Annotated[int | None, typer.Option(min=1, max=512, metavar="N", help="Of the processor; without it all.")]


def extract(
    manifest: Manifest,
    output: Output,
    model: Model = "mini",
    audio: Audio = None,
    skip_faulty: SkipFaulty = False,
    strict: Strict = False,
    engine: Engine = EngineName.auto,
    device: Device = "auto",
    threads: Threads = None,
    ray: Ray = None,
) -> None:
    """Compute codes and embeddings of a data set, for `enclap train`.

    Every row and every file is looked at first; all faults are listed at once.
    The same command goes on where it was stopped. Needs the extra train.

    \b
    Tables (.csv, .tsv, .jsonl, .parquet) name a clip in path, file_name,
    fname, file_path, youtube_id or audiocap_id, its captions in caption,
    caption_1 ... or reference_1 ...

    \b
    Examples:
      enclap extract train.csv val.csv --audio sounds --output features
      enclap extract sounds/ --model official --output features
      enclap extract train.csv --output features --ray auto

    \b
    Exit codes: 0 all clips extracted, 1 some were left out, see
    failures.jsonl, 2 wrong usage, 3 faults in the data, 130 interrupted.
    """
    from enclap.captioner import Captioner
    from enclap.cli.extras import require_extra
    from enclap.cli.messages import messages_shown

    require_extra("enclap extract", "train", "pyarrow")
    from enclap.data.datasets.open import open_checked
    from enclap.extraction.extract import Extracted, extract_features

    def show(done: Extracted) -> None:
        print_error(f"{done.done} of {done.clips} clips")

    with messages_shown():
        dataset, faults = open_checked(manifest, audio, skip_faulty)
        captioner = Captioner.from_pretrained(model, engine.value, device, threads=threads)
        if ray is None:
            result = extract_features(dataset, captioner, output, faults=faults, strict=strict, on_progress=show)
        else:
            from enclap.batch.devices import runner_for
            from enclap.batch.extraction import extract_through
            from enclap.batch.work import ModelRun

            run = ModelRun(model, engine.value, device, threads=threads)
            with runner_for(ray, None, threads, tell=print_error) as runner:
                result = extract_through(
                    runner, dataset, captioner, run, output, faults=faults, strict=strict, on_progress=show
                )
    if result.failures:
        print_error(f"{result.failures} clips left out; see {output / 'failures.jsonl'}")
        raise SystemExit(SOME_FAILED)
