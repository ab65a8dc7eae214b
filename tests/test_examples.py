"""The committed example sounds: what their script makes, small, captioned by the command, long enough for windows."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from cli import Run
from enclap import Captioner
from enclap.audio.read import open_audio, read_audio
from enclap.audio.resample import resample
from enclap.audio.window import split_windows
from enclap.data.synthetic.demonstration.scenes import EXAMPLES, Example
from enclap.data.synthetic.demonstration.sounds import SOUNDS
from enclap.data.synthetic.demonstration.variations import variations
from enclap.data.synthetic.signals import RATE
from enclap.evaluation.demonstration import is_named, wrong_captions
from enclap.types import FloatArray

FOLDER = Path(__file__).resolve().parents[1] / "examples"
LARGEST_FILE = 300_000  # bytes
DELAY = 0.1  # seconds by which a lossy codec may shift a sound
BY_NAME = {example.name: example for example in EXAMPLES}

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)


def best_similarity(first: FloatArray, second: FloatArray) -> float:
    """The largest normalised correlation over shifts of up to `DELAY`: 1 for the same sound."""
    size = 1 << int(len(first) + len(second)).bit_length()
    product = np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size))
    correlation = np.fft.irfft(product, size)
    reach = round(DELAY * RATE)
    near = np.concatenate([correlation[:reach], correlation[-reach:]])
    return float(near.max() / (np.linalg.norm(first) * np.linalg.norm(second)))


@each_example
def test_a_committed_file_holds_what_the_script_makes(example: Example) -> None:
    path = FOLDER / example.name
    made, stored = example.samples(), resample(read_audio(path), RATE)
    assert len(stored) / RATE == pytest.approx(example.seconds, abs=DELAY)
    assert best_similarity(made, stored) > 0.97
    assert path.stat().st_size <= LARGEST_FILE


@pytest.mark.parametrize("name", ["fire.wav", "telephone.flac"])
def test_lossless_files_are_exact_to_one_step_of_sixteen_bits(name: str) -> None:
    np.testing.assert_allclose(read_audio(FOLDER / name).samples, BY_NAME[name].samples(), atol=1.01 / 32_768)


@pytest.mark.parametrize("name", ["fire.wav", "telephone.flac", "drums.m4a", "engine.mp3", "steam_whistle.ogg"])
def test_encoding_again_gives_the_same_bytes(name: str) -> None:
    assert BY_NAME[name].encoded() == BY_NAME[name].encoded()


def test_the_folder_holds_these_files_and_nothing_else_to_caption() -> None:
    found = {path.name for path in FOLDER.iterdir() if path.suffix not in (".py", ".md", "")}
    assert found == set(BY_NAME) and len(found) == 8


def test_the_readme_of_the_folder_says_what_is_in_each() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in BY_NAME if f"| `{name}` | " not in text] == []


def test_the_script_writes_every_file_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "rebuild.py"))["write_examples"](tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(BY_NAME)
    assert len(capsys.readouterr().out.splitlines()) == len(EXAMPLES)


@each_example
def test_each_window_of_the_captioner_holds_one_part(example: Example) -> None:
    with open_audio(FOLDER / example.name) as audio:
        windows = list(split_windows(audio.blocks, audio.rate))
    assert len(windows) == len(example.parts)
    lengths = [window.end - window.start for window in windows]
    np.testing.assert_allclose(lengths, [part.seconds for part in example.parts], atol=DELAY)


def test_one_example_is_long_enough_for_several_windows() -> None:
    assert max(len(example.parts) for example in EXAMPLES) == 3


def test_the_command_captions_every_example(enclap: Run) -> None:
    done = enclap("caption", FOLDER, "--model", "mini", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    captions = {Path(line["path"]).name: [window["text"] for window in line["captions"]] for line in lines}
    assert {name: len(texts) for name, texts in captions.items()} == {e.name: len(e.parts) for e in EXAMPLES}
    assert all(text.endswith(".") and len(text.split()) > 1 for texts in captions.values() for text in texts)


def test_mini_says_of_each_window_of_the_examples_what_a_listener_would() -> None:
    results = Captioner.from_pretrained("mini").caption([FOLDER / example.name for example in EXAMPLES])
    captions = {
        example.name: [caption.text for caption in result.captions]
        for example, result in zip(EXAMPLES, results, strict=True)
    }
    assert wrong_captions(captions) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SOUNDS))
def test_mini_names_variations_of_an_example(name: str, tmp_path: Path) -> None:
    takes = variations(name)
    for number, take in enumerate(takes):
        (tmp_path / f"{number:02}.{take.ending}").write_bytes(take.encoded())
    results = Captioner.from_pretrained("mini").caption(sorted(tmp_path.iterdir()))
    named = [is_named(result.text, SOUNDS[name]) for result in results]
    assert sum(named) >= 0.85 * len(takes), [result.text for result in results]
