"""Scores held to published ones of two whole test sets (../shared/reference/metrics); these need Java."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from enclap.evaluation.captioning import suite
from enclap.evaluation.captioning.java import find_java
from enclap.evaluation.captioning.meteor import Meteor, running_meteor
from enclap.evaluation.captioning.rows import SYSTEM, system_row
from enclap.evaluation.captioning.suite import SuiteOptions, score_rows
from enclap.evaluation.captioning.tables import CaptionSet, match, read_predictions, read_references
from enclap.evaluation.captioning.tokenizer import tokenize_ptb
from stand_in_java import StandIn

pytestmark = [pytest.mark.shared, pytest.mark.timeout(900)]
SETS = ("clotho_eval", "audiocaps_test")
SECONDS = 600.0
COUNTED, METEOR = 1e-9, 1e-6  # how far scores may be from the published ones


def read(shared: Path, name: str) -> tuple[CaptionSet, dict[str, np.ndarray], dict[str, float]]:
    """A test set, the published scores of its clips, and those of the corpus."""
    folder = shared / "reference" / "metrics"
    path = folder / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0] if key in suite.METRICS}
    corpus = json.loads((folder / "corpus_scores.json").read_text())[name]
    return match(read_predictions(path), read_references(path), name), columns, corpus


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor]:
    with running_meteor(find_java(), SECONDS) as running:
        yield running


@pytest.mark.parametrize("name", [*SETS, *(f"{name}_300" for name in SETS)])
def test_meteor_is_the_published_one(shared: Path, meteor: Meteor, name: str) -> None:
    captions, clips, corpus = read(shared, name)
    found = meteor.score(captions.predictions, captions.references)
    assert found.value == pytest.approx(corpus["meteor"], abs=METEOR)
    np.testing.assert_allclose(found.clips, clips["meteor"], atol=METEOR)
    assert found.aggregate is not None
    sums = found.statistics.sum(axis=0, keepdims=True)
    assert found.aggregate(sums)[0] == pytest.approx(corpus["meteor"], abs=1e-12)


@pytest.mark.parametrize("name", [*SETS, *(f"{name}_300" for name in SETS)])
def test_other_scores_are_the_published_ones_with_spice_replayed(
    shared: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions, clips, corpus = read(shared, name)
    java = StandIn(tmp_path, monkeypatch)
    keys = zip(captions.predictions, captions.references, strict=True)
    java.install_spice(dict(zip(keys, clips["spice"].tolist(), strict=True)))
    row = system_row(SYSTEM, captions.predictions, captions.references)
    result = score_rows([row], captions.references, SuiteOptions(ptb=False))
    assert result.not_computed == {}
    for metric, scores in result.scores[SYSTEM].items():
        if metric != "meteor":  # the stand-in's is none
            assert scores.value == pytest.approx(corpus[metric], abs=COUNTED), metric
            np.testing.assert_allclose(scores.clips, clips[metric], atol=COUNTED, err_msg=metric)


def test_tokens_are_those_of_the_ptb_tokenizer(shared: Path) -> None:
    with (shared / "reference" / "metrics" / "ptb_tokenizer.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = tokenize_ptb([row["sentence"] for row in rows], find_java(), SECONDS)
    assert found == [row["tokens"] for row in rows]
