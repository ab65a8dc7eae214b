"""A step recorded as a CUDA graph: one launch in place of some hundred and fifty.

This module has not run on a GPU yet. Tests hold its conditions on the processor: a step
that is recorded operation by operation, and repeated from the record, gives the same results.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[[], object]
"""Reads and writes tensors that stay where they are; waits for no result, copies nothing from or to the processor."""
Recorder = Callable[[Step, Sequence[Tensor]], Step]
"""Gives the step that stands for another one, from it and from the tensors that it changes."""

WARM_UPS = 2
"""Runs before a recording, in which libraries choose kernels and take their memory."""
RECORDING = threading.Lock()
"""PyTorch records one graph at a time in a process; engines on several devices take turns."""


class CudaGraphs:
    """Records the steps of one search, which share a pool of memory, as none runs while another does.

    The tensors that a step reads and writes must outlive what it is recorded as. What cannot be recorded runs as it is,
    after a warning.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None  # on the device of the first step

    def __call__(self, step: Step, changed: Sequence[Tensor]) -> Step:
        """A function that repeats the step. `changed` are all tensors whose values it changes, and keep their values.

        A value that every step writes before it is read, as those of a cache, need not be among them.
        """
        with RECORDING, torch.cuda.device(changed[0].device):
            self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            current, warm_up = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            before = [tensor.clone() for tensor in changed]
            warm_up.wait_stream(current)
            with torch.cuda.stream(warm_up):
                for _ in range(WARM_UPS):
                    step()
                    for tensor, value in zip(changed, before, strict=True):
                        tensor.copy_(value)
            current.wait_stream(warm_up)
            graph = torch.cuda.CUDAGraph()
            try:
                # Another thread may extract features meanwhile: what it asks of the device must not end this recording.
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    step()  # recorded, not run
            except RuntimeError as error:  # the step itself is sound: it ran before
                torch.cuda.set_stream(current)
                warnings.warn(f"decoding runs without CUDA graphs, and slower: {error}", RuntimeWarning, stacklevel=2)
                return step
        return graph.replay
