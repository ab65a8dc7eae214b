"""Ratings: what is chosen, what is kept, and the figures that a report makes of answers."""

from __future__ import annotations

import csv
import itertools
import json
import stat
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import rating_example
from cli import Run
from enclap.data.tables import ClipCaptions
from enclap.errors import DataError, UsageError
from enclap.rating.answers import ANSWERS, Answer, AnswerStore
from enclap.rating.scales import SCALE_NAMES, SCALES
from enclap.rating.statistics import agreement, holm, rating_results, sign_change_test
from enclap.rating.study import (
    STUDY,
    Item,
    RatedClip,
    Study,
    as_sentence,
    choose_clips,
    open_study,
    read_study,
    with_peaks,
)
from ratings import CLIPS, study_files


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """No model is used here."""
    return Path("no-model")


def captions(texts: Sequence[str]) -> list[ClipCaptions]:
    return [ClipCaptions(f"{number}.wav", (text,)) for number, text in enumerate(texts)]


def made_study(clips: int, systems: Sequence[str], raters: int = 3) -> Study:
    rated = [RatedClip(f"{n}.wav", tuple(Item(f"{name} of {n}.", (name,)) for name in systems)) for n in range(clips)]
    return Study("sounds", 0, tuple(rated), "token", tuple(f"CODE{number}" for number in range(raters)))


def test_clips_are_drawn_by_the_seed_and_have_every_system_and_a_person() -> None:
    count = 30
    systems = {name: captions([f"{name} {n}" for n in range(count)]) for name in ("one", "two")}
    references = [ClipCaptions(f"{n}.wav", (f"person a {n}", f"person b {n}.")) for n in range(count)]
    first = choose_clips(systems, references, 10, 0)
    assert first == choose_clips(systems, references, 10, 0) != choose_clips(systems, references, 10, 1)
    assert len({clip.path for clip in first}) == 10
    for clip in first:
        number = clip.path.removesuffix(".wav")
        assert [item.systems for item in clip.items] == [("one",), ("two",), ("human",)]
        assert [item.text for item in clip.items[:2]] == [f"One {number}.", f"Two {number}."]
        assert clip.items[2].text in (f"Person a {number}.", f"Person b {number}.")
    assert len({clip.items[2].text.split()[1] for clip in first}) == 2, "which reference is drawn differs"


def test_a_caption_that_two_systems_share_is_rated_once() -> None:
    [clip] = choose_clips({"one": captions(["a dog"]), "two": captions(["A  dog."])}, captions(["dogs"]), 5, 0)
    assert clip.items == (Item("A dog.", ("one", "two")), Item("Dogs.", ("human",)))


@pytest.mark.parametrize(("typed", "shown"), [("a dog", "A dog."), ("Is it?", "Is it?"), (" x  y! ", "X y!")])
def test_all_captions_are_written_alike(typed: str, shown: str) -> None:
    assert as_sentence(typed) == shown


def test_systems_that_do_not_match_the_references_are_refused() -> None:
    with pytest.raises(DataError, match="predictions of one: 1 of 2 clips without a prediction"):
        choose_clips({"one": captions(["a"])}, captions(["a", "b"]), 5, 0)
    with pytest.raises(UsageError, match="human: a name for people's captions"):
        choose_clips({"human": captions(["a"])}, captions(["a"]), 5, 0)


def test_each_rater_has_an_order_of_their_own_in_which_captions_of_a_clip_stay_together() -> None:
    study = made_study(20, ("one", "two", "human"))
    orders = [study.order(rater) for rater in (1, 2, 3)]
    assert len({tuple(order) for order in orders}) == 3 and orders[0] == study.order(1)
    for order in orders:
        assert sorted(order) == list(itertools.product(range(20), range(3)))
        clips = [clip for clip, _ in order]
        assert [clip for clip, _ in itertools.groupby(clips)] == list(dict.fromkeys(clips)) != list(range(20))
    firsts = {next(item for clip, item in order if clip == shown) for order in orders for shown in range(20)}
    assert firsts == {0, 1, 2}, "no system is always the first"


def test_a_study_goes_on_with_the_same_captions_alone(tmp_path: Path) -> None:
    study_files(tmp_path)
    clips = tuple(RatedClip(name, (Item("A dog.", ("one",)),)) for name in CLIPS)
    made = open_study(tmp_path / "ratings", clips, tmp_path / "sounds", 0, 3)
    again = open_study(tmp_path / "ratings", clips, tmp_path / "sounds", 0, 3)
    assert made == again == read_study(tmp_path / "ratings")
    assert len(set(made.codes)) == 3 and len(made.token) == 32 and all(clip.peaks for clip in made.clips)
    assert stat.S_IMODE((tmp_path / "ratings" / STUDY).stat().st_mode) == 0o600
    for others, seed, raters in ((clips[:2], 0, 3), (clips, 1, 3), (clips, 0, 4)):
        with pytest.raises(UsageError, match="holds another study"):
            open_study(tmp_path / "ratings", others, tmp_path / "sounds", seed, raters)


