"""Calibrated scores: the curve, its file, the vaguer sentence, and what the captioner makes of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enclap import Captioner
from enclap.data.recordings import Recording
from enclap.decoding.calibration import FILE_NAME, VERSION, Calibration, share_of_several
from enclap.decoding.options import DecodingOptions
from enclap.decoding.ranking import (
    beam_values,
    best_first,
    likeness_of_halves,
    nearness_to,
    parts_of,
    repeats_phrase,
    tells_twice,
)
from enclap.decoding.selection import SentenceSelector, is_doubtful
from enclap.engines import load_engine
from enclap.errors import ModelError
from enclap.evaluation import calibration
from enclap.evaluation.calibration import (
    THRESHOLDS,
    ScoredCaption,
    calibration_error,
    cross_fitted,
    fit_calibration,
    fit_logistic,
    named_shares,
    reliability,
    score_captions,
    source_weights,
    vague_sentences,
)
from enclap.evaluation.sound_pairs import PAIRS, LabelledClip, stranger_pairs
from enclap.types import Candidate, Features, FloatArray, Waveform
from sounds import noise

CURVE = Calibration(version=VERSION, slope=3.0, offset=1.5, threshold=0.3, vague=("Metal clangs.", "A bird calls."))


def test_the_curve_is_found_again_in_what_it_made() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(-0.5, 0.5, 20_000)
    right = (generator.random(20_000) < 1.0 / (1.0 + np.exp(-(4.0 * scores + 1.0)))).astype(np.float64)
    slope, offset = fit_logistic(scores[:, None], right, np.ones(20_000))
    assert slope == pytest.approx(4.0, rel=0.05) and offset == pytest.approx(1.0, abs=0.1)
    probabilities = 1.0 / (1.0 + np.exp(-(slope * scores + offset)))
    assert calibration_error(reliability(probabilities, right, 10)) < 0.02
    assert calibration_error(reliability(np.full(20_000, 0.9), right, 10)) > 0.2


def test_scores_that_part_perfectly_give_a_finite_curve() -> None:
    scores = np.array([[-2.0], [-1.5], [-0.2], [-0.1]])
    slope, offset = fit_logistic(scores, np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4))
    assert np.isfinite([slope, offset]).all() and slope > 0


def test_the_curve_of_several_inputs_and_weights_is_found_again() -> None:
    generator = np.random.default_rng(0)
    inputs = np.column_stack([generator.normal(-0.5, 0.3, 40_000), generator.normal(0.3, 0.1, 40_000)])
    inputs = np.column_stack([inputs, generator.random(40_000) < 0.4])
    wanted = np.array([6.0, 8.0, 2.0, -1.0])
    chance = 1.0 / (1.0 + np.exp(-(inputs @ wanted[:3] + wanted[3])))
    right = (generator.random(40_000) < chance).astype(np.float64)
    right[:10_000] = 1.0 - right[:10_000]  # what does not count may be wrong
    weights = np.repeat([0.0, 1.0], [10_000, 30_000])
    np.testing.assert_allclose(fit_logistic(inputs, right, weights), wanted, atol=0.35)


def test_a_source_with_many_recordings_does_not_speak_for_all() -> None:
    many = [ScoredCaption(("rain",), "Wind blows.", -0.4, 0.3, "Rain falls.", sources=("many",))] * 100
    few = [ScoredCaption(("rain",), "Rain falls.", -0.4, 0.3, "Rain falls.", sources=(f"few {n}",)) for n in range(10)]
    pairs = [
        ScoredCaption(("rain", "wind"), "Wind.", -0.4, 0.3, "Rain falls.", sources=sources)
        for sources in (("many", "few 0"), ("many", "few 1"), ("few 2", "few 3"))
    ]
    weights = source_weights([*many, *few, *pairs])
    assert weights[:110].mean() == pytest.approx(1.0) and weights[110:].mean() == pytest.approx(1.0)
    assert weights[101] / weights[0] == pytest.approx(100**0.5)
    assert weights[110] / weights[112] == pytest.approx((2**-0.5 + 1.0) / 2.0)
    sure = fit_calibration([*many, *few]).probability(-0.4, 0.3, "Rain falls.", 0.0)
    assert sure == pytest.approx(10 / (10 + 100 * 100**-0.5), abs=0.02)
    alike = fit_calibration([replace(item, sources=()) for item in (*many, *few)])
    assert alike.probability(-0.4, 0.3, "Rain falls.", 0.0) == pytest.approx(10 / 110, abs=0.02)


def test_cross_fitting_knows_nothing_of_a_source() -> None:
    """A source whose captions are all wrong with high likelihoods is not seen coming."""
    known = [
        ScoredCaption(
            ("rain",), "Rain falls." if n % 4 else "Wind.", -0.2 if n % 4 else -1.0, 0.3, "", sources=(f"{n % 8}",)
        )
        for n in range(80)
    ]
    odd = [ScoredCaption(("rain",), "Wind.", -0.2, 0.3, "", sources=("odd",))] * 40
    blind = cross_fitted([*known, *odd])
    assert blind[80:].min() == blind[80:].max() > 0.85
    assert fit_calibration([*known, *odd]).probability(-0.2, 0.3, "Wind.", 0.0) < blind[80]
    both = ScoredCaption(("rain", "rain"), "Wind.", -0.2, 0.3, "", sources=("odd", "0"))
    assert 0.0 < cross_fitted([*known, *odd, both])[-1] < 1.0


def test_strangers_pairs_are_of_different_sources_and_drawn_uniformly_by_source() -> None:
    def recordings(counts: dict[str, int]) -> list[Recording]:
        names = [(source, n) for source, count in counts.items() for n in range(count)]
        return [
            Recording(f"{s}{n}", ("rain",), "", s, "", "", "CC0", "train", None, 1.0, "", f"{s}{n}") for s, n in names
        ]

    pairs = stranger_pairs(recordings({"many": 100, "few": 2, "one": 1}))
    assert len(pairs) == PAIRS and all(first.source_repo != second.source_repo for first, second in pairs)
    counts = Counter(recording.source_repo for pair in pairs for recording in pair)
    assert max(counts.values()) < 1.3 * min(counts.values()) and set(counts) == {"many", "few", "one"}
    assert pairs == stranger_pairs(recordings({"one": 1, "few": 2, "many": 100}))
    assert stranger_pairs(recordings({"many": 100})) == []


def test_several_sounds_and_nearness_count_in_a_probability() -> None:
    curve = CURVE.model_copy(update={"nearness": 2.0, "several": 1.0, "crowd": -2.0})
    alone, pair = "A dog barks.", "A dog barks, and then a bell rings."
    logits = [
        np.log(value / (1.0 - value))
        for value in (curve.probability(-0.5, 0.3, alone, 0.25), curve.probability(-0.5, 0.3, pair, 0.5))
    ]
    assert logits == pytest.approx([3.0 * -0.5 + 2.0 * 0.3 - 0.5 + 1.5, 3.0 * -0.5 + 2.0 * 0.3 + 1.0 - 1.0 + 1.5])
    assert CURVE.probability(-0.5, 0.3, alone, 0.0) == CURVE.probability(-0.5, 0.9, pair, 0.7)
    assert share_of_several([alone, pair, alone, alone]) == 0.25 and share_of_several([]) == 0.0


def scored(label: str, text: str, score: float, vaguer: str = "Something.") -> ScoredCaption:
    return ScoredCaption((label,), text, score, 0.0, vaguer)


def test_the_threshold_is_that_under_which_vaguer_sentences_help_most() -> None:
    doubtful = [scored("helicopter", "Rain falls.", -2.0 - 0.01 * n, "An aircraft flies by.") for n in range(20)]
    sure = [scored("rain", "Rain falls.", -0.1 - 0.001 * n, "An aircraft flies by.") for n in range(20)]
    pairs = [ScoredCaption(("rain", "helicopter"), "Rain falls.", -1.0, 0.0, "An aircraft flies by.")] * 5
    found = fit_calibration([*doubtful, *sure, *pairs])
    assert found.slope > 0 and 0 < found.threshold <= 0.5 and found.vague == vague_sentences() and found.phrase == 3
    assert named_shares([*doubtful, *sure], found) == (0.5, 1.0)  # each aircraft by its family, all rain by its name
    curve = found.model_copy(update={"threshold": 0.0})
    rates = [named_shares([*doubtful, *sure], curve.model_copy(update={"threshold": t}))[1] for t in THRESHOLDS]
    assert found.threshold == max(t for t, rate in zip(THRESHOLDS, rates, strict=True) if rate == max(rates))


def test_vaguer_sentences_that_would_cost_replace_nothing() -> None:
    captions = [scored("rain", "Rain falls.", -float(n), vaguer="A bell rings.") for n in range(4)]
    captions.append(scored("rain", "Wind.", 1.0))  # the surest is wrong
    found = fit_calibration(captions)
    assert named_shares(captions, found) == (0.8, 0.8)


def test_of_thresholds_that_cost_nothing_the_highest_is_taken() -> None:
    wrong = [scored("rain", "A dog barks.", -3.0 - 0.1 * n) for n in range(20)]
    right = [scored("rain", "Rain falls.", -0.1) for n in range(20)]
    found = fit_calibration([*wrong, *right])
    assert found.vague and all(item.probability(found) < found.threshold for item in wrong)
    higher = found.model_copy(update={"threshold": found.threshold + THRESHOLDS[1]})
    assert named_shares([*wrong, *right], higher)[1] < 0.5 or found.threshold == THRESHOLDS[-1]


def test_scores_are_those_of_the_model_without_its_calibration(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ORDER", CURVE.model_copy(update={"beams": 4}))
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    CURVE.write(folder)
    clips = [LabelledClip(("rain",), Waveform(noise(length, 16_000, seed=3)[:, 0], 16_000)) for length in (1.0, 2.0)]
    captions = score_captions(load_engine(folder), clips, None)
    (folder / FILE_NAME).unlink()
    plain = Captioner.from_pretrained(folder)
    for clip, caption in zip(clips, captions, strict=True):
        beam = plain.caption((clip.waveform.samples, 16_000), DecodingOptions(candidates=4)).captions[0].candidates
        best = min(beam, key=lambda item: repeats_phrase(item.text, 3))
        assert (caption.text, caption.likelihood) == (best.text, best.score) and caption.vaguer in vague_sentences()


def test_a_calibration_is_written_read_and_refused_when_it_is_none(tmp_path: Path) -> None:
    assert Calibration.read(tmp_path) is None
    CURVE.write(tmp_path)
    assert Calibration.read(tmp_path) == CURVE
    table = json.loads((tmp_path / FILE_NAME).read_text())
    for fault in ({"version": VERSION + 1}, {"slope": -1.0}, {"colour": "red"}):
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
    Calibration(version=VERSION, slope=1.0, offset=0.0, threshold=0.0, vague=CURVE.vague).write(folder)
    sure = Captioner.from_pretrained(folder).caption(source).captions[0]
    assert sure.text == plain.text and sure.score == pytest.approx(1.0 / (1.0 + np.exp(-raw)))
    Calibration(version=VERSION, slope=1.0, offset=0.0, threshold=1.0, longest=99, vague=CURVE.vague).write(folder)
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
    wanted = [item.text for item in sorted(beam, key=lambda item: repeats_phrase(item.text, words))]
    assert not repeats_phrase(wanted[0], words)
    ranked = captioner.caption(source, options.model_copy(update={"rerank": "clap"})).captions[0].candidates
    repeating = [repeats_phrase(item.text, words) for item in ranked]
    assert repeating == sorted(repeating) and len(ranked) == 4
    for count in (1, 2, 4):
        told = captioner.caption(source, options.model_copy(update={"candidates": count})).captions[0]
        assert told.text == wanted[0] and [item.text for item in told.candidates] == wanted[:count]


def order(beam: Sequence[Candidate], nearness: Sequence[float], share: float = 0.0, **update: float) -> list[int]:
    near = np.float32(nearness)
    return best_first(beam_values(beam, near, share, CURVE.model_copy(update=update)), near)


def test_nearness_to_the_sound_orders_the_beam() -> None:
    beam = [Candidate((), text, score) for text, score in (("A bell.", -0.5), ("A dog.", -0.6), ("Rain.", -3.0))]
    near = [0.1, 0.4, 0.9]
    assert order(beam, near) == [0, 1, 2] and order(beam, near, similarity=2.0) == [1, 0, 2]
    assert order(beam, near, similarity=5.0) == [2, 1, 0]
    values = beam_values(beam, np.float32(near), 0.0, None)
    assert values.tolist() == [-0.5, -0.6, -3.0]
    assert best_first(values, np.zeros(3, np.float32), "clap") == [0, 1, 2]  # alike: by likelihood


def embedding_with(cosine: float) -> FloatArray:
    """An embedding [6] of three parts, whose halves have this cosine."""
    halves = [[1.0, 0.0], [cosine, (1.0 - cosine**2) ** 0.5]]
    return np.float32([0.6, 0.8, *halves[0], *halves[1]]) / np.float32(3**0.5)


def test_several_sounds_are_told_where_much_of_the_beam_does() -> None:
    texts = ("A dog barks.", "A dog barks, and then a bell rings.", "A crow caws while crows croak.")
    beam = [Candidate((), text, score) for text, score in zip(texts, (-0.4, -0.5, -0.25), strict=True)]
    near = [0.3, 0.3, 0.3]
    assert order(beam, near, 0.2, company=0.3, echo=0.5) == [0, 1, 2]
    assert order(beam, near, 0.8, company=0.3, echo=0.5) == [1, 0, 2]
    assert order(beam, near, 0.8, company=0.3) == [2, 1, 0]
    assert likeness_of_halves(embedding_with(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A dog barks.", ["A dog barks."]),
        ("A dog barks, and then a bell rings.", ["A dog barks.", "A bell rings."]),
        ("First a dog barks, then it rains, and finally a bell rings.", ["A dog barks.", "It rains.", "A bell rings."]),
        ("A man speaks while a clock ticks.", ["A man speaks.", "A clock ticks."]),
        ("A bell rings, followed by a dog barking.", ["A bell rings.", "A dog barking."]),
        ("A dog barks, and a moment later a cat meows.", ["A dog barks.", "A cat meows."]),
        ("", []),
    ],
)
def test_the_parts_of_a_sentence_are_sentences(text: str, parts: list[str]) -> None:
    assert parts_of(text) == parts


def test_the_parts_of_a_sentence_are_compared_with_those_of_the_window() -> None:
    """The first sound with the first half, the last with the last; what is heard meanwhile with all of the window."""
    known = {"A dog barks.": [1.0, 0.0], "A bell rings.": [0.0, 1.0]}

    def embed(texts: Sequence[str]) -> FloatArray:
        return np.float32([known.get(text, [0.5, 0.5]) * 3 for text in texts]) / np.float32(3**0.5)

    window = embedding_with(0.0)
    row, turned, at_once = (
        "A dog barks, and then a bell rings.",
        "A bell rings, and then a dog barks.",
        "A dog barks while a bell rings.",
    )
    near = nearness_to(window, [row, turned, at_once, "A dog barks."], embed, by_parts=True)
    np.testing.assert_allclose(near, [1.0, 0.0, (0.6 + 0.8) / 2, (0.6 + 1.0 + 0.0) / 3], atol=1e-6)
    whole = nearness_to(window, [row, turned], embed, by_parts=False)
    assert whole[0] == whole[1] == pytest.approx((0.7 + 0.5 + 0.5) / 3)
    assert nearness_to(window, ["A dog barks, oh."], embed, by_parts=True) == nearness_to(window, ["."], embed, False)


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ("Birds sing in a forest while a bird sings.", True),
        ("Waves crash on the shore while sea waves roll ashore.", True),
        ("Someone types on a keyboard while a computer keyboard clacks in the background.", True),
        ("A man speaks while a woman speaks.", False),
        ("A dog barks, and then someone plays a song over the sound of music.", False),
        ("A door door slams.", False),
        ("", False),
    ],
)
def test_a_sentence_that_tells_one_thing_twice_is_known(text: str, twice: bool) -> None:
    assert tells_twice(text) == twice


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
    weighed = CURVE.model_copy(update={"similarity": 1.0, "nearness": 2.0, "threshold": 0.0})
    shown = SentenceSelector(model, weighed).select([clip], options)[0]
    assert shown.text == "Rain falls." and shown.score == weighed.probability(-0.2, 1.0, "Rain falls.", 0.0)
    by_clap = options.model_copy(update={"rerank": "clap"})
    assert SentenceSelector(model, None).select([clip], by_clap)[0].text == "Rain falls."
