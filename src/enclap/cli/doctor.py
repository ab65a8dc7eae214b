"""`enclap doctor`: what a good bug report needs, and whether captioning works here."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from enclap.cli.exit import print_error
from enclap.cli.memory import require_address_space

if TYPE_CHECKING:
    from enclap.engines import Engine
    from enclap.types import Candidate

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
CLIP_SECONDS, CLIP_RATE = 10, 16_000
MEGABYTE, GIGABYTE = 1e6, 1e9
FAILED = 3  # exit code, as for every fault of model or machine
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One clip through every stage: what it was described as, and seconds by stage, in order."""

    text: str
    seconds: dict[str, float]


def doctor(
    model: Annotated[str, typer.Option(metavar="NAME", help="Model to test; nothing is downloaded.")] = "mini",
    engine: Annotated[str, typer.Option(metavar="NAME", help="auto, onnx or torch.")] = "auto",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Report versions and test this installation.

    Shows versions, engines, devices, models and cache, then captions one clip. Paste the output into a bug report. The
    exit code is 3 when the clip could not be captioned.
    """
    from enclap.text import printable

    for title, lines in (
        ("program", _program()),
        ("machine", _machine()),
        ("packages", _packages()),
        ("engines", _engines()),
        ("models", _models()),
    ):
        _show(title, lines)
    try:
        require_address_space()
        test = _self_test(model, engine, device)
    except Exception as error:  # whatever goes wrong here is what the user came for
        typer.echo(f"self-test of {printable(model)}: FAILED")
        print_error(f"enclap: self-test failed: {_reason(error)}")
        raise SystemExit(FAILED) from error
    _show(f"self-test of {printable(model)}", _report(test))


def _reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _show(title: str, lines: Iterator[tuple[str, str]]) -> None:
    from enclap.text import printable

    typer.echo(title)
    try:
        for name, value in lines:
            typer.echo(f"  {name:<18}{printable(value)}")
    except Exception as error:  # the rest of the report must come all the same
        typer.echo(f"  {'BROKEN':<18}{_reason(error)}")


def _program() -> Iterator[tuple[str, str]]:
    from enclap.version import __version__

    yield "enclap", f"{__version__} in {Path(__file__).parents[1]}"
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


def _machine() -> Iterator[tuple[str, str]]:
    yield "system", platform.platform()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "processor", f"{platform.machine()}, {usable} of {os.cpu_count()} cores usable, so many threads at most"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIGABYTE:.1f} GB"


def _packages() -> Iterator[tuple[str, str]]:
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
            version = _installed_version(requirement.name)
            if version is not None:
                tested = requirement.specifier.contains(version, prereleases=True)
                yield requirement.name, version if tested else f"{version}, OUTSIDE the tested {requirement.specifier}"
            elif extra in (RUNTIME, "train"):
                yield requirement.name, "not installed (extra 'train')" if extra else "MISSING: install enclap again"
            shown.add(requirement.name)


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _engines() -> Iterator[tuple[str, str]]:
    yield "onnx", _found(_onnx_devices)
    installed = all(util.find_spec(name) is not None for name in ("torch", "transformers"))
    yield "torch", _found(_torch_devices) if installed else "not installed: pip install 'enclap[train]'"


def _found(look: Callable[[], str]) -> str:
    """What a look at an engine finds; a broken installation is a finding too."""
    try:
        return look()
    except Exception as error:
        return f"BROKEN: {_reason(error)}"


def _onnx_devices() -> str:
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return ", ".join(providers)


def _torch_devices() -> str:
    import torch

    gpus = [f"cuda ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ", ".join([f"cpu ({torch.get_num_threads()} threads)", *gpus, *mps])


def _models() -> Iterator[tuple[str, str]]:
    import shutil

    from enclap.files import is_folder
    from enclap.hub.download import cache_folder
    from enclap.hub.resolve import bundled_models, fetched_models

    for entry in (*bundled_models(), *fetched_models()):
        yield entry.name, f"{entry.size / MEGABYTE:.1f} MB in {entry.folder}"
    cache = cache_folder()
    present = next(path for path in (cache, *cache.parents) if is_folder(path))
    yield "cache", f"{cache}, {shutil.disk_usage(present).free / GIGABYTE:.1f} GB free"


def _self_test(model: str, engine: str, device: str) -> SelfTest:
    """A clip captioned twice, the second time timed stage by stage; raises what any stage raises."""
    from enclap.errors import ModelError
    from enclap.hub.resolve import find_local_model, pull_model

    seconds: dict[str, float] = {}
    folder = find_local_model(model)
    _timed(seconds, "checksums", lambda: pull_model(str(folder)))
    loaded = _timed(seconds, "load", lambda: _loaded(folder, engine, device))
    clip = _clip()
    first = _timed(seconds, "first caption", lambda: _caption(loaded, clip, {}))
    again = _timed(seconds, "second caption", lambda: _caption(loaded, clip, seconds))
    if not first.text.strip():
        raise ModelError(f"{folder}: the caption of the test clip is empty")
    if again != first:
        raise ModelError(f"{folder}: the same clip was captioned {first.text!r}, then {again.text!r}")
    return SelfTest(f"{first.text} [{loaded.name}]", seconds)


def _loaded(folder: Path, engine: str, device: str) -> Engine:
    from enclap.engines import load_engine

    return load_engine(folder, engine=engine, device=device)


def _caption(engine: Engine, clip: bytes, seconds: dict[str, float]) -> Candidate:
    """The best sentence for a sound file's bytes."""
    from enclap.audio.read import read_audio
    from enclap.decoding.options import DecodingOptions
    from enclap.types import Window

    waveform = _timed(seconds, "of it: reading", lambda: read_audio(clip))
    window = Window(waveform, 0.0, waveform.seconds)
    features = _timed(seconds, "of it: encoders", lambda: engine.extract([window]))
    return _timed(seconds, "of it: sentence", lambda: engine.generate(features, DecodingOptions()))[0][0]


def _clip() -> bytes:
    """A WAV file: two bell-like tones over faint noise, the same on every machine."""
    import io
    import wave

    import numpy as np

    time_axis = np.arange(CLIP_SECONDS * CLIP_RATE) / CLIP_RATE
    samples = 0.01 * np.random.default_rng(0).standard_normal(len(time_axis))
    for start, pitch in ((1.0, 660.0), (5.0, 880.0)):
        since = np.maximum(time_axis - start, 0.0)
        samples += 0.4 * (time_axis >= start) * np.exp(-2.0 * since) * np.sin(2 * np.pi * pitch * since)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, CLIP_RATE, len(samples), "NONE", ""))
        file.writeframes((32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes())
    return buffer.getvalue()


def _timed(seconds: dict[str, float], stage: str, work: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    result = work()
    seconds[stage] = time.perf_counter() - start
    return result


def _report(test: SelfTest) -> Iterator[tuple[str, str]]:
    for stage, seconds in test.seconds.items():
        yield stage, f"{seconds:.3f} s"
    yield "caption", test.text
    yield "result", "works"
