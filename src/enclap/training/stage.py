"""Stages of a training: what each needs, in which order they run, which are done, and several side by side."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Protocol, TypeVar

from enclap.engines.devices import usable_cores
from enclap.errors import EnclapError, UsageError
from enclap.files import write_whole

logger = logging.getLogger(__name__)

Context = TypeVar("Context")
Input = TypeVar("Input", contravariant=True)


class Stage(Protocol[Input]):
    """A step of a training that is run, resumed and skipped by itself.

    To add one, write a class with these three members (or a value of one that is there, as mini does) and put it into
    the list of stages. Its place in the order follows from what it needs; nothing else has to know of it. A stage reads
    only what the stages that it needs have written, writes only below a folder of its own, and goes on where a run that
    was cut off stopped.
    """

    @property
    def name(self) -> str:
        """What the stage is called on the command line and in its marker."""
        ...

    @property
    def needs(self) -> Sequence[str]:
        """Names of the stages that must be done before this one runs."""
        ...

    def run(self, context: Input, /) -> None:
        """Do the work. context: where things are; the same for all stages of a training."""
        ...


class Markers:
    """Which stages are done: a file for each in `folder`, written when all that the stage writes is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_done(self, name: str) -> bool:
        """Whether the stage is done."""
        return (self._folder / name).exists()

    def mark(self, name: str) -> None:
        """Say that the stage is done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._folder / name, "")


def in_order(stages: Sequence[Stage[Context]]) -> list[Stage[Context]]:
    """The stages, each after those that it needs; UsageError for a need that is no stage, a circle, or equal names."""
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) < len(stages):
        raise UsageError(f"two stages have one name: {', '.join(stage.name for stage in stages)}")
    unknown = [f"{stage.name} needs {need}" for stage in stages for need in stage.needs if need not in by_name]
    if unknown:
        raise UsageError(f"no such stage: {'; '.join(unknown)}; there are {', '.join(by_name)}")
    try:
        return [by_name[name] for name in TopologicalSorter(_needs(stages)).static_order()]
    except CycleError as error:
        raise UsageError(f"stages need each other in a circle: {' <- '.join(error.args[1])}") from error


def run_stage(stages: Sequence[Stage[Context]], name: str, context: Context, markers: Markers) -> None:
    """Run one stage unless it is done.

    UsageError when there is no such stage, when one that it needs is not done, and when one that needs it is done
    already: what was made from an earlier result is neither kept beside the new one nor removed.
    """
    by_name = {stage.name: stage for stage in in_order(stages)}
    if name not in by_name:
        raise UsageError(f"no such stage: {name}; there are {', '.join(by_name)}")
    if markers.is_done(name):
        logger.info("%s: done already", name)
        return
    missing = [need for need in by_name[name].needs if not markers.is_done(need)]
    if missing:
        raise UsageError(f"{name}: needs {', '.join(missing)}, not done yet; run that first")
    if stale := [dependent for dependent in dependents_of(stages, name) if markers.is_done(dependent)]:
        remedy = "remove their folders and markers too, or choose another output folder"
        raise UsageError(f"{name}: its last result is in {', '.join(stale)} already; {remedy}")
    logger.info("%s: begins", name)
    by_name[name].run(context)
    markers.mark(name)
    logger.info("%s: done", name)


def run_side_by_side(
    stages: Sequence[Stage[Context]], command: Callable[[str], Sequence[str]], markers: Markers, processes: int
) -> None:
    """Run all stages that are not done, each in a process of its own, at most so many at once.

    command: what runs the stage of this name. The processes share the machine's cores among them. When a stage fails,
    those that need it do not run, all others still do, and EnclapError names both kinds.
    """
    order = [stage.name for stage in in_order(stages)]
    sorter = TopologicalSorter(_needs(stages))
    sorter.prepare()
    ready: list[str] = []
    running: dict[Future[subprocess.CompletedProcess[bytes]], str] = {}
    failed: list[str] = []
    with ThreadPoolExecutor(processes) as pool:
        while True:
            ready = sorted([*ready, *sorter.get_ready()], key=order.index)
            if done := [name for name in ready if markers.is_done(name)]:
                logger.info("done already: %s", ", ".join(done))
                sorter.done(*done)
                ready = [name for name in ready if name not in done]
                continue
            threads = max(1, usable_cores() // max(1, min(processes, len(running) + len(ready))))
            while ready and len(running) < processes:
                name = ready.pop(0)
                environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
                running[pool.submit(subprocess.run, command(name), env=environment, check=False)] = name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if future.result().returncode == 0 and markers.is_done(name):
                    sorter.done(name)
                else:
                    failed.append(name)
    if failed:
        left = [name for name in order if name not in failed and not markers.is_done(name)]
        stopped = f"; {', '.join(left)} did not run" if left else ""
        raise EnclapError(f"{', '.join(failed)} failed, see above{stopped}; the same command goes on where it stopped")


def _needs(stages: Sequence[Stage[Context]]) -> dict[str, Sequence[str]]:
    return {stage.name: stage.needs for stage in stages}


def dependents_of(stages: Sequence[Stage[Context]], name: str) -> list[str]:
    """The stages that need this one, directly or through others."""
    affected = {name}
    for stage in in_order(stages):
        if affected.intersection(stage.needs):
            affected.add(stage.name)
    return sorted(affected - {name})
