"""`run_program.py` with weights in shards (FSDP) on the processor, which Accelerate allows on accelerators alone.

Accelerate (1.15) looks for a plugin of FSDP only where the processes have accelerators, although PyTorch shards over
gloo too. Here it is told otherwise, so that all that follows (wrapping, gradients, checkpoints, validation, gathering)
is the real thing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from enclap.training import arguments
from run_program import run


def allow_sharding() -> None:
    """Have Accelerate shard on the processor too, and this program not refuse it."""
    original = AcceleratorState.__init__

    def begin(self: Any, *values: Any, fsdp_plugin: Any = None, **keywords: Any) -> None:
        original(self, *values, fsdp_plugin=fsdp_plugin, **keywords)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = begin
    arguments.require_sharding = lambda *_: None


if __name__ == "__main__":
    allow_sharding()
    done = run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
    rank = int(os.environ.get("RANK", "0"))
    torch.save(done.start.model.state_dict(), Path(sys.argv[1]) / f"weights-{rank}.pt")
