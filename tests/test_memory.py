"""What a model remembers of recordings: recall, proposals, its file, and what the selection makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enclap import Captioner
from enclap.decoding.calibration import VERSION, Calibration
from enclap.decoding.memory import ALONE, FILE_NAME, SoundMemory, rounded
from enclap.decoding.options import DecodingOptions
from enclap.decoding.ranking import unit
from enclap.decoding.selection import SentenceSelector
from enclap.errors import ModelError
from enclap.types import Candidate, Features, FloatArray, embedding_of

WIDTH = 8
NAMES = ("dog", "bell", "rain", "crow", "saw", "horn")
AXES = np.eye(WIDTH, dtype=np.float32)
CURVE = Calibration(version=VERSION, slope=3.0, offset=1.5, threshold=0.0, similarity=4.0, nearness=1.0, halves=0.5)


def memory_of(spread: float = 0.1, copies: int = 5) -> SoundMemory:
    """Concepts whose names lie on axes, and recordings of them that lie beside the next axis but one."""
    generator = np.random.default_rng(0)
    concepts = np.repeat(np.arange(len(NAMES)), copies)
    sounds: FloatArray = AXES[concepts] + np.float32(0.8) * AXES[(concepts + 2) % WIDTH]
    sounds += np.asarray(spread * generator.normal(size=sounds.shape), np.float32)
    texts = np.tile(AXES[: len(NAMES)], 3)
    clauses = tuple(f"a {name} sounds" for name in NAMES)
    return SoundMemory(unit(sounds), concepts, unit(texts), clauses, tuple(f"A {name} sounds alone." for name in NAMES))


def heard(*spans: FloatArray) -> FloatArray:
    """The embedding of a window with these parts."""
    return unit(np.concatenate([unit(span) for span in spans]))


def sound(concept: int) -> FloatArray:
    """How a concept sounds."""
    both: FloatArray = AXES[concept] + np.float32(0.8) * AXES[(concept + 2) % WIDTH]
    return both


def test_a_window_is_drawn_to_the_names_of_what_sounds_alike() -> None:
    memory = memory_of()
    window = heard(sound(1), sound(1), sound(3))
    recalled = memory.recall(window)
    assert recalled.dtype == np.float32 and np.linalg.norm(recalled) == pytest.approx(1.0)
    before, after = (unit(item.reshape(3, WIDTH)) for item in (window, recalled))
    for part, concept in zip(range(3), (1, 1, 3), strict=True):
        assert after[part] @ AXES[concept] > before[part] @ AXES[concept] + 0.1
        expected = unit(before[part] + AXES[concept])
        np.testing.assert_allclose(after[part], expected, atol=0.02)


def test_what_nothing_in_the_memory_sounds_like_is_drawn_to_no_single_name() -> None:
    memory = memory_of(spread=0.0)
    strange = heard(*[np.ones(WIDTH, np.float32)] * 3)
    drawn = unit(memory.recall(strange).reshape(3, WIDTH))[0]
    assert np.ptp(drawn[: len(NAMES)]) < 0.05


def test_the_concepts_that_are_nearest_are_proposed_alone_and_in_order() -> None:
    memory = memory_of()
    same = heard(sound(0), sound(0), sound(0))
    proposals = memory.proposals(same, memory.recall(same), changes=False)
    assert len(proposals) == ALONE and proposals[0].text == "A dog sounds alone."
    assert [item.nearness for item in proposals] == sorted((item.nearness for item in proposals), reverse=True)
    row = heard(sound(0) + sound(1), sound(0), sound(1))
    texts = {item.text: item.nearness for item in memory.proposals(row, memory.recall(row), changes=True)}
    told = "A dog sounds, and then a bell sounds."
    assert texts[told] == max(value for text, value in texts.items() if "then" in text)
    assert "A dog sounds, and then a dog sounds." not in texts


def test_a_sound_under_another_is_found_in_what_is_left_of_the_window() -> None:
    memory = memory_of(spread=0.02)
    covered = sound(0) + np.float32(0.5) * sound(1)
    window = heard(covered, covered, covered)
    texts = [item.text for item in memory.proposals(window, memory.recall(window), changes=True)]
    assert "A dog sounds while a bell sounds." in texts
    alike = replace(memory, texts=unit(np.tile(AXES[: len(NAMES)] + 2.0, 3)))
    told = [item.text for item in alike.proposals(window, alike.recall(window), changes=True)]
    assert not [text for text in told if " while " in text]  # one name for both


def test_a_memory_is_written_and_read(tmp_path: Path) -> None:
    assert SoundMemory.read(tmp_path) is None
    memory = memory_of()
    memory.write(tmp_path)
    again = SoundMemory.read(tmp_path)
    assert again is not None and (again.clauses, again.sentences) == (memory.clauses, memory.sentences)
    np.testing.assert_array_equal(again.concepts, memory.concepts)
    np.testing.assert_allclose(again.sounds @ memory.sounds.T, memory.sounds @ memory.sounds.T, atol=0.01)
    assert np.linalg.norm(again.texts, axis=1) == pytest.approx(1.0)
    before = (tmp_path / FILE_NAME).read_bytes()
    again.write(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert np.abs(rounded(memory.sounds)).max(axis=1).tolist() == [127] * len(memory.sounds)


def test_a_memory_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    memory_of().write(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"memory\.npz: not a memory"):
            SoundMemory.read(tmp_path)
    path.write_bytes(whole)
    with np.load(path) as data:
        parts = {name: data[name] for name in data.files}
    for fault in (
        {"version": np.int64(99)},
        {"concepts": parts["concepts"] + 100},
        {"concepts": parts["concepts"][:-1]},
        {"texts": parts["texts"][:-1]},
        {"said": np.frombuffer(b"{}", np.uint8)},
    ):
        np.savez(path, **(parts | fault))
        with pytest.raises(ModelError, match=r"memory\.npz: not a memory"):
            SoundMemory.read(tmp_path)


class Listener:
    """Says what it was given; texts lie where the memory has their concepts."""

    def __init__(self) -> None:
        self.given: list[FloatArray] = []

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        self.given += [embedding_of(clip) for clip in features]
        beam = [Candidate((0,), text, score) for text, score in (("A crow sounds.", -0.3), ("A dog sounds alone.", -4))]
        return [beam[: options.candidates] for _ in features]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        rows = [sum(AXES[place] for place, name in enumerate(NAMES) if name in text) for text in texts]
        return unit(np.array([np.tile(row, 3) for row in rows], np.float32))


def test_the_model_reads_what_was_recalled_and_the_memory_proposes() -> None:
    memory, listener = memory_of(), Listener()
    clip = Features(np.zeros((4, 2), np.int64), heard(sound(4), sound(4), sound(4)))
    options = DecodingOptions(beams=2, candidates=2)
    shown = SentenceSelector(listener, CURVE, memory).select([clip], options)[0]
    np.testing.assert_array_equal(listener.given[0], memory.recall(embedding_of(clip)))
    assert shown.text == "A saw sounds alone." and shown.candidates[0].token_ids == ()
    assert len(shown.candidates) == 2 and shown.score == shown.candidates[0].score
    without = SentenceSelector(Listener(), CURVE).select([clip], options)[0]
    assert without.text == "A crow sounds."
    uncalibrated = Listener()
    assert SentenceSelector(uncalibrated, None, memory).select([clip], options)[0].text == "A crow sounds."
    np.testing.assert_array_equal(uncalibrated.given[0], embedding_of(clip))


def test_a_sentence_that_the_search_has_found_is_proposed_once() -> None:
    clip = Features(np.zeros((4, 2), np.int64), heard(sound(0), sound(0), sound(0)))
    [beam] = SentenceSelector(Listener(), CURVE, memory_of()).rank([clip], DecodingOptions(beams=2, candidates=2))
    texts = [item.text for item in beam.candidates]
    assert texts.count("A dog sounds alone.") == 1 and len(texts) == 2 + ALONE - 1
    sampled = DecodingOptions(sample=True, candidates=2)
    [drawn] = SentenceSelector(Listener(), CURVE, memory_of()).rank([clip], sampled)
    assert all(item.token_ids for item in drawn.candidates)


def test_clips_do_not_change_each_other() -> None:
    generator = np.random.default_rng(1)
    clips = [
        Features(np.zeros((4, 2), np.int64), heard(*generator.normal(size=(3, WIDTH)).astype(np.float32)))
        for _ in range(6)
    ]
    selector, options = SentenceSelector(Listener(), CURVE, memory_of()), DecodingOptions()
    together = selector.select(clips, options)
    assert together == [selector.select([clip], options)[0] for clip in clips]


def test_the_bundled_model_remembers_what_it_was_trained_on() -> None:
    captioner = Captioner.from_pretrained("mini")
    memory = captioner.memory
    assert memory is not None and len(memory.sounds) > 3_000 and len(memory.sentences) > 1_000
    assert captioner.calibration is not None and captioner.calibration.halves is not None
    kept = memory.recall(memory.texts[0])
    assert kept.shape == memory.texts[0].shape
