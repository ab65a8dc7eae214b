"""`enclap doctor`: what a good bug report needs, and whether captioning works here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from enclap.cli.exit import print_error
from enclap.cli.installation import engines, error_in_one_line, machine, models, packages, program
from enclap.cli.memory import require_address_space

if TYPE_CHECKING:
    from enclap.engines import Engine
    from enclap.types import Candidate

CLIP_SECONDS, CLIP_RATE = 10, 16_000
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
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Report versions and test this installation.

    Shows versions, engines, devices, models and cache, then captions one clip. Paste the output into a bug report. The
    exit code is 3 when the clip could not be captioned.
    """
    from enclap.text import printable

    for section in (program, machine, packages, engines, models):
        _show(section.__name__, section())
    try:
        require_address_space()
        test = _self_test(model, engine, device)
    except Exception as error:  # whatever goes wrong here is what the user came for
        typer.echo(f"self-test of {printable(model)}: FAILED")
        print_error(f"enclap: self-test failed: {error_in_one_line(error)}")
        raise SystemExit(FAILED) from error
    stages = [(stage, f"{seconds:.3f} s") for stage, seconds in test.seconds.items()]
    _show(f"self-test of {printable(model)}", [*stages, ("caption", test.text), ("result", "works")])


def _show(title: str, lines: Iterable[tuple[str, str]]) -> None:
    from enclap.text import printable

    typer.echo(title)
    try:
        for name, value in lines:
            typer.echo(f"  {name:<18}{printable(value)}")
    except Exception as error:  # the rest of the report must come all the same
        typer.echo(f"  {'BROKEN':<18}{error_in_one_line(error)}")


def _self_test(model: str, engine: str, device: str) -> SelfTest:
    """A clip captioned twice, the second time timed stage by stage; raises what any stage raises."""
    from enclap.engines import load_engine
    from enclap.errors import ModelError
    from enclap.hub.resolve import find_local_model, pull_model

    seconds: dict[str, float] = {}
    folder = find_local_model(model)
    _timed(seconds, "checksums", lambda: pull_model(str(folder)))
    loaded = _timed(seconds, "load", lambda: load_engine(folder, engine=engine, device=device))
    clip = _clip()
    first = _timed(seconds, "first caption", lambda: _caption(loaded, clip, {}))
    again = _timed(seconds, "second caption", lambda: _caption(loaded, clip, seconds))
    if not first.text.strip():
        raise ModelError(f"{folder}: the caption of the test clip is empty")
    if again != first:
        raise ModelError(f"{folder}: the same clip was captioned {first.text!r}, then {again.text!r}")
    return SelfTest(f"{first.text} [{loaded.name}]", seconds)


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
