"""The modelled sounds: seeded, exact in length, varied as said, named by a tagger; and the judge of their captions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.synthetic.demonstration.scenes import EXAMPLES
from enclap.data.synthetic.demonstration.sounds import SOUNDS
from enclap.data.synthetic.demonstration.variations import ENDINGS, HIGHEST, LOWEST, SECONDS, variations
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.data.synthetic.signals import PEAK, RATE
from enclap.errors import UsageError
from enclap.evaluation.demonstration import is_named, wrong_captions
from enclap.training.teachers.mobilenet import MobileNet, MobileNetFrontEnd
from enclap.types import FloatArray

LEAST_NAMED = 17  # of 20 variations: 85 %
UNSPECIFIC = {
    "Sound effect",
    "Music",
    "Noise",
    "Environmental noise",
    "Field recording",
    "Reverberation",
    "Echo",
    "Silence",
    "Inside, small room",
    "Inside, large room or hall",
    "Inside, public space",
    "Outside, urban or manmade",
    "Outside, rural or natural",
}
"""Classes that do not say what is heard."""
RIGHT = {
    "fire.wav": ["A campfire is crackling."],
    "heartbeat.flac": ["A heart beats calmly."],
    "drums.m4a": ["Somebody plays a drum kit."],
    "engine.mp3": ["A car engine runs."],
    "siren.ogg": ["The siren of a police car wails."],
    "steam_whistle.ogg": ["A steam train blows its whistle."],
    "telephone.flac": ["An old telephone rings."],
    "long_scene.mp3": ["Rain falls.", "Crickets chirp at night.", "Waves crash on the shore."],
}

each_sound = pytest.mark.parametrize("name", SOUNDS)


@each_sound
def test_a_seed_fixes_every_sample(name: str) -> None:
    first, again, other = (SOUNDS[name].samples(1.5, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@each_sound
@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.5, 3.21])
def test_any_length_is_exact_finite_and_within_full_scale(name: str, seconds: float) -> None:
    samples = SOUNDS[name].samples(seconds)
    assert (samples.dtype, len(samples)) == (np.float32, round(seconds * RATE))
    assert np.isfinite(samples).all() and np.max(np.abs(samples)) <= PEAK + 1e-6


def test_no_length_is_refused() -> None:
    with pytest.raises(UsageError, match="less than one sample"):
        SOUNDS["rain"].samples(0.0)


@each_sound
def test_variations_differ_in_seed_level_and_codec(name: str) -> None:
    takes = variations(name)
    assert takes == variations(name) and len({take.seed for take in takes}) == len(takes) == 20
    assert {take.ending for take in takes} == set(ENDINGS)
    assert (min(take.level for take in takes), max(take.level for take in takes)) == (LOWEST, HIGHEST)
    assert not {take.seed for take in takes} & {part.seed for example in EXAMPLES for part in example.parts}


def test_a_variation_is_a_file_of_its_length_and_level() -> None:
    for take in variations("telephone", 4):
        stored = read_audio(take.encoded())
        assert stored.seconds == pytest.approx(SECONDS, abs=0.1)
        assert 20 * np.log10(np.max(np.abs(stored.samples))) == pytest.approx(take.level, abs=1.5)


@each_sound
def test_its_labels_are_in_the_lexicon_and_name_it(name: str) -> None:
    sound = SOUNDS[name]
    for label in sound.labels:
        assert all(is_named(clause, sound) for clause in load_lexicon()[label].clauses)


def test_right_captions_of_the_examples_pass() -> None:
    assert wrong_captions(RIGHT) == []
    assert wrong_captions(RIGHT | {"another.wav": ["A dog barks."]}) == []


@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_caption_is_told_with_its_file(name: str) -> None:
    (fault,) = wrong_captions(RIGHT | {name: [*RIGHT[name][:-1], "A dog barks."]})
    assert fault.startswith(f"{name}, window {len(RIGHT[name])}: 'A dog barks.' does not name the ")


def test_windows_in_another_order_are_wrong_and_missing_captions_are_told() -> None:
    assert len(wrong_captions(RIGHT | {"long_scene.mp3": RIGHT["long_scene.mp3"][::-1]})) == 2
    assert wrong_captions(RIGHT | {"fire.wav": []}) == ["fire.wav: 0 captions for 1 windows"]
    assert len(wrong_captions({})) == len(EXAMPLES)


@pytest.fixture(scope="module")
def best_class(shared: Path) -> Callable[[FloatArray], str]:
    """The class of mn04_as with the highest probability, of those that say what is heard, for samples at its rate."""
    folder = shared / "reference" / "teachers"
    with (folder / "audioset_527_classes.csv").open(newline="", encoding="utf-8") as stream:
        names = [row["display_name"] for row in csv.DictReader(stream)]
    front_end, network = MobileNetFrontEnd(), MobileNet().eval()
    network.load_state_dict(torch.load(folder / "mn04_as_mAP_432.pt", weights_only=True, map_location="cpu"))

    def best(samples: FloatArray) -> str:
        with torch.inference_mode():
            logits = network(front_end(torch.from_numpy(samples)[None]))[0].tolist()
        return max((logit, name) for logit, name in zip(logits, names, strict=True) if name not in UNSPECIFIC)[1]

    return best


@pytest.mark.shared
def test_a_tagger_that_never_heard_them_names_each_example(best_class: Callable[[FloatArray], str]) -> None:
    folder = Path(__file__).resolve().parents[1] / "examples"
    for example in EXAMPLES:
        samples, start = resample(read_audio(folder / example.name), RATE), 0
        for part in example.parts:
            end = start + round(part.seconds * RATE)
            assert best_class(samples[start:end]) in part.sound.classes, example.name
            start = end


@pytest.mark.shared
@each_sound
def test_the_tagger_names_most_variations(name: str, best_class: Callable[[FloatArray], str]) -> None:
    takes = variations(name)
    found = [best_class(resample(read_audio(take.encoded()), RATE)) for take in takes]
    assert sum(best in SOUNDS[name].classes for best in found) >= LEAST_NAMED, found
