"""Where the stages run: processes of this machine with their devices and threads, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from enclap.batch.local import on_accelerator, run_locally
from enclap.batch.run import Runner
from enclap.engines.devices import device_names, usable_cores
from enclap.errors import UsageError

CORES_PER_WORKER = 4
"""Of a processor, for a worker by default: more gain little at one batch, and each worker has a model of its own."""


def worker_devices(device: str, workers: int | None, threads: int | None) -> tuple[list[str], int]:
    """The device of each worker of this machine, and the threads of each.

    device: as "cpu", or "cuda:0,1" for a worker on each. UsageError when workers and devices do not go together.
    """
    cores, names = usable_cores(), device_names(device)
    if len(names) > 1 and workers not in (None, len(names)):
        raise UsageError(f"--device {device} has {len(names)} workers, not {workers}; leave --workers out")
    if len(names) == 1:
        fitting = 1 if on_accelerator(device) else max(1, cores // CORES_PER_WORKER)
        names *= workers or fitting
    return names, threads or max(1, cores // len(names))


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
