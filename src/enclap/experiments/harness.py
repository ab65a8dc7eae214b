"""Which runs an experiment needs, which are there, and how the others are made: rows may share a training."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError
from enclap.experiments.grids import Grid, Row, Training
from enclap.experiments.trial import Budget, Laboratory
from enclap.files import write_whole
from enclap.text import printable

SCHEMA = 1
RESULT = "result.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """One training with one seed, and the rows that read its captions."""

    training: Training
    seed: int
    rows: tuple[Row, ...]

    def folder(self, output: Path, budget: Budget) -> Path:
        """Where its model and results are; runs of another budget are others."""
        name = f"{self.training.key}-{budget.steps}x{budget.batch}-{budget.scenes}"
        return output / "runs" / name / f"seed-{self.seed}"


def runs_of(grid: Grid, seeds: int | None = None) -> list[Run]:
    """The runs of an experiment, by training and seed; rows that cannot be run have none."""
    by_training: dict[Training, list[Row]] = {}
    for row in grid.runnable:
        by_training.setdefault(row.training, []).append(row)
    return [
        Run(training, seed, tuple(rows))
        for training, rows in by_training.items()
        for seed in range(1, (seeds or grid.seeds) + 1)
    ]


def decoding_key(row: Row) -> str:
    """A name for the captions of a row's decoding options."""
    options = json.dumps(DecodingOptions(**row.decoding).model_dump(), sort_keys=True)
    return hashlib.sha256(options.encode()).hexdigest()[:12]


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run; None before there is one, DataError for one that cannot be read."""
    path = folder / RESULT
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if table["schema"] != SCHEMA:
            raise ValueError("another schema")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{printable(str(path))}: not a run's result; remove the folder and run it again") from error
    return table


def is_done(run: Run, folder: Path) -> bool:
    """Whether a run has the captions of all its rows."""
    result = read_result(folder)
    return result is not None and all(decoding_key(row) in result["captions"] for row in run.rows)


def make_runs(runs: Sequence[Run], laboratory: Laboratory, resume: bool) -> None:
    """Train and caption what is not there; a result is written after each part, so that little is lost.

    resume: go on with trainings that were cut off; else they begin anew.
    """
    for run in runs:
        folder = run.folder(laboratory.output, laboratory.budget)
        if is_done(run, folder):
            logger.info("%s, seed %d: done already", run.training.key, run.seed)
            continue
        result = read_result(folder) or train(run, folder, laboratory, resume)
        for row in run.rows:
            if decoding_key(row) not in result["captions"]:
                captions, seconds = laboratory.captions(run.training, DecodingOptions(**row.decoding), folder)
                result["captions"][decoding_key(row)] = {"texts": captions, "seconds": seconds}
                write_whole(folder / RESULT, json.dumps(result) + "\n")


def train(run: Run, folder: Path, laboratory: Laboratory, resume: bool) -> dict[str, Any]:
    """The result of a training without captions, written into its folder."""
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    logger.info("%s, seed %d: trains", run.training.key, run.seed)
    seconds = laboratory.train(run.training, run.seed, folder)
    result = {
        "schema": SCHEMA,
        "training": asdict(run.training),
        "seed": run.seed,
        "seconds": seconds,
        "parameters": laboratory.parameters(run.training, folder),
        "masked_accuracy": laboratory.masked_accuracy(run.training, folder),
        "labels": [list(clip.labels) for clip in laboratory.scenes],
        "captions": {},
    }
    write_whole(folder / RESULT, json.dumps(result) + "\n")
    return result


def planned(grid: Grid, runs: Sequence[Run], output: Path, budget: Budget) -> Iterator[str]:
    """A line for each row that cannot be run and for each run, and a last one with what all of them cost.

    Seconds are the mean of the runs that are there; before the first one nobody knows them.
    """
    results = [read_result(path.parent) for path in sorted(output.glob(f"runs/*/*/{RESULT}"))]
    known = [float(result["seconds"]) for result in results if result is not None]
    yield from (f"cannot be run yet: {row.name}: {row.missing}" for row in grid.rows if row.missing)
    left = 0
    for run in runs:
        done = is_done(run, run.folder(output, budget))
        left += not done
        names = "; ".join(row.name for row in run.rows)
        yield f"{run.training.key} seed {run.seed}: {'done' if done else f'{budget.steps} steps'} ({names})"
    cost = f"{left * budget.steps} steps of {budget.batch} items, {left * budget.scenes} scenes captioned"
    time = f"about {left * sum(known) / len(known) / 60:.0f} minutes" if known else "time unknown before a first run"
    yield f"{left} of {len(runs)} runs are left: {cost}, {time}"
