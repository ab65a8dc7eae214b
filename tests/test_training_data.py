"""What training draws: views, scenes, items and batches depend on seed and number alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.mel import MelFrontEnd
from enclap.data.feature_store import Clip
from enclap.data.recordings import Corpus, Recording
from enclap.data.synthetic.grammar import canonical
from enclap.data.synthetic.scenes import LONGEST, SceneComposer, SceneMix
from enclap.errors import DataError
from enclap.training.collate import CaptionCollator
from enclap.training.dataset import CaptionItems, Perturbation, clip_lengths, draw_item, perturb
from enclap.training.mini.augment import FLOOR_DB, Augmentation, add_powers, draw_view, open_mel_bank
from enclap.training.tokenizer import train_tokenizer
from enclap.types import Features
from feature_clips import clips

RATE = 8_000
FRONT_END = MelFrontEnd(RATE, 10 * RATE, 256, 160, 16, 50.0, 3_500.0)
LABELS = ("dog barking", "rain", "rooster crowing", "helicopter", "person speaking", "bell ringing")
KINDS = ("order", "together", "background", "covered", "three")


def recording(label: str, number: int, split: str = "train") -> Recording:
    return Recording(
        path=f"{number}.wav",
        labels=(label,),
        description="",
        source_repo="made/here",
        source_path="",
        author="nobody",
        licence="CC0 1.0",
        split=split,
        fold=None,
        seconds=1.0,
        source_url="",
        recording=f"r{number}",
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Two recordings a label, tones and noises of 0.3 to 14 s."""
    generator = np.random.default_rng(0)
    recordings, parts = [], []
    for number in range(2 * len(LABELS)):
        samples = int(RATE * (0.3, 2.0, 14.0)[number % 3])
        tone = np.sin(np.arange(samples) * (0.05 + 0.02 * number)) + 0.1 * generator.standard_normal(samples)
        parts.append((tone * 8_000).astype(np.int16))
        recordings.append(recording(LABELS[number // 2], number))
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Corpus(tuple(recordings), RATE, np.concatenate(parts), starts)


def composer(corpus: Corpus, seed: int = 0, mix: SceneMix | None = None) -> SceneComposer:
    return SceneComposer(corpus, dict.fromkeys(range(len(corpus)), 1.0), mix or SceneMix(), seed)


def test_a_scene_depends_on_seed_and_number_alone(corpus: Corpus) -> None:
    forward = [composer(corpus).draw(number) for number in (3, 4)]
    backward = [composer(corpus).draw(number) for number in (4, 3)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert np.array_equal(one.waveform.samples, other.waveform.samples)
        assert one.description == other.description
    assert composer(corpus, seed=1).draw(3).description != forward[0].description


def test_scenes_may_be_shorter_than_a_window(corpus: Corpus) -> None:
    draw = composer(corpus, mix=SceneMix(0.5, 0.3, 0.0, 0.0, 0.0, longest=2.0)).draw
    assert all(0.0 < draw(number).waveform.seconds <= 2.0 for number in range(12))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scene_says_what_it_holds(corpus: Corpus, kind: str) -> None:
    chances = dict.fromkeys(KINDS, 0.0) | {kind: 1.0}
    draw = composer(corpus, mix=SceneMix(**chances)).draw
    for number in range(12):
        scene = draw(number)
        assert 0.0 < scene.waveform.seconds <= LONGEST
        assert np.isfinite(scene.waveform.samples).all() and np.abs(scene.waveform.samples).max() <= 1.0
        labels = {corpus.recordings[index].label for index in scene.recordings}
        sounds = scene.description.sounds
        assert {sound.label for sound in sounds} <= labels and 1 <= len(sounds) <= len(scene.recordings)
        assert any(sound.background for sound in sounds) == (kind == "background")
        assert canonical(scene.description).endswith(".")


def test_filled_scenes_give_each_sound_an_equal_share(corpus: Corpus) -> None:
    mix = SceneMix(**dict.fromkeys(KINDS, 0.0) | {"order": 1.0}, filled=True)
    lengths = set()
    for number in range(24):
        scene = composer(corpus, mix=mix).draw(number)
        first, second = scene.description.sounds
        length = round(scene.waveform.seconds, 3)
        lengths.add(length)
        shares = scene.waveform.seconds if length < LONGEST else LONGEST
        assert first.start <= LONGEST / 6 and first.end <= second.start
        assert second.end <= shares and second.start >= 0.55 * LONGEST / 2
    assert LONGEST in lengths and len(lengths) > 4


def test_the_length_of_a_filled_scene_does_not_give_its_kind_away(corpus: Corpus) -> None:
    whole = {}
    for kind in ("order", "single", "background"):
        chances = dict.fromkeys(KINDS, 0.0) | {kind: 1.0}
        chances.pop("single", None)
        draw = composer(corpus, mix=SceneMix(**chances, filled=True)).draw
        lengths = [draw(number).waveform.seconds for number in range(60)]
        whole[kind] = sum(seconds > LONGEST - 0.01 for seconds in lengths) / len(lengths)
    assert all(0.2 < share < 0.8 for share in whole.values()), whole


def test_recordings_of_too_few_kinds_for_scenes_are_refused_instead_of_searched_for_ever(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="sounds of 2 families"):
        SceneComposer(corpus, dict.fromkeys(range(4), 1.0), SceneMix(), 0)
    brief = ("aluminum foil crinkling", "bag being crumpled", "ball bouncing")
    recordings = tuple(replace(item, labels=(brief[number % 3],)) for number, item in enumerate(corpus.recordings))
    without_background = replace(corpus, recordings=recordings)
    with pytest.raises(DataError, match="no continuous sound"):
        composer(without_background)
    with pytest.raises(DataError, match="no speech or music"):
        composer(without_background, mix=SceneMix(background=0.0))
    assert composer(without_background, mix=SceneMix(background=0.0, covered=0.0)).draw(1).recordings


def test_a_covered_sound_lies_under_speech_and_both_are_said(corpus: Corpus) -> None:
    draw = composer(corpus, mix=SceneMix(**dict.fromkeys(KINDS, 0.0) | {"covered": 1.0})).draw
    scenes = [draw(number) for number in range(12)]
    assert all(scene.description.sounds[0].label == "person speaking" for scene in scenes)
    both = [scene for scene in scenes if len(scene.description.sounds) == 2]
    assert len(both) >= 8 and all(" " in canonical(scene.description) for scene in both)
    for scene in both:
        over, under = scene.description.sounds
        assert over.start == 0.0 and over.end == pytest.approx(scene.waveform.seconds) and under.end <= over.end + 1e-6


def test_what_else_sounds_in_a_recording_is_said_of_it(corpus: Corpus) -> None:
    rain = [number for number, item in enumerate(corpus.recordings) if item.label == "rain"]
    weights, mix = dict.fromkeys(range(len(corpus)), 1.0), SceneMix(**dict.fromkeys(KINDS, 0.0))
    draw = SceneComposer(corpus, weights, mix, 0, companions=dict.fromkeys(rain, ("wind",))).draw
    for scene in (draw(number) for number in range(40)):
        [first, *others] = scene.description.sounds
        said = [sound.label for sound in others]
        assert said == (["wind"] if first.label == "rain" and not first.distant else [])


def test_sounds_in_order_do_not_overlap_and_are_all_audible(corpus: Corpus) -> None:
    mix = SceneMix(**dict.fromkeys(KINDS, 0.0) | {"order": 1.0})
    for number in range(12):
        scene = composer(corpus, mix=mix).draw(number)
        first, second = scene.description.sounds
        assert first.end <= second.start
        for sound in (first, second):
            part = scene.waveform.samples[int(sound.start * RATE) : int(sound.end * RATE)]
            assert np.sqrt(np.square(part).mean()) > 1e-3


def test_a_view_is_seeded_and_never_below_the_floor(corpus: Corpus, tmp_path: Path) -> None:
    bank = open_mel_bank(corpus, FRONT_END, tmp_path)
    again = open_mel_bank(corpus, FRONT_END, tmp_path)
    assert np.array_equal(bank.mels, again.mels)
    chances = np.cumsum(np.full(len(corpus), 1 / len(corpus)))
    for number in range(20):
        one, other = (draw_view(bank, chances, Augmentation(), np.random.default_rng(number)) for _ in range(2))
        assert one.mel.shape == (FRONT_END.frames, FRONT_END.bands) and one.mel.dtype == np.float32
        assert one.mel.min() >= FLOOR_DB and sum(one.shares) == pytest.approx(1.0)
        assert np.array_equal(one.mel, other.mel)


def test_powers_add() -> None:
    total = add_powers(np.float32([-20.0, -20.0]), np.float32([-20.0, -90.0]))
    assert total == pytest.approx([-20.0 + 10 * np.log10(2), -20.0], abs=1e-4)


def items(seed: int = 0, batch_size: int = 4, codes_dropout: float = 0.0) -> CaptionItems:
    tokenizer = train_tokenizer(["A dog barks.", "Rain falls."], 300)
    made = clips(20)
    perturbation = Perturbation(codes_dropout=codes_dropout)
    return CaptionItems(made, np.ones(20), tokenizer, 32, perturbation, batch_size=batch_size, seed=seed)


def test_an_item_depends_on_seed_and_number_alone() -> None:
    one, other = items(), items()
    numbers = list(range(80))
    for number in reversed(numbers):
        other(number)
    for number in numbers:
        left, right = one(number), other(number)
        assert np.array_equal(left.codes, right.codes) and np.array_equal(left.labels, right.labels)
        assert left.embedding is not None and np.array_equal(left.embedding, right.embedding)
    assert any(not np.array_equal(one(number).codes, items(seed=1)(number).codes) for number in numbers[:5])


def test_hidden_codes_are_labelled_and_nothing_else() -> None:
    draw = items()
    for number in range(64):
        item = draw(number)
        assert np.array_equal(item.codes == 32, item.mcm_labels != -100)
        assert item.labels[0] == 0 and item.labels[-1] == 2


def test_dropped_codes_are_all_hidden_and_none_is_to_be_restored() -> None:
    draw = items(codes_dropout=0.25)
    dropped = [item for item in map(draw, range(400)) if (item.codes == 32).all()]
    assert 60 <= len(dropped) <= 140
    assert all((item.mcm_labels == -100).all() for item in dropped)


def test_a_batch_pads_codes_and_both_kinds_of_labels() -> None:
    draw = items()
    batch = CaptionCollator(32, limit=25)([draw(number) for number in range(8)])
    assert batch["codes"].shape == batch["mcm_labels"].shape and batch["codes"].shape[1] <= 25
    padding = batch["code_mask"] == 0
    assert (batch["codes"][padding] == 32).all() and (batch["mcm_labels"][padding] == -100).all()
    assert batch["clap_embedding"].shape == (8, 5)


def test_a_batch_of_spectrograms_has_them_in_the_place_of_codes() -> None:
    generator = np.random.default_rng(0)
    tokenizer = train_tokenizer(["A dog barks."], 320)
    clips = []
    for frames in (4, 9, 30):
        features = Features(
            np.zeros((0, 3), dtype=np.int64), None, generator.normal(size=(frames, 6)).astype(np.float32)
        )
        clips.append(Clip(str(frames), features, ("A dog barks.",), (), 1.0))
    assert clip_lengths(clips).tolist() == [4, 9, 30]
    drawn = [draw_item(clip, None, generator, Perturbation(), tokenizer, 32, limit=20) for clip in clips]
    batch = CaptionCollator(32, limit=20)(drawn)
    assert batch["log_mel"].shape == (3, 20, 6) and "codes" not in batch and "mcm_labels" not in batch
    assert batch["code_mask"].sum(dim=1).tolist() == [4, 9, 20] and not batch["log_mel"][0, 4:].any()
    np.testing.assert_array_equal(batch["log_mel"][1, :9], clips[1].features.log_mel)
    whole = clips[2].features.log_mel
    assert whole is not None and drawn[2].log_mel is not None
    assert any(np.array_equal(whole[start : start + 20], drawn[2].log_mel) for start in range(11)), "a part of it"


def test_a_batch_holds_clips_of_like_length() -> None:
    draw = items(batch_size=8)
    spreads = []
    for start in range(0, 128, 8):
        lengths = [len(draw(number).codes) for number in range(start, start + 8)]
        spreads.append(max(lengths) - min(lengths))
    assert np.mean(spreads) < 8  # of 40 frames


def test_a_perturbed_embedding_is_a_unit_vector_or_zeros() -> None:
    vector = np.float32([1.0, 0.0, 0.0, 0.0, 0.0])
    generator = np.random.default_rng(0)
    lengths = {round(float(np.linalg.norm(perturb(vector, Perturbation(), generator))), 4) for _ in range(200)}
    assert lengths == {0.0, 1.0}


def test_the_tokenizer_gives_every_text_back() -> None:
    tokenizer = train_tokenizer(["A dog barks.", "Rain falls."], 300)
    assert [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>")] == [0, 1, 2]
    for text in ("A dog barks.", "Ünïcode — 雨 \t!"):
        encoded = tokenizer.encode(text)
        assert tokenizer.decode(encoded.ids) == text and (encoded.ids[0], encoded.ids[-1]) == (0, 2)