def test_recordings_that_cannot_be_played_are_named_before_a_study_is_made(tmp_path: Path) -> None:
    study_files(tmp_path)
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"no sound")
    names = ("dog.wav", "none.wav", "broken.wav", "../first.csv", "film.avi")
    with pytest.raises(DataError) as caught:
        with_peaks([RatedClip(name, ()) for name in names], tmp_path / "sounds")
    message = str(caught.value)
    for part in ("none.wav: no such file", "broken.wav: not a sound", "leads out", "film.avi: browsers do not play it"):
        assert part in message
    assert "dog.wav" not in message and "\n" not in message


def test_answers_outlive_their_process_and_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / ANSWERS
    with closing(AnswerStore(path)) as store:
        store.keep(1, 2, 0, {"relevance": 3, "completeness": 1})
        with closing(AnswerStore(path)) as other:  # as after a crash: nothing was closed
            assert other.of_rater(1) == {(2, 0): {"relevance": 3, "completeness": 1}}
        store.keep(1, 2, 0, {"relevance": 4})
        store.keep(2, 2, 0, {})
        assert store.all() == [Answer(1, 2, 0, "completeness", 1), Answer(1, 2, 0, "relevance", 4)]
    path.write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="cannot be used as a table of answers"):
        AnswerStore(path)


def test_many_raters_answer_at_once(tmp_path: Path) -> None:
    with closing(AnswerStore(tmp_path / ANSWERS)) as store:

        def rate(rater: int) -> None:
            for clip in range(10):
                store.keep(rater, clip, 0, dict.fromkeys(SCALE_NAMES, 1 + clip % 4))

        threads = [threading.Thread(target=rate, args=(rater,)) for rater in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.all()) == 8 * 10 * len(SCALE_NAMES)


