"""The bundled model: its size, its agreement between engines on real recordings, and that it hears."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from agreement import GREEDY, assert_candidates_agree, released_options
from cli import Run
from enclap import Captioner
from enclap.audio.read import read_audio
from enclap.data.recordings import Recording, read_manifest
from enclap.engines import Engine, load_engine
from enclap.evaluation.hearing import mentions_label
from enclap.hub.integrity import check_folder
from enclap.hub.resolve import find_model
from enclap.types import Features, Waveform, Window

LARGEST = 40_000_000  # bytes of weights
CLIPS = 200


def test_it_is_small_and_undamaged() -> None:
    folder = find_model("mini")
    check_folder(folder, hashes=True)
    weights = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".onnx")]
    assert len(weights) == 9 and sum(path.stat().st_size for path in weights) < LARGEST


def test_an_example_is_captioned_the_same_on_every_run() -> None:
    path = Path(__file__).resolve().parents[1] / "examples" / "long_scene.mp3"
    first, second = (Captioner.from_pretrained("mini").caption(path) for _ in range(2))
    assert first == second and len(first.captions) == 3
    assert all(caption.text.endswith(".") for caption in first.captions)


def test_the_command_gives_the_captions_and_probabilities_of_the_captioner(enclap: Run) -> None:
    path = Path(__file__).resolve().parents[1] / "examples" / "fire.wav"
    done = enclap("caption", path, "--model", "mini", "--format", "jsonl")
    found = json.loads(done.stdout)["captions"][0]
    expected = Captioner.from_pretrained("mini").caption(path).captions[0]
    assert found["text"] == expected.text and expected.score is not None and 0.0 < expected.score < 1.0
    assert found["score"] == pytest.approx(expected.score, abs=1e-3)


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[tuple[Path, Recording]]:
    folder = shared / "data" / "sounds"
    return [(folder / row.path, row) for row in read_manifest(folder / "manifest.csv")]


@pytest.fixture(scope="module")
def engines() -> tuple[Engine, Engine]:
    folder = find_model("mini")
    return load_engine(folder, engine="onnx"), load_engine(folder, engine="torch")


@pytest.fixture(scope="module")
def features(recordings: list[tuple[Path, Recording]], engines: tuple[Engine, Engine]) -> list[Features]:
    """Of the first ten seconds of 200 recordings from all over the collection."""
    windows = []
    for path, _ in itertools.islice(recordings, 0, None, len(recordings) // CLIPS):
        waveform = read_audio(path)
        samples = waveform.samples[: 10 * waveform.rate]
        windows.append(Window(Waveform(samples, waveform.rate), 0.0, len(samples) / waveform.rate))
    return engines[0].extract(windows)


@pytest.mark.shared
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [GREEDY, released_options()], ids=["greedy", "beam 4"])
def test_both_engines_write_the_same_captions(
    engines: tuple[Engine, Engine], features: list[Features], options: object
) -> None:
    assert len(features) >= CLIPS
    onnx, torch = engines
    together = onnx.generate(features, options)  # type: ignore[arg-type]
    assert_candidates_agree(together, torch.generate(features, options))  # type: ignore[arg-type]
    some = features[::10]
    alone = [onnx.generate([clip], options)[0] for clip in some]  # type: ignore[arg-type]
    assert_candidates_agree(alone, together[::10])


@pytest.mark.shared
def test_it_hears_far_above_chance(recordings: list[tuple[Path, Recording]]) -> None:
    """On the classes of ESC-10 it was trained on; `enclap.evaluation.mini_hearing` says how well it does on others."""
    chosen = [item for item in recordings if item[1].fold == 1][::3]
    results = Captioner.from_pretrained("mini").caption([path for path, _ in chosen])
    hits = [mentions_label(result.text, row.label) for result, (_, row) in zip(results, chosen, strict=True)]
    assert np.mean(hits) > 0.3  # a constant caption: 0.1
