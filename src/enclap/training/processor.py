"""What makes a training on the processor fast, without a change of what is learned: see `quick_processor`."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from enclap.model.cross_attention import few_queries
from enclap.model.dropout import quick_dropout

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt, from its header."""
NEVER = -1


@contextmanager
def quick_processor(compiled: bool = False) -> Iterator[None]:
    """Inside, models are trained with quick dropout, less work and kept memory; where there is a GPU only the latter.

    compiled: the model goes through torch.compile, which has its own ways.
    """
    keep_freed_memory()
    if compiled or torch.cuda.is_available():
        yield
        return
    with quick_dropout(), few_queries():
        yield


def keep_freed_memory() -> bool:
    """Whether glibc was told to keep what large arrays leave for the next ones, instead of giving it to the kernel.

    A training step frees and takes gigabytes, and the kernel clears every page that it hands out; loading clips takes
    two thirds of the time, in workers too, which are forked. False where another C
    library is in use, or where the user has set MALLOC_MMAP_MAX_ for this already.
    """
    if not sys.platform.startswith("linux") or "MALLOC_MMAP_MAX_" in os.environ:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))