def slow_alpha(table: np.ndarray) -> float:
    """Krippendorff's alpha, ordinal, by its definition (2004, chapter 11): pairs of values within and between units."""
    units = [column[~np.isnan(column)].astype(int) for column in table.T]
    units = [values for values in units if len(values) > 1]
    counts = np.bincount(np.concatenate(units), minlength=5)

    def distance(a: int, b: int) -> float:
        low, high = sorted((a, b))
        return float((counts[low : high + 1].sum() - (counts[low] + counts[high]) / 2) ** 2)

    observed = sum(
        distance(a, b) / (len(values) - 1) for values in units for a, b in itertools.permutations(values.tolist(), 2)
    )
    total = counts.sum()
    pairs = itertools.product(range(1, 5), repeat=2)
    expected = sum(counts[a] * (counts[b] - (a == b)) * distance(a, b) for a, b in pairs) / (total - 1)
    return float(1 - observed / expected)


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_krippendorffs_alpha(seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = np.clip(generator.integers(1, 5, 40) + generator.integers(-1, 2, (4, 40)), 1, 4).astype(float)
    table[generator.random(table.shape) < 0.2] = np.nan
    answers = [
        Answer(rater, item, 0, "relevance", int(table[rater, item]))
        for rater, item in np.argwhere(~np.isnan(table)).tolist()
    ]
    assert agreement(answers) == pytest.approx(slow_alpha(table))


def test_agreement_says_why_there_is_none() -> None:
    assert agreement([]) == agreement([Answer(1, 0, 0, "relevance", 3)]) == "no caption was rated by two people"
    assert agreement([Answer(1, 0, 0, "r", 3), Answer(2, 0, 0, "r", 3)]) == "all answers are the same"


def test_means_tests_and_intervals_find_what_was_put_in() -> None:
    study = made_study(40, ("one", "two", "human"), raters=4)
    generator = np.random.default_rng(0)
    levels = {"one": 2, "two": 2, "human": 3}
    answers = [
        Answer(rater, clip, item, scale, int(np.clip(levels[name] + generator.integers(-1, 2), 1, 4)))
        for rater in (1, 2, 3)
        for clip in range(40)
        for item, name in enumerate(levels)
        for scale in SCALE_NAMES
    ]
    found = rating_results(study, answers, 500, 0)
    assert found == rating_results(study, answers, 500, 0)
    for number, (name, means) in enumerate(found.means.items()):
        for scale, mean in means.items():
            values = [answer.value for answer in answers if (answer.item, answer.scale) == (number, scale)]
            assert mean.value == pytest.approx(np.mean(values)) and mean.low < mean.value < mean.high, name
            assert mean.answers == 120
    assert len(found.tests) == 9
    for test in found.tests:
        assert (test.adjusted < 0.01) == ("human" in (test.first, test.second)), test
        expected = found.means[test.first][test.scale].value - found.means[test.second][test.scale].value
        assert test.difference == pytest.approx(expected) and test.probability <= test.adjusted
    assert found.progress == {1: 120, 2: 120, 3: 120, 4: 0} and found.captions == 120


def test_a_shared_caption_counts_for_both_systems_and_half_done_work_counts_too() -> None:
    clips = (
        RatedClip("a", (Item("A dog.", ("one", "two")),)),
        RatedClip("b", (Item("B.", ("one",)), Item("C.", ("two",)))),
    )
    study = Study("sounds", 0, clips, "token", ("CODE",))
    answers = [Answer(1, 0, 0, "relevance", 4), Answer(1, 1, 0, "relevance", 1)]
    found = rating_results(study, answers, 10, 0)
    assert found.means["one"]["relevance"].value == 2.5 and found.means["two"]["relevance"].value == 4.0
    assert [(test.clips, test.difference) for test in found.tests] == [(1, 0.0)]
    assert found.means["one"].keys() == {"relevance"} and found.progress == {1: 0}
    empty = rating_results(study, [], 10, 0)
    assert empty.tests == [] and empty.means == {"one": {}, "two": {}}


def test_the_test_by_changes_of_sign_is_exact_for_few_clips_and_near_it_for_many() -> None:
    assert sign_change_test(np.array([1.0, 1.0, 1.0, 1.0]), 0) == 2 / 16
    assert sign_change_test(np.zeros(5), 0) == 1.0 == sign_change_test(np.zeros(50), 0)
    assert sign_change_test(np.array([1.0, -1.0, 2.0]), 0) == 6 / 8  # sums 4, 2, 2, 0, 0, -2, -2, -4
    differences = np.random.default_rng(1).normal(0.3, 1.0, 14)
    signs = np.array(list(itertools.product((-1, 1), repeat=14)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert sign_change_test(differences, 0) == pytest.approx(exact, abs=0.02)


def test_holm_multiplies_the_smallest_most() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_report_holds_every_answer_and_may_be_asked_for_again(enclap: Run, tmp_path: Path) -> None:
    study = made_study(4, ("one", "human"))
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / STUDY).write_text(json.dumps({"schema": 1} | asdict(study)))
    empty = enclap("rate", "report", "ratings")
    assert empty.returncode == 0 and "| one | - | - | - | 0 |" in empty.stdout
    with closing(AnswerStore(tmp_path / "ratings" / ANSWERS)) as store:
        for rater, clip, item in itertools.product((1, 2), range(4), range(2)):
            store.keep(rater, clip, item, dict(zip(SCALE_NAMES, (1 + clip % 4, 2 + item, 1 + rater), strict=True)))
    done = enclap("rate", "report", "ratings", "--resamples", "50")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "ratings" / "report"
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.json", "answers.csv", "means.svg"}
    table = json.loads((folder / "report.json").read_text())
    assert table["schema"] == 1 and table["means"]["human"]["relevance"]["value"] == 3.0
    assert table["agreement"]["grammaticality"] == 1.0 and table["agreement"]["completeness"] < 0.5
    with (folder / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * 2 * 3 and rows[0]["systems"] == "one" and rows[0]["caption"] == "one of 0."
    report = (folder / "report.md").read_text()
    assert "one - human" in report and "![" in report and "rater 3 0 of 8" in report
    assert "CODE" not in report and "token" not in report


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["report", "nothing"], 3, "nothing: holds no study.json"),
        (["a.csv", "b/a.csv", "--references", "r.csv", "--audio", ".", "-o", "x"], 2, "a: two systems with one name"),
        (["a.csv", "--audio", ".", "-o", "x"], 2, "missing option '--references'"),
        (["none.csv", "--references", "r.csv", "--audio", ".", "-o", "x"], 3, "none.csv: cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(enclap: Run, arguments: list[str], code: int, message: str) -> None:
    done = enclap("rate", *arguments)
    assert done.returncode == code and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert "enclap rate report ratings" in enclap("rate", "--help").stdout


def test_the_example_in_the_documents_is_what_the_report_says_today() -> None:
    text = (rating_example.DOCS / rating_example.PAGE).read_text(encoding="utf-8")
    assert text == rating_example.page()
    assert "Nobody rated anything here" in text and (rating_example.DOCS / rating_example.FIGURE).is_file()


def test_the_questions_in_the_documents_are_those_of_the_page() -> None:
    guide = (rating_example.DOCS / "rating.md").read_text(encoding="utf-8")
    for scale in SCALES:
        assert f"| {scale.name} | {scale.question} | {' | '.join(scale.points)} |" in guide
