"""What an experiment's captions are worth: events, order, differences with intervals, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from enclap.experiments.grids import Grid, Row, Training, Verdict
from enclap.experiments.page import answers, conclusions
from enclap.experiments.scenes import SceneTexts
from enclap.experiments.table import (
    RowResult,
    Score,
    event_counts,
    f1_of_sums,
    floor_of,
    grid_results,
    group_weights,
    half_width,
    order_counts,
    paired_difference,
)

pytestmark = pytest.mark.train


def test_events_are_families_named_rightly_wrongly_and_missed() -> None:
    counts = event_counts(["A dog barks.", "Rain falls.", "Nothing."], [["dog"], ["dog"], ["rain"]])
    np.testing.assert_array_equal(counts[:, [0, 2]], [[1, 0], [0, 1], [0, 1]])
    assert counts[1, 1] >= 1 and f1_of_sums(counts[:1].sum(axis=0)) > f1_of_sums(counts.sum(axis=0))
    assert f1_of_sums(np.zeros(3)) == 0.0
    floor = floor_of(["A dog barks."] * 3 + ["Rain falls."], [["dog"]] * 3 + [["rain"]])
    assert floor.caption == "A dog barks." and floor.constant == 0.75 and floor.shuffled < 1.0


def made_counts(level: float, seeds: int = 3, scenes: int = 80) -> np.ndarray:
    right = np.random.default_rng(int(level * 100)).random((seeds, scenes)) < level
    return np.stack([right, ~right, ~right], axis=-1).astype(np.float64)


def alone(scenes: int) -> list[tuple[str, ...]]:
    return [(str(number),) for number in range(scenes)]


def test_a_difference_is_zero_for_a_row_beside_itself_and_shown_for_a_better_one() -> None:
    first = made_counts(0.4)
    assert paired_difference(first, first, alone(80), 100) == (0.0, 0.0, 0.0)
    value, low, high = paired_difference(made_counts(0.8), first, alone(80), 500)
    assert low is not None and high is not None and low < value < high and low > 0.2
    assert paired_difference(made_counts(0.8), first, alone(80), 500) == (value, low, high)
    assert paired_difference(made_counts(0.8)[:1], first[:1], alone(80))[1:] == (None, None)


def test_scenes_that_share_a_recording_are_no_independent_evidence() -> None:
    first, second = made_counts(0.4), made_counts(0.6)
    doubled = [np.repeat(rows, 2, axis=1) for rows in (second, first)]
    _, low, high = paired_difference(second, first, alone(80), 2000)
    twice = [group for group in alone(80) for _ in range(2)]
    _, same_low, same_high = paired_difference(doubled[0], doubled[1], twice, 2000)
    assert None not in (low, high, same_low, same_high)
    assert same_high - same_low == pytest.approx(high - low, rel=0.02), "a copy of each scene tells nothing"  # type: ignore[operator]
    _, naive_low, naive_high = paired_difference(doubled[0], doubled[1], alone(160), 2000)
    assert naive_high - naive_low < high - low  # type: ignore[operator]


def test_a_scene_counts_as_often_as_all_its_recordings_are_drawn() -> None:
    weights = group_weights([("a",), ("b",), ("a", "b")], 200, seed=0)
    np.testing.assert_array_equal(weights[:, 2], weights[:, 0] * weights[:, 1])
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 1], np.full(200, 2.0))


def test_an_interval_over_few_seeds_is_students() -> None:
    assert half_width(1.0, 2, 0.0, 50) == pytest.approx(4.303)
    assert half_width(0.0, 2, 1.0, 10_000) == pytest.approx(1.96)
    assert half_width(0.0, 2, 0.0, 3) == 0.0
    assert half_width(1.0, 2, 1.0, 1000) < 2**0.5 * 4.303


def test_intervals_cover_as_often_as_they_say() -> None:
    """Seeds and recordings both vary: of a hundred experiments without any effect, few show one."""
    generator = np.random.default_rng(5)
    shown = 0
    for _ in range(100):
        level = 0.5 + 0.15 * generator.standard_normal((2, 3, 1)) + 0.2 * generator.standard_normal((1, 1, 40))
        right = generator.random((2, 3, 40)) < np.clip(level, 0.05, 0.95)
        rows = np.stack([right, ~right, ~right], axis=-1).astype(np.float64)
        _, low, high = paired_difference(rows[0], rows[1], alone(40), 200)
        assert low is not None and high is not None
        shown += low > 0 or high < 0
    assert shown <= 10


def row_result(name: str, low: float | None, high: float | None) -> RowResult:
    difference = None if low is None or high is None else (low + high) / 2
    score = Score(0.5, 0.0, difference, low, high)
    return RowResult(name, 3, score, score, None, (0.8, 0.5) if low else None, 1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "said", "answer"),
    [
        (0.1, 0.3, "better than *first* by 0.200; in naming two sounds in their order, better than it", "Better."),
        (-0.3, -0.1, "worse than *first*", "Worse."),
        (-0.1, 0.1, "is not shown", "Unknown."),
        (0.0, 0.1, "is not shown", "Unknown."),
    ],
)
def test_an_effect_inside_its_interval_is_called_not_shown(low: float, high: float, said: str, answer: str) -> None:
    results = [row_result("first", None, None), row_result("second", low, high)]
    assert said in conclusions(results)[0]
    verdicts = (Verdict("So?", "second", "Better.", "Worse.", "Unknown."), Verdict("And?", "third", "", "", ""))
    grid = Grid("x", "X", "?", (Row("first"), Row("second", Training(mcm=0)), Row("third", Training(mcm=1))), verdicts)
    so, _, other = answers(grid, results)
    assert so.startswith(f"**So?** {answer}") and other == "**And?** Not known: *third* has not been run."
    assert ("In naming two sounds in their order" in so) == (said != "is not shown")
    assert conclusions(results[:1]) == ["Nothing yet: fewer than two rows are there."]
    if low:
        assert any("the frozen CLAP has 80%" in line for line in conclusions(results))


def test_results_are_compared_on_the_seeds_that_both_rows_have() -> None:
    def result(right: bool) -> dict[str, Any]:
        captions = ["A dog barks." if right else "Rain falls."] * 4
        facts = {"families": [["dog"]] * 4, "groups": alone(4), "masked_accuracy": None, "parameters": 1}
        return json.loads(json.dumps({**facts, "seconds": 1.0, "texts": captions, "captioning": 2.0}))

    found = {"first": {1: result(True), 2: result(False)}, "second": {1: result(True)}, "third": {}}
    rows = grid_results(found)
    first, second = rows
    assert [(item.name, item.seeds) for item in rows] == [("first", 2), ("second", 1)]
    assert (first.events.difference, second.events.difference) == (None, 0.0)
    assert second.events.verdict == "not shown" and first.events.mean == 0.5 and first.captioning == 0.5
    assert first.order is None
    found["second"][1]["texts"][0] = "A dog barks, and then rain falls."
    [first, second] = grid_results(found, [("dog barking", "rain"), (), ("rain", "dog barking"), ()])
    assert first.order is not None and first.order.mean == 0.0
    assert second.order is not None and second.order.mean == second.order.difference == 0.5


def test_the_order_of_two_sounds_is_right_when_both_are_named_in_it() -> None:
    captions = ["A dog barks, and then rain falls.", "Rain falls after a dog barks.", "Rain falls.", "A dog barks."]
    counts = order_counts(captions, [("dog barking", "rain")] * 3 + [("rain", "dog barking")])
    assert [f1_of_sums(row) for row in counts] == [1.0, 1.0, 0.0, 0.0] and f1_of_sums(counts.sum(axis=0)) == 0.5


def test_a_scene_of_two_sounds_at_once_has_no_sequence() -> None:
    def scene(caption: str, *labels: str) -> SceneTexts:
        return SceneTexts("a", (caption,), labels, ())

    labels = ("rooster crowing", "person sneezing")
    assert scene("A rooster crows, and then a person sneezes.", *labels).sequence == labels
    assert scene("A rooster crows while a person sneezes.", *labels).sequence == ()
    assert scene("A rooster crows.", labels[0]).sequence == ()
