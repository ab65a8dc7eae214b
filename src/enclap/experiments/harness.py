"""Which runs an experiment needs, which are there, and how the others are made: rows may share a training."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError
from enclap.experiments.grids import Grid, Row, Training
from enclap.experiments.trial import Captioning, Laboratory
from enclap.files import Locked, locked, write_whole
from enclap.text import printable

SCHEMA = 2
RESULT = "result.json"
BUSY_SECONDS = 2.0
"""Until runs that others are making are looked at again, when there are no more."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """One training with one seed, and the rows that read its captions."""

    training: Training
    seed: int
    rows: tuple[Row, ...]

    def folder(self, laboratory: Laboratory) -> Path:
        """Where its model and results are; runs of another size are others."""
        return laboratory.output / "runs" / laboratory.key(self.training) / f"seed-{self.seed}"


def runs_of(grid: Grid, laboratory: Laboratory, seeds: int | None = None) -> list[Run]:
    """The runs of an experiment, seed by seed, so that what is there when it is cut off can be compared."""
    by_training: dict[Training, list[Row]] = {}
    for row in grid.rows:
        if not laboratory.obstacle(row.training):
            by_training.setdefault(row.training, []).append(row)
    return [
        Run(training, seed, tuple(rows))
        for seed in range(1, (seeds or grid.seeds) + 1)
        for training, rows in by_training.items()
    ]


def decoding_key(row: Row) -> str:
    """A name for the captions of a row's decoding options."""
    decoding = DecodingOptions(**row.decoding)
    options = json.dumps(decoding.model_dump() | {"beams": decoding.width}, sort_keys=True)
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


def make_runs(runs: Sequence[Run], laboratory: Laboratory, resume: bool) -> Iterator[Run]:
    """Train and caption what is not there; each run comes back when it is done, those that were done at once.

    A run that another process is making is looked at again later, so several processes share the runs of an experiment,
    or of several. resume: go on with trainings that were cut off; else they begin anew.
    """
    waiting = deque(runs)
    busy = 0
    while waiting:
        run = waiting.popleft()
        folder = run.folder(laboratory)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder.with_name(f"{folder.name}.lock"), str(folder)):
                make_run(run, folder, laboratory, resume)
        except Locked:
            waiting.append(run)
            busy += 1
            if busy >= len(waiting):
                time.sleep(BUSY_SECONDS)
            continue
        busy = 0
        yield run


def make_run(run: Run, folder: Path, laboratory: Laboratory, resume: bool) -> None:
    """Train and caption one run; a result is written after each part, so that little is lost."""
    if is_done(run, folder):
        logger.info("%s, seed %d: done already", run.training.key, run.seed)
        return
    result = read_result(folder) or train(run, folder, laboratory, resume)
    captioning = Captioning(folder, laboratory.features(run.training, run.seed, folder), laboratory.device)
    for row in run.rows:
        if decoding_key(row) not in result["captions"]:
            captions, seconds = captioning.captions(DecodingOptions(**row.decoding))
            result["captions"][decoding_key(row)] = {"texts": captions, "seconds": seconds}
            write_whole(folder / RESULT, json.dumps(result) + "\n")


def train(run: Run, folder: Path, laboratory: Laboratory, resume: bool) -> dict[str, Any]:
    """The result of a training without captions, written into its folder; its checkpoints are removed."""
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    logger.info("%s, seed %d: trains", run.training.key, run.seed)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = laboratory.train(run.training, run.seed, folder)
    result = {
        "schema": SCHEMA,
        "training": asdict(run.training),
        "seed": run.seed,
        "seconds": seconds,
        **laboratory.facts(run.training, run.seed, folder),
        "families": [list(truth.families) for truth in laboratory.truths],
        "groups": [list(truth.groups) for truth in laboratory.truths],
        "captions": {},
    }
    write_whole(folder / RESULT, json.dumps(result) + "\n")
    shutil.rmtree(folder / "training", ignore_errors=True)
    return result


def planned(grid: Grid, runs: Sequence[Run], laboratory: Laboratory) -> Iterator[str]:
    """A line for each row that cannot be run and for each run, and a last one with what all of them cost.

    Seconds are the mean of the runs that are there; before the first one nobody knows them.
    """
    results = [read_result(path.parent) for path in sorted(laboratory.output.glob(f"runs/*/*/{RESULT}"))]
    known = [seconds_of(result) for result in results if result is not None]
    for row in grid.rows:
        if obstacle := laboratory.obstacle(row.training):
            yield f"cannot be run here: {row.name}: {obstacle}"
    left = 0
    for run in runs:
        done = is_done(run, run.folder(laboratory))
        left += not done
        names = "; ".join(row.name for row in run.rows)
        yield f"{run.training.key} seed {run.seed}: {'done' if done else 'to run'} ({names})"
    yield f"each run: {laboratory.size()}"
    time = f"about {left * sum(known) / len(known) / 60:.0f} minutes" if known else "time unknown before a first run"
    yield f"{left} of {len(runs)} runs are left, {time}"


def seconds_of(result: dict[str, Any]) -> float:
    """The seconds of a run: its training and all its captions."""
    return float(result["seconds"]) + sum(float(captions["seconds"]) for captions in result["captions"].values())
