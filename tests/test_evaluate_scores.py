"""The arithmetic of scores: fast beside slow twins, sums beside sets, resamples, baselines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning import bootstrap, ngrams, rows
from enclap.evaluation.captioning.bootstrap import differences, intervals
from enclap.evaluation.captioning.evaluate import caption_warnings
from enclap.evaluation.captioning.language import hearing, wording
from enclap.evaluation.captioning.meteor import meteor_of_sums, without_perfect_chunks
from enclap.evaluation.captioning.scores import ClipScores, group_clips, mean_scores
from enclap.evaluation.captioning.tables import CaptionSet

WORDS = """a the dog barks cat meows rain falls wind blows and then while man speaks loudly twice""".split()  # noqa: SIM905
GOLDEN = Path(__file__).parent / "golden" / "meteor.json"


def sentences(count: int, seed: int, longest: int = 12) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, longest))) for _ in range(count)]


CANDIDATES = sentences(60, 1)
REFERENCES = [sentences(1 + number % 4, 100 + number) for number in range(60)]
COUNT = len(CANDIDATES)


def all_scores(candidates: list[str], references: list[list[str]]) -> list[ClipScores]:
    frequencies = ngrams.document_frequencies(REFERENCES)
    return [
        *ngrams.bleu(candidates, references),
        ngrams.rouge_l(candidates, references),
        ngrams.cider_d(candidates, references, frequencies, COUNT),
    ]


def test_scores_are_those_of_pycocoevalcap() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = dict(enumerate(REFERENCES))
    given = {number: [text] for number, text in enumerate(CANDIDATES)}
    found = all_scores(CANDIDATES, REFERENCES)
    values, clips = Bleu(4).compute_score(truth, given, verbose=0)
    expected = [*zip(values, clips, strict=True), Rouge().compute_score(truth, given)]
    expected.append(Cider().compute_score(truth, given))
    assert [item.name for item in found] == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]
    for item, (value, of_clips) in zip(found, expected, strict=True):
        assert item.value == pytest.approx(value, abs=1e-12), item.name
        np.testing.assert_allclose(item.clips, of_clips, atol=1e-12, err_msg=item.name)


@pytest.mark.parametrize("seed", range(3))
def test_the_score_of_a_resample_is_the_score_of_those_clips(seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(COUNT, size=COUNT)
    whole = all_scores(CANDIDATES, REFERENCES)
    again = all_scores([CANDIDATES[clip] for clip in drawn], [REFERENCES[clip] for clip in drawn])
    for item, other in zip(whole, again, strict=True):
        assert item.aggregate is not None
        sums = item.statistics[drawn].sum(axis=0, keepdims=True)
        assert item.aggregate(sums)[0] == pytest.approx(other.value, abs=1e-12), item.name


def test_meteors_formula_gives_the_scores_of_its_jar() -> None:
    golden = json.loads(GOLDEN.read_text())
    counts = np.array([[float(number) for number in item["counts"].split()] for item in golden["clips"]])
    statistics = without_perfect_chunks(counts)
    assert 0 < (statistics != counts).sum() < len(counts)  # both kinds are among them
    np.testing.assert_allclose(meteor_of_sums(statistics), [item["score"] for item in golden["clips"]], atol=1e-12)
    assert meteor_of_sums(statistics.sum(axis=0, keepdims=True))[0] == pytest.approx(golden["corpus"], abs=1e-12)


def test_cider_needs_two_clips() -> None:
    with pytest.raises(EnvironmentFault, match="needs two clips or more"):
        ngrams.cider_d(["a dog"], [["a dog"]], ngrams.document_frequencies([["a dog"]]), 1)


def test_intervals_hold_the_value_and_are_the_same_on_every_run() -> None:
    scores = all_scores(CANDIDATES, REFERENCES)
    found = intervals(scores, 200)
    assert found == intervals(scores, 200) != intervals(scores, 200, seed=1)
    for item in scores:
        assert found[item.name].low < item.value < found[item.name].high


def test_intervals_are_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    bounds = intervals([mean_scores("mean", values)], 4_000)["mean"]
    expected = 2 * 1.96 * values.std() / np.sqrt(len(values))
    assert bounds.high - bounds.low == pytest.approx(expected, rel=0.05)


def test_a_system_does_not_differ_from_itself_and_does_from_a_worse_one() -> None:
    scores = all_scores(CANDIDATES, REFERENCES)
    same = differences(scores, scores, 100)
    assert all((item.value, item.low, item.high, item.probability) == (0.0, 0.0, 0.0, 1.0) for item in same.values())
    better = all_scores([texts[0] for texts in REFERENCES], REFERENCES)
    for item in differences(better, scores, 1000).values():
        assert 0.0 < item.low < item.value < item.high
        assert item.probability < 0.01


def test_several_captions_of_a_clip_are_drawn_together() -> None:
    scores = mean_scores("mean", [1.0, 2.0, 6.0])
    grouped = group_clips(scores, [0, 0, 1], 2)
    assert grouped.value == 3.0
    np.testing.assert_array_equal(grouped.clips, [1.5, 6.0])
    np.testing.assert_array_equal(grouped.statistics, [[3.0, 2.0], [6.0, 1.0]])


def caption_set(count: int, references: int = 3) -> CaptionSet:
    texts = tuple(tuple(f"reference {number} of {clip}" for number in range(references)) for clip in range(count))
    names = tuple(map(str, range(count)))
    return CaptionSet(names, tuple(f"caption of {clip}" for clip in range(count)), texts, ((),) * count)


@pytest.mark.parametrize(("count", "most"), [(2, 10), (7, 10), (50, 10), (3, 300)])
def test_baselines_and_people_are_about_the_same_clips(count: int, most: int) -> None:
    captions = caption_set(count)
    found = {row.name: row for row in rows.comparison_rows(captions, most, 0)}
    assert (rows.SAME_CLIPS in found) == (count > most)
    shuffled = found[rows.SHUFFLED]
    own = [texts[0].rpartition(" ")[2] for texts in shuffled.references]
    given = [text.rpartition(" ")[2] for text in shuffled.candidates]
    assert sorted(own) == sorted(given) and all(a != b for a, b in zip(own, given, strict=True))
    human = found[rows.HUMAN]
    assert len(human.candidates) == 3 * min(count, most)
    for text, others, clip in zip(human.candidates, human.references, human.clips, strict=True):
        assert text not in others and len(others) == 2
        assert {text, *others} == set(found[rows.SILENCE].references[clip])
    assert len(set(found[rows.CONSTANT].candidates)) == len(set(found[rows.SILENCE].candidates)) == 1


def test_rows_that_make_no_sense_are_left_out() -> None:
    assert [row.name for row in rows.comparison_rows(caption_set(1, 1), 10, 0)] == [rows.SILENCE, rows.CONSTANT]


def test_the_constant_caption_is_common_and_not_short() -> None:
    assert (
        rows.common_caption([["a dog barks", "dog"], ["a dog barks", "dog"], ["xylophone solo here"]]) == "a dog barks"
    )


def test_wording_and_hearing_have_a_score_for_each_clip() -> None:
    found = {item.name: item for item in wording(["A dog barks.", "a dog and a dog and a dog"])}
    assert found["words"].value == 5.5 and found["unfinished"].value == 0.5
    assert found["vocabulary"].value == 4.0 and found["vocabulary"].aggregate is None
    np.testing.assert_array_equal(found["repeated_phrase"].clips, [0.0, 1.0])
    with pytest.raises(EnvironmentFault, match="column labels"):
        hearing(["a dog"], [()])
    with pytest.raises(EnvironmentFault, match="no label 'no such sound'"):
        hearing(["a dog"], [("no such sound",)])


def test_captions_that_metrics_are_not_made_for_are_counted() -> None:
    captions = CaptionSet(("a", "b"), ("狗在叫", "a café"), (("a dog",), ("a bar", "ein Café")), ((), ()))
    first, second = caption_warnings(captions)
    assert first.startswith("1 clips have captions in another script") and second.startswith(
        "1 clips have one reference"
    )


@pytest.mark.parametrize("together", [1, 130, 10_000])
def test_resamples_drawn_together_are_those_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(bootstrap, "NUMBERS_TOGETHER", together)
    values = np.random.default_rng(3).random(60)
    generator, means = np.random.default_rng(7), []
    for _ in range(50):
        means.append(values[generator.integers(60, size=60)].mean())
    [interval] = intervals([mean_scores("mean", values)], resamples=50, seed=7).values()
    np.testing.assert_allclose([interval.low, interval.high], np.percentile(means, bootstrap.BOUNDS), rtol=1e-12)
