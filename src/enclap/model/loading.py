"""Networks from the folders of a model: safetensors alone, every tensor of the network and none beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from enclap.convert.published_names import named
from enclap.errors import ModelError
from enclap.text import printable


def load_pretrained(kind: Any, folder: Path, what: str) -> Any:
    """A network of transformers' class `kind` from `folder`, in float32; what: its name in errors.

    transformers itself would open a pickle where the safetensors are missing, and fill a missing tensor with random
    numbers. ModelError when the files cannot be read, or hold other tensors than their configuration asks for.
    """
    try:
        model, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report
        )
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged file makes of the readers below
        line = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise ModelError(f"{printable(str(folder))}: {what} cannot be loaded ({line})") from error
    reshaped = [f"{name} {list(stored)}" for name, stored, _ in sorted(report["mismatched_keys"])]
    faults = named(
        {
            "missing": sorted(report["missing_keys"]),
            "left over": sorted(report["unexpected_keys"]),
            "of another shape": reshaped,
        }
    )
    if faults:
        reason = f"the weights of {what} do not fit its config.json ({faults})"
        raise ModelError(f"{printable(str(folder))}: {reason}; fetch or export the model again")
    return model
