"""The fast route held to the plain one: batches, threads and failures change no caption and no digit of a score."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from enclap import Captioner, DecodingOptions
from enclap.audio.read import Source
from enclap.captioner import Failure, caption_plainly
from enclap.errors import AudioNotFinite, InputError
from enclap.types import Candidate, CaptionResult, Features, Window
from fakes import EchoEngine
from sounds import noise

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PACKAGE = f"{Path(inspect.getfile(Captioner)).parent}/"
RATE = 8000


@pytest.fixture(scope="module")
def mini() -> Captioner:
    return Captioner.from_pretrained("mini")


def plain_results(captioner: Captioner, sources: Sequence[Source], **settings: object) -> list[CaptionResult | str]:
    """The plain route's results, one source after the other; of a failure the message."""
    results: list[CaptionResult | str] = []
    for source in sources:
        try:
            results.append(caption_plainly(captioner, source, **settings))  # type: ignore[arg-type]
        except InputError as error:
            results.append(str(error))
    return results


def fast_results(captioner: Captioner, sources: Sequence[Source], **settings: object) -> list[CaptionResult | str]:
    stream = captioner.stream(sources, **settings)  # type: ignore[arg-type]
    return [str(result.error) if isinstance(result, Failure) else result for result in stream]


def mixed_sources(folder: Path) -> list[Source]:
    """Short and long recordings, silence, and failures between them."""
    gap = np.concatenate([noise(12.0, RATE)[:, 0], np.zeros(11 * RATE), noise(3.0, RATE, seed=1)[:, 0]])
    broken = noise(25.0, RATE, seed=2)[:, 0]
    broken[-1] = np.nan
    (folder / "text.wav").write_text("no sound at all")
    return [
        (noise(0.01, RATE), RATE),
        (gap, RATE),
        folder / "missing.wav",
        (broken, RATE),
        (noise(47.3, RATE, seed=3), RATE),
        folder / "text.wav",
        (np.zeros(3 * RATE), RATE),
        (noise(9.9, RATE, seed=4), RATE),
    ]


@pytest.mark.parametrize("window", [10.0, 4.0, 0.0])
def test_many_files_long_files_and_failures_between(tmp_path: Path, window: float) -> None:
    captioner = Captioner(EchoEngine())
    sources = mixed_sources(tmp_path)
    fast = fast_results(captioner, sources, window=window)
    assert fast == plain_results(captioner, sources, window=window)
    assert sum(isinstance(result, str) for result in fast) == 3


def test_the_model_gives_the_same_captions_and_scores(mini: Captioner) -> None:
    sources: list[Source] = sorted(EXAMPLES.glob("*.*"))
    sources = [path for path in sources if Path(str(path)).suffix in (".wav", ".mp3", ".ogg", ".flac")]
    assert len(sources) > 3
    for options in (DecodingOptions(), DecodingOptions(candidates=3, rerank="both")):
        fast, plain = (route(mini, sources, options=options) for route in (fast_results, plain_results))
        assert [words_of(result) for result in fast] == [words_of(result) for result in plain]
        scores = [[score for result in results for score in scores_of(result)] for results in (fast, plain)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)  # sums over 768 units differ with the batch


def words_of(result: CaptionResult | str) -> list[tuple[str, ...]]:
    """What is said of each window, and by its candidates."""
    assert not isinstance(result, str)
    return [(caption.text, *(item.text for item in caption.candidates)) for caption in result.captions]


def scores_of(result: CaptionResult | str) -> list[float]:
    """The scores of all candidates."""
    assert not isinstance(result, str)
    return [item.score for caption in result.captions for item in caption.candidates]


def test_one_captioner_may_be_used_by_several_threads(mini: Captioner) -> None:
    sources: list[Source] = [(noise(seconds, RATE, seed=index), RATE) for index, seconds in enumerate((3.0, 23.0, 1.0))]
    expected = mini.caption(list(sources))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: mini.caption(list(sources)), range(4)))
    assert found == [expected] * 4


class CountingEngine(EchoEngine):
    """Fails the test when two calls of one kind run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.active = {"extract": 0, "generate": 0}
        self.most = 0

    def _count(self, kind: str, work: Callable[[], object]) -> object:
        self.active[kind] += 1
        self.most = max(self.most, self.active[kind])
        threading.Event().wait(0.005)
        result = work()
        self.active[kind] -= 1
        return result

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        return self._count("extract", lambda: super(CountingEngine, self).extract(windows))  # type: ignore[return-value]

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        return self._count("generate", lambda: super(CountingEngine, self).generate(features, options))  # type: ignore[return-value]


def test_threads_take_turns_at_the_engine_and_an_open_stream_blocks_nobody() -> None:
    engine = CountingEngine()
    captioner = Captioner(engine)
    sources: list[Source] = [(noise(1.0, RATE, seed=index), RATE) for index in range(9)]
    half_read = captioner.stream(sources)
    next(half_read)
    expected = [captioner.caption(source) for source in sources]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: captioner.caption(list(sources)), range(4))) == [expected] * 4
    half_read.close()
    assert engine.most == 1


class NotFiniteEngine(EchoEngine):
    """Gives NaN for every window of exactly three seconds."""

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        found = super().extract(windows)
        bad = np.full(2, np.nan, np.float32)
        return [
            Features(item.codes, bad) if window.waveform.seconds == 3.0 else item
            for item, window in zip(found, windows, strict=True)
        ]


def test_features_that_are_not_finite_end_their_input_alone() -> None:
    captioner = Captioner(NotFiniteEngine())
    sources: list[Source] = [(noise(seconds, RATE), RATE) for seconds in (1.0, 3.0, 44.0, 3.0, 2.0)]
    results = list(captioner.stream(sources))
    assert [type(result) for result in results] == [CaptionResult, Failure, CaptionResult, Failure, CaptionResult]
    assert fast_results(captioner, sources) == plain_results(captioner, sources)
    assert isinstance(results[1], Failure) and isinstance(results[1].error, AudioNotFinite)


def test_the_plain_route_is_one_screen_and_enters_few_modules(mini: Captioner) -> None:
    """What a reader of `caption_plainly` opens next; docs/architecture.md lists them."""
    entered = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename.endswith("contextlib.py"):
            caller = caller.f_back
        if caller is not None and caller.f_code is caption_plainly.__code__:
            entered.add(frame.f_code.co_filename.removeprefix(PACKAGE))

    sys.setprofile(note)
    try:
        caption_plainly(mini, EXAMPLES / "fire.wav")
    finally:
        sys.setprofile(None)
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(entered) <= 8 and len(inspect.getsource(caption_plainly).splitlines()) <= 24
    assert inspect.getsource(caption_plainly) in page
    assert sorted(entered) == sorted(re.findall(r"^\| [^|]*\| `([a-z_/]+\.py)` \| [^|]*\|$", page, re.MULTILINE))
