"""Describes a sound in an English sentence.

>>> from enclap import Captioner
>>> Captioner.from_pretrained("mini").caption("dog.wav").text  # doctest: +SKIP
'A dog barks.'
"""

from __future__ import annotations

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from enclap.version import __version__

# onnxruntime 1.29 and newer on Linux report what is run to their maker unless this is set before it is imported.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if _TYPE_CHECKING:
    from enclap.captioner import Captioner
    from enclap.decoding.options import DecodingOptions
    from enclap.types import Caption, CaptionResult

__all__ = ["Caption", "CaptionResult", "Captioner", "DecodingOptions", "__version__"]

_HOMES = {
    "Caption": "enclap.types",
    "CaptionResult": "enclap.types",
    "Captioner": "enclap.captioner",
    "DecodingOptions": "enclap.decoding.options",
}


def __getattr__(name: str) -> object:
    """The public name, imported when first asked for (PEP 562), so that `enclap --help` loads no numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names alone, for completion in notebooks and shells."""
    return sorted(__all__)
