"""Too little memory, reported in one line: before any work where a limit is known to be too low, else when it shows."""

from __future__ import annotations

import errno
import os

from enclap.errors import EnvironmentFault

MEGABYTE = 1e6
PROGRAM, PER_CORE = 300 * MEGABYTE, 190 * MEGABYTE  # address space, measured on one core and on two
MOST_CORES = 4  # that are counted: above, what is needed was not measured
SHORTAGE = "too little memory, or too few threads allowed; free some, or raise the limits (`ulimit -v`, `ulimit -u`)"
SIGNS = (
    "failed to map segment",
    "annot allocate memory",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
    "PosixThread",
    "ThreadPoolBuildError",
)
"""What the libraries say that find no room for their code, their data or a thread."""


def require_address_space() -> None:
    """Raises EnvironmentFault where the limit of the address space is lower than captioning needs.

    Below it some libraries end the process by themselves, with words of their own.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    needed = PROGRAM + PER_CORE * min(cores, MOST_CORES)
    if limit != resource.RLIM_INFINITY and limit < needed:
        allowed, taken = f"{limit / MEGABYTE:.0f} MB", f"{needed / MEGABYTE:.0f} MB"
        fault = f"this process may use {allowed} of address space, captioning takes {taken}"
        raise EnvironmentFault(f"too little memory: {fault}; raise the limit with `ulimit -v`")


def is_shortage(error: BaseException | None) -> bool:
    """Whether the error, or one that led to it, is for want of memory or threads."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if full or isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False
