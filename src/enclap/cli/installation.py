"""What is installed here, as `enclap doctor` reports it: a section is lines of a name and what is found under it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path

RUNTIME = ""  # as the extra in whose name the packages of the runtime are required
EXTRAS = ("train", "eval", "serve", "batch", "ray", "search", "plot")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "MALLOC_MMAP_MAX_",
    "OMP_NUM_THREADS",
)
"""Variables of the environment that change what the program does; none of them is a secret."""
MEGABYTE, GIGABYTE = 1e6, 1e9


def program() -> Iterator[tuple[str, str]]:
    """Versions of enclap and Python, and the variables of the environment that change what they do."""
    from enclap.version import __version__

    yield "enclap", f"{__version__} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


def machine() -> Iterator[tuple[str, str]]:
    """System, processor and memory."""
    yield "system", platform.platform()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "processor", f"{platform.machine()}, {usable} of {os.cpu_count()} cores usable, so many threads at most"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIGABYTE:.1f} GB"


def packages() -> Iterator[tuple[str, str]]:
    """The packages that enclap's metadata name and their versions, with a remark on one outside the tested range.

    The range is that of pyproject.toml. Packages of the extra "train" are listed also where they are missing.
    """
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in metadata.requires("enclap") or ()]
    shown: set[str] = set()
    for extra in (RUNTIME, *EXTRAS):
        for requirement in requirements:
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if not needed or requirement.name in shown:
                continue
            shown.add(requirement.name)
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                if extra in (RUNTIME, "train"):
                    remark = "not installed (extra 'train')" if extra else "MISSING: install enclap again"
                    yield requirement.name, remark
                continue
            tested = requirement.specifier.contains(version, prereleases=True)
            yield requirement.name, version if tested else f"{version}, OUTSIDE the tested {requirement.specifier}"


def engines() -> Iterator[tuple[str, str]]:
    """The engines, each with the devices that it can use."""

    def onnx_devices() -> str:
        import onnxruntime

        providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
        return ", ".join(providers)

    def torch_devices() -> str:
        import torch

        gpus = [f"cuda ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
        mps = ["mps"] if torch.backends.mps.is_available() else []
        return ", ".join([f"cpu ({torch.get_num_threads()} threads)", *gpus, *mps])

    def found(look: Callable[[], str]) -> str:
        try:
            return look()
        except Exception as error:  # a broken installation is a finding too
            return f"BROKEN: {error_in_one_line(error)}"

    yield "onnx", found(onnx_devices)
    installed = all(util.find_spec(name) is not None for name in ("torch", "transformers"))
    yield "torch", found(torch_devices) if installed else "not installed: pip install 'enclap[train]'"


def models() -> Iterator[tuple[str, str]]:
    """The models on this machine, and the room that is left for more."""
    import shutil

    from enclap.files import is_folder
    from enclap.hub.download import cache_folder
    from enclap.hub.resolve import bundled_models, fetched_models

    for entry in (*bundled_models(), *fetched_models()):
        yield entry.name, f"{entry.size / MEGABYTE:.1f} MB in {entry.folder}"
    cache = cache_folder()
    present = next(path for path in (cache, *cache.parents) if is_folder(path))
    yield "cache", f"{cache}, {shutil.disk_usage(present).free / GIGABYTE:.1f} GB free"


def error_in_one_line(error: Exception) -> str:
    """Kind and message of an error, cut to 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
