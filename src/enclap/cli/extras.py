"""Whether the packages of an extra are installed, before a command begins."""

from __future__ import annotations

import importlib.util

from enclap.errors import MissingExtra


def require_extra(feature: str, extra: str, *packages: str) -> None:
    """Raises MissingExtra unless all these packages are installed. feature: what needs them."""
    if any(importlib.util.find_spec(name) is None for name in packages):
        raise MissingExtra(feature, extra)
