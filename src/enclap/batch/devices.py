"""Where the stages run: processes of this machine with their devices and threads, or a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from enclap.batch.local import on_accelerator, run_locally
from enclap.batch.run import Runner
from enclap.errors import UsageError

CORES_PER_WORKER = 4
"""Of a processor, for a worker by default: more gain little at one batch, and each worker has a model of its own."""


def worker_devices(device: str, workers: int | None, threads: int | None) -> tuple[list[str], int | None]:
    """The device of each worker of this machine, and the threads of each.

    device: as "cpu", or "cuda:0,1" for a worker on each. UsageError when workers and devices do not go together.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name, colon, numbers = device.partition(":")
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise UsageError(f"--device {device}: not a device; choose auto, cpu, cuda or mps, or cuda:0,1 for several")
    if colon:
        indices = [number.strip() for number in numbers.split(",")]
        if not all(number.isdecimal() for number in indices) or len(set(indices)) < len(indices):
            raise UsageError(f"--device {device}: name each device once, by its number, as cuda:0,1")
        if workers not in (None, len(indices)):
            raise UsageError(f"--device {device} has {len(indices)} workers, not {workers}; leave --workers out")
        found = [f"{name}:{index}" for index in indices]
    else:
        found = [name] * (workers or (max(1, cores // CORES_PER_WORKER) if name == "cpu" else 1))
        if name == "auto" and workers is None and not on_accelerator(name):
            found = ["auto"] * max(1, cores // CORES_PER_WORKER)
    return found, threads or max(1, cores // len(found))


@contextmanager
def runner_for(
    ray: str | None,
    workers: int | None,
    threads: int | None,
    *,
    dashboard: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Runner]:
    """What goes through the shards: processes here, or the cluster at `ray` until the block ends.

    tell: is told which Ray it is.
    """
    if ray is None:
        yield run_locally
        return
    from enclap.batch.on_ray import connected, run_on_ray

    with connected(ray, dashboard=dashboard) as which:
        if tell is not None:
            tell(f"enclap: {which}")
        yield lambda job, listing, shards: run_on_ray(job, listing, shards, workers, threads)
