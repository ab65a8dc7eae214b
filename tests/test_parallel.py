"""Several devices, several recordings decoded at a time: what comes out is what one of each gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import enclap.prefetch
from agreement import GREEDY, assert_candidates_agree, assert_features_agree, random_windows, released_options
from cli import Run
from enclap.captioner import Captioner, Failure
from enclap.engines import Engine, load_engine
from enclap.engines.devices import device_names
from enclap.engines.parallel import ParallelEngine
from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.prefetch import Prefetcher, in_turn
from enclap.types import CaptionResult, Features, Window
from fakes import EchoEngine
from sounds import noise


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("auto", ["auto"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:0,1", ["cuda:0", "cuda:1"]),
        ("cuda:0, cuda:03", ["cuda:0", "cuda:3"]),
        ("cpu,cpu", ["cpu", "cpu"]),
        ("cpu,cuda:0", ["cpu", "cuda:0"]),
    ],
)
def test_names_of_devices(device: str, names: list[str]) -> None:
    assert device_names(device) == names


WRONG = [
    "",
    "gpu",
    "cuda:",
    "cuda:x",
    "cpu:1",
    "mps:0",
    "cuda:0,",
    "0,1",
    "cuda:0,0",
    "cuda,cuda",
    "auto,cpu",
    "cuda:-1",
]


@pytest.mark.parametrize("device", WRONG)
def test_what_is_no_device_is_refused_before_a_model_is_looked_for(device: str) -> None:
    with pytest.raises(UsageError, match=r"^device '"):
        Captioner.from_pretrained("no/such-model", device=device)


def test_a_device_that_is_not_there(tiny_model: Path) -> None:
    for engine in ("onnx", "torch"):
        with pytest.raises(EnvironmentFault, match="use --device cpu"):
            load_engine(tiny_model, engine, device="cuda:0,1")


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_two_workers_give_what_one_gives(tiny_model: Path, name: str) -> None:
    one, two = (load_engine(tiny_model, name, device=device, threads=2) for device in ("cpu", "cpu,cpu"))
    assert isinstance(two, ParallelEngine)
    assert (two.windows_together, two.name) == (sum(item.windows_together for item in two._engines), one.name)
    windows = random_windows(5, longest=3.0)
    features = two.extract(windows, whole=True)
    assert_features_agree(features, one.extract(windows, whole=True))
    for options in (GREEDY, released_options()):
        assert_candidates_agree(two.generate(features, options), one.generate(features, options))
    assert two.can_embed_text
    np.testing.assert_array_equal(two.embed_text(["a dog"]), one.embed_text(["a dog"]))
    assert two.extract([]) == [] and two.generate([], GREEDY) == []


class Meeting(EchoEngine):
    """One whose calls wait for those of another, which shows that they run at the same time."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        self._barrier.wait(timeout=20)
        return super().extract(windows)


def test_engines_work_at_the_same_time_on_equal_parts() -> None:
    barrier = threading.Barrier(3)
    engines = [Meeting(barrier) for _ in range(3)]
    found = ParallelEngine(engines).extract(random_windows(8, longest=0.1))
    assert [engine.batches for engine in engines] == [[3], [3], [2]]
    assert [int(item.codes[0, 0]) for item in found] == [
        len(window.waveform.samples) for window in random_windows(8, longest=0.1)
    ]


def test_the_failure_of_one_device_is_raised() -> None:
    class Failing(EchoEngine):
        def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
            raise ModelError("the second one fails")

    engines: list[Engine] = [EchoEngine(), Failing()]
    with pytest.raises(ModelError, match="second one"):
        ParallelEngine(engines).extract(random_windows(4, longest=0.1))


def test_the_command_line_takes_several_devices(enclap: Run, recording: Callable[..., Path]) -> None:
    path = recording(seconds=2.0)
    one, two = (enclap("caption", path, "--device", device) for device in ("cpu", "cpu,cpu"))
    assert (one.returncode, two.returncode) == (0, 0) and one.stdout == two.stdout != ""
    wrong = enclap("caption", path, "--device", "gpu")
    assert wrong.returncode == 2 and "'gpu' is none of auto, cpu, cuda, mps" in wrong.stderr


class Idle(EchoEngine):
    """An engine that leaves the processor to the decoders."""

    recordings_together = 3


def sources(folder: Callable[..., Path]) -> list[object]:
    files: list[object] = [folder(f"{number}.wav", seconds=0.2 + 11.0 * (number % 3)) for number in range(7)]
    known = CaptionResult("known.wav", 1.0, ())
    files[2:2] = ["missing.wav", known, (noise(12.0, 8_000), 8_000), files[0].read_bytes()]  # type: ignore[attr-defined]
    return files


def test_decoding_several_at_a_time_changes_nothing(recording: Callable[..., Path]) -> None:
    inputs, threads = sources(recording), threading.active_count()
    alone, together = (list(Captioner(engine).stream(inputs)) for engine in (EchoEngine(), Idle()))  # type: ignore[arg-type]
    assert [type(result) for result in together] == [type(result) for result in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert str(ours.error) == str(theirs.error) if isinstance(ours, Failure) else ours == theirs
    assert threading.active_count() == threads


def test_a_stream_that_is_closed_stops_what_runs_ahead(recording: Callable[..., Path]) -> None:
    threads = threading.active_count()
    stream = Captioner(Idle()).stream(sources(recording))  # type: ignore[arg-type]
    next(stream)
    stream.close()
    assert threading.active_count() == threads


def test_an_open_file_is_read_once_its_turn_comes(recording: Callable[..., Path]) -> None:
    path = recording(seconds=1.0)
    with path.open("rb") as file:
        results = Captioner(Idle()).caption([path, file, path])
    assert len({result.text for result in results}) == 1


def test_parts_run_ahead_of_their_turn_and_come_out_in_order() -> None:
    started: list[int] = []
    release = threading.Event()

    def part(number: int) -> Iterator[int]:
        started.append(number)
        if number == 0:
            release.wait(20)
        yield from [number] * 3

    def parts() -> Iterator[Iterator[int]]:
        for number in range(6):
            yield Prefetcher(part(number), depth=2)  # type: ignore[arg-type]

    walked = Prefetcher(in_turn(parts(), together=3), depth=100)
    deadline = threading.Event()
    while len(started) < 3:
        deadline.wait(0.005)
    assert sorted(started) == [0, 1, 2]  # no fourth before the first has ended
    release.set()
    assert list(walked) == [number for number in range(6) for _ in range(3)]


def test_parts_are_closed_when_nothing_more_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclap.prefetch, "CLOSING_SECONDS", 20.0)
    closed: list[int] = []

    def part(number: int) -> Iterator[int]:
        try:
            while True:
                yield number
        finally:
            closed.append(number)

    walked = in_turn((Prefetcher(part(number), 2) if number else part(number) for number in range(9)), 3)  # type: ignore[arg-type]
    assert [next(walked) for _ in range(5)] == [0] * 5
    walked.close()
    assert sorted(closed) == [0, 1, 2]
