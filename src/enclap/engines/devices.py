"""What a device is called, and what of the machine the engines may use."""

from __future__ import annotations

import os
import re

from enclap.errors import UsageError
from enclap.text import printable

KINDS = ("auto", "cpu", "cuda", "mps")
MOST_RECORDINGS = 8
"""That are decoded at a time for an accelerator; each takes a core, and some 1,000 times real time."""


def device_names(device: str) -> list[str]:
    """The devices that "cuda:0,1" or "cpu,cpu" names, in order; UsageError where that makes no sense.

    A number alone is one more of the kind before it. Only the processor may be named several times, to try with it what
    happens on several devices.
    """
    names: list[str] = []
    for part in device.split(","):
        name = part.strip()
        if name.isdecimal() and names:
            name = f"{names[-1].partition(':')[0]}:{name}"
        kind, colon, number = name.partition(":")
        if kind not in KINDS or (colon and not (kind == "cuda" and re.fullmatch(r"[0-9]{1,4}", number))):
            known = f"{', '.join(KINDS)}, a number as in cuda:1, or several as in cuda:0,1"
            raise UsageError(f"device {printable(device)!r}: {printable(name)!r} is none of {known}")
        names.append(f"{kind}:{int(number)}" if colon else name)
    for name in names:
        if len(names) > 1 and (name in ("auto", "cuda") or (name != "cpu" and names.count(name) > 1)):
            raise UsageError(f"device {printable(device)!r}: of several, each must be named, and once: cuda:0,1")
    return names


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def recordings_to_decode(on_processor: bool) -> int:
    """How many recordings an engine wants decoded at a time: one where its own work keeps the processor busy."""
    return 1 if on_processor else min(MOST_RECORDINGS, usable_cores())
