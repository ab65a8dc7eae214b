"""Reranking: by likelihood, by CLAP and by both; through the captioner, alone and in a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import Run
from enclap import Captioner, DecodingOptions
from enclap.decoding.ranking import best_first, standardised
from enclap.errors import ModelError
from enclap.types import Candidate
from fakes import EchoEngine

STEPS = st.integers(-64, 64).map(lambda value: value / 64)
NUMBERS = st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=8)


def made(scores: list[float]) -> list[Candidate]:
    return [Candidate((0, number, 2), f"sentence {number}", score) for number, score in enumerate(scores)]


def scores_of(candidates: list[Candidate]) -> np.ndarray:
    return np.array([item.score for item in candidates])


def test_each_order() -> None:
    candidates = made([-0.1, -0.2, -0.9])
    likeness = np.array([0.1, 0.5, 0.6], dtype=np.float32)
    orders = {"likelihood": [0, 1, 2], "clap": [2, 1, 0], "both": [1, 2, 0]}
    for by, expected in orders.items():
        assert best_first(scores_of(candidates), likeness, by) == expected


@settings(max_examples=60, deadline=None)
@given(numbers=NUMBERS, by=st.sampled_from(["likelihood", "clap", "both"]))
def test_an_order_keeps_all_and_is_blind_to_scale(numbers: list[tuple[float, float]], by: str) -> None:
    candidates = made([score for score, _ in numbers])
    likeness = np.array([value for _, value in numbers], dtype=np.float32)
    found = best_first(scores_of(candidates), likeness, by)
    assert sorted(found) == list(range(len(candidates)))
    values = {"likelihood": [candidates[place].score for place in found], "clap": likeness[found].tolist()}
    if by in values:
        assert values[by] == sorted(values[by], reverse=True)
    assert best_first(scores_of(candidates), 4 * likeness, by) == found


def test_equal_values_say_nothing() -> None:
    assert standardised(np.full(4, 0.3)).tolist() == [0.0] * 4


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("by", ["clap", "both"])
def test_the_captioner_ranks_alike_alone_and_together(
    tiny_model: Path, recording: Callable[..., Path], by: str, sample: bool
) -> None:
    captioner = Captioner.from_pretrained(tiny_model, threads=1)
    paths = [recording(f"{number}.wav", seconds=0.5 + number / 3) for number in range(3)]
    options = DecodingOptions(candidates=4, rerank=by, sample=sample, seed=3)
    together = captioner.caption(list(paths), options)
    assert [captioner.caption(path, options).text for path in paths] == [result.text for result in together]
    plain = captioner.caption(list(paths), options.model_copy(update={"rerank": "likelihood"}))
    for ranked, unranked in zip(together, plain, strict=True):
        ours, theirs = ranked.captions[0], unranked.captions[0]
        assert sorted(ours.candidates, key=repr) == sorted(theirs.candidates, key=repr)
        assert (ours.text, ours.score) == (ours.candidates[0].text, ours.candidates[0].score)


def test_without_a_text_tower_one_line_says_so(recording: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="reranking by clap needs CLAP's text tower, not here; rerank by likelihood"):
        Captioner(EchoEngine()).caption(recording(), DecodingOptions(candidates=2, rerank="clap"))


def test_the_command_ranks(enclap: Run, recording: Callable[..., Path]) -> None:
    path = recording(seconds=2.0)
    lines = {
        by: enclap("caption", path, "--candidates", "4", "--format", "json", "--rerank", by).stdout
        for by in ("likelihood", "clap")
    }
    assert all('"candidates"' in text for text in lines.values())
