"""Calibrated scores: the curve, its file, the vaguer sentence, and what the captioner makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from enclap import Captioner
from enclap.decoding.calibration import FILE_NAME, Calibration
from enclap.decoding.options import DecodingOptions
from enclap.decoding.selection import SentenceSelector, is_doubtful, repeats_last, repeats_phrase, weigh
from enclap.engines import load_engine
from enclap.errors import ModelError
from enclap.evaluation import calibration
from enclap.evaluation.calibration import (
    THRESHOLDS,
    ScoredCaption,
    calibration_error,
    fit_calibration,
    fit_logistic,
    named_shares,
    reliability,
    score_captions,
    vague_sentences,
)
from enclap.evaluation.sound_pairs import LabelledClip
from enclap.types import Candidate, Features, FloatArray, Waveform
from sounds import noise

CURVE = Calibration(version=1, slope=3.0, offset=1.5, threshold=0.3, vague=("Metal clangs.", "A bird calls."))


def test_the_curve_is_found_again_in_what_it_made() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(-0.5, 0.5, 20_000)
    right = (generator.random(20_000) < 1.0 / (1.0 + np.exp(-(4.0 * scores + 1.0)))).astype(np.float64)
    slope, offset = fit_logistic(scores, right)
    assert slope == pytest.approx(4.0, rel=0.05) and offset == pytest.approx(1.0, abs=0.1)
    probabilities = 1.0 / (1.0 + np.exp(-(slope * scores + offset)))
    assert calibration_error(reliability(probabilities, right, 10)) < 0.02
    assert calibration_error(reliability(np.full(20_000, 0.9), right, 10)) > 0.2


def test_scores_that_part_perfectly_give_a_finite_curve() -> None:
    slope, offset = fit_logistic(np.array([-2.0, -1.5, -0.2, -0.1]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isfinite([slope, offset]).all() and slope > 0


def scored(label: str, text: str, score: float, vaguer: str = "Something.") -> ScoredCaption:
    return ScoredCaption((label,), text, score, vaguer)


def test_the_threshold_is_that_under_which_vaguer_sentences_help_most() -> None:
    doubtful = [scored("helicopter", "Rain falls.", -2.0 - 0.01 * n, "An aircraft flies by.") for n in range(20)]
    sure = [scored("rain", "Rain falls.", -0.1 - 0.001 * n, "An aircraft flies by.") for n in range(20)]
    pairs = [ScoredCaption(("rain", "helicopter"), "Rain falls.", -1.0, "An aircraft flies by.")] * 5
    found = fit_calibration([*doubtful, *sure, *pairs])
    assert found.slope > 0 and 0 < found.threshold < 0.5 and found.vague == vague_sentences() and found.phrase == 3
    assert named_shares([*doubtful, *sure], found) == (0.5, 1.0)  # each aircraft by its family, all rain by its name
    curve = found.model_copy(update={"threshold": 0.0})
    rates = [named_shares([*doubtful, *sure], curve.model_copy(update={"threshold": t}))[1] for t in THRESHOLDS]
    assert found.threshold == THRESHOLDS[int(np.argmax(rates))]


def test_vaguer_sentences_that_never_help_are_left_out() -> None:
    captions = [scored("rain", text, -score) for score, text in enumerate(["Rain falls.", "Rain.", "Wind.", "A dog."])]
    found = fit_calibration(captions)
    assert found.threshold == 0.0 and found.vague == ()


def test_scores_are_those_of_the_model_without_its_calibration(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SIMILARITY", 0.0)
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    CURVE.write(folder)
    clips = [LabelledClip(("rain",), Waveform(noise(length, 16_000, seed=3)[:, 0], 16_000)) for length in (1.0, 2.0)]
    captions = score_captions(load_engine(folder), clips)
    (folder / FILE_NAME).unlink()
    plain = Captioner.from_pretrained(folder)
    for clip, caption in zip(clips, captions, strict=True):
        beam = plain.caption((clip.waveform.samples, 16_000), DecodingOptions(candidates=4)).captions[0].candidates
        best = repeats_last(beam, 3)[0]
        assert (caption.text, caption.score) == (best.text, best.score) and caption.vaguer in vague_sentences()


def test_a_calibration_is_written_read_and_refused_when_it_is_none(tmp_path: Path) -> None:
    assert Calibration.read(tmp_path) is None
    CURVE.write(tmp_path)
    assert Calibration.read(tmp_path) == CURVE
    table = json.loads((tmp_path / FILE_NAME).read_text())
    for fault in ({"version": 2}, {"slope": -1.0}, {"colour": "red"}):
        (tmp_path / FILE_NAME).write_text(json.dumps(table | fault))
        with pytest.raises(ModelError, match=next(iter(fault))):
            Calibration.read(tmp_path)


def test_captions_that_tell_several_sounds_stay() -> None:
    assert is_doubtful(CURVE, "A clock ticks.", 0.1) and not is_doubtful(CURVE, "A clock ticks.", 0.5)
    assert not is_doubtful(CURVE, "A clock ticks, and then a dog barks.", 0.1)
    assert not is_doubtful(CURVE, "A clock ticks while it rains.", 0.1)
    assert not is_doubtful(CURVE.model_copy(update={"vague": ()}), "A clock ticks.", 0.1)


def test_a_caption_that_repeats_a_phrase_is_doubtful_however_long() -> None:
    strict, twice = CURVE.model_copy(update={"phrase": 3}), "A dog barks loudly, and then a dog barks in the distance."
    assert is_doubtful(strict, twice, 0.9) and not is_doubtful(CURVE, twice, 0.9)
    assert not is_doubtful(strict.model_copy(update={"vague": ()}), twice, 0.9)


def test_doubtful_captions_give_way_to_the_nearest_vaguer_sentence(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    source = (noise(2.0, 16_000), 16_000)
    plain = Captioner.from_pretrained(folder).caption(source).captions[0]
    raw = plain.candidates[0].score
    assert plain.score == raw
    Calibration(version=1, slope=1.0, offset=0.0, threshold=0.0, vague=CURVE.vague).write(folder)
    sure = Captioner.from_pretrained(folder).caption(source).captions[0]
    assert sure.text == plain.text and sure.score == pytest.approx(1.0 / (1.0 + np.exp(-raw)))
    Calibration(version=1, slope=1.0, offset=0.0, threshold=1.0, longest=99, vague=CURVE.vague).write(folder)
    captioner = Captioner.from_pretrained(folder)
    doubtful = captioner.caption(source).captions[0]
    assert doubtful.text in CURVE.vague and doubtful.score == sure.score
    assert [item.text for item in doubtful.candidates] == [item.text for item in plain.candidates]
    again = [result.captions[0] for result in captioner.caption([source, (noise(1.0, 16_000, seed=3), 16_000), source])]
    assert again[0] == again[2] == doubtful


def test_a_phrase_is_found_again_whatever_its_capitals_and_stops() -> None:
    assert repeats_phrase("A dog barks, and then a dog barks.", 3)
    assert not repeats_phrase("A dog barks, and then a dog growls.", 3)
    assert repeats_phrase("A dog barks, and then a dog growls.", 2)
    assert not repeats_phrase("", 3) and not repeats_phrase("A dog.", 3)


def test_candidates_that_repeat_a_phrase_come_last_and_keep_their_order() -> None:
    texts = ("A dog barks, then a dog barks.", "A dog barks.", "Rain falls and rain falls and rain.", "Rain falls.")
    candidates = [Candidate((), text, -float(place)) for place, text in enumerate(texts)]
    assert [candidates.index(item) for item in repeats_last(candidates, 3)] == [1, 3, 0, 2]
    assert repeats_last(candidates, 0) == candidates


def test_a_model_that_asks_so_tells_the_best_sentence_that_repeats_no_phrase(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    source = (noise(2.0, 16_000), 16_000)
    options = DecodingOptions(candidates=4, no_repeat_ngram=0)
    beam = Captioner.from_pretrained(folder).caption(source, options).captions[0].candidates
    assert len(beam) == 4
    words = next(n for n in range(1, 20) if not all(repeats_phrase(item.text, n) for item in beam))
    CURVE.model_copy(update={"threshold": 0.0, "phrase": words}).write(folder)
    captioner = Captioner.from_pretrained(folder)
    wanted = [item.text for item in repeats_last(beam, words)]
    assert not repeats_phrase(wanted[0], words)
    ranked = captioner.caption(source, options.model_copy(update={"rerank": "clap"})).captions[0].candidates
    repeating = [repeats_phrase(item.text, words) for item in ranked]
    assert repeating == sorted(repeating) and len(ranked) == 4
    for count in (1, 2, 4):
        told = captioner.caption(source, options.model_copy(update={"candidates": count})).captions[0]
        assert told.text == wanted[0] and [item.text for item in told.candidates] == wanted[:count]


def test_nearness_to_the_sound_counts_in_the_score_and_orders_the_beam() -> None:
    texts, scores = ("A bell rings.", "A dog barks.", "Rain falls."), (-0.5, -0.6, -3.0)
    beam = [Candidate((), text, score) for text, score in zip(texts, scores, strict=True)]
    found, nearness = weigh(beam, np.float32([0.1, 0.4, 0.9]), 2.0)
    assert [item.text for item in found] == ["A dog barks.", "A bell rings.", "Rain falls."]
    assert [item.score for item in found] == pytest.approx([0.2, -0.3, -1.2]) and nearness[0] == np.float32(0.4)


class NearnessModel:
    """Gives three candidates of a beam; the last of them is nearest to every sound."""

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        texts = ("A bell rings.", "A dog barks.", "Rain falls.")[: options.candidates]
        return [[Candidate((), text, -0.1 * number) for number, text in enumerate(texts)] for _ in features]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        return np.float32([[1.0, 0.0] if text == "Rain falls." else [0.0, 1.0] for text in texts])


def test_the_whole_beam_is_ordered_before_candidates_are_cut() -> None:
    clip = Features(np.zeros((4, 2), np.int64), np.float32([1.0, 0.0]))
    model, options = NearnessModel(), DecodingOptions(beams=3, candidates=1)
    assert SentenceSelector(model, None).select([clip], options)[0].text == "A bell rings."
    weighed = CURVE.model_copy(update={"similarity": 1.0, "threshold": 0.0})
    assert SentenceSelector(model, weighed).select([clip], options)[0].text == "Rain falls."
    by_clap = options.model_copy(update={"rerank": "clap"})
    assert SentenceSelector(model, None).select([clip], by_clap)[0].text == "Rain falls."
