"""Metrics: scores of captions beside their references, held to slow twins; what is measured on mini's recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from enclap.data.recordings import read_collection
from enclap.data.splits import TEST, VALIDATION, select
from enclap.decoding.options import DecodingOptions
from enclap.errors import EnvironmentFault
from enclap.evaluation import sound_pairs
from enclap.evaluation.base import Metric, Score
from enclap.evaluation.baselines import PERMUTATIONS, compare_with_baselines, score_named
from enclap.evaluation.grammar import Grammar
from enclap.evaluation.hearing import (
    FAMILY_NAMED,
    ORDER_CORRECT,
    SOUND_NAMED,
    Hearing,
    has_correct_order,
    mentions_family,
    mentions_label,
)
from enclap.evaluation.mini_hearing import (
    BANDED,
    COMMON_PAIRS,
    COVERED,
    ESC,
    ESC_PAIRS,
    FAMILY,
    FAULTY,
    LENGTH,
    NAMED,
    ONCE,
    ORDER,
    THREE,
    VOCABULARY,
    is_faulty,
    measure_hearing,
    measure_inputs,
)
from enclap.evaluation.sound_pairs import (
    BANDS,
    LEVELS,
    cover_clip,
    labelled_clips,
    limit_band,
    read_at_pair_rate,
    root_mean_square,
)
from enclap.evaluation.wording import Wording
from enclap.types import Candidate, Caption, CaptionResult, Features, Window, embedding_of
from tiny_mini import write_recordings

CAPTIONS = (
    "A dog barks.",
    "A dog barks, and then a rooster crows.",
    "A rooster crows, and then a dog barks.",
    "Rain falls.",
    "A bird calls.",
    "An aircraft flies by",
)
LABELS = (
    ("dog barking",),
    ("dog barking", "rooster crowing"),
    ("dog barking", "rooster crowing"),
    ("dog barking",),
    ("rooster crowing",),
    ("helicopter",),
)


def values(metric: Metric, captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    return {score.name: score.value for score in metric.score(captions, references)}


def test_hearing_is_the_share_of_clips_whose_sounds_are_named_and_in_order() -> None:
    pairs = list(zip(CAPTIONS, LABELS, strict=True))
    named = [all(mentions_label(text, label) for label in labels) for text, labels in pairs]
    family = [all(mentions_family(text, label) for label in labels) for text, labels in pairs]
    found = {score.name: score for score in Hearing().score(CAPTIONS, LABELS)}
    assert found[SOUND_NAMED] == Score(SOUND_NAMED, pytest.approx(np.mean(named)), 6) and sum(named) == 3
    assert found[FAMILY_NAMED].value == pytest.approx(np.mean(family)) and sum(family) > 3
    assert has_correct_order(CAPTIONS[1], *LABELS[1]) and found[ORDER_CORRECT] == Score(ORDER_CORRECT, 0.5, 2)


def test_hearing_over_labels_gives_each_label_the_same_weight() -> None:
    labels = [("dog barking",)] * 3 + [("rain",)]
    found = values(Hearing(over_labels=True), ["A dog barks.", "Rain.", "Rain.", "Rain falls."], labels)
    assert found[SOUND_NAMED] == pytest.approx((1 / 3 + 1) / 2)


def test_wording_counts_words_and_faults() -> None:
    captions = ("A dog barks.", "A dog barks and a dog barks loudly", 'He says "yes."', "")
    found = values(Wording(), captions, [()] * 4)
    assert found["words"] == pytest.approx((3 + 8 + 3) / 4)
    assert found["vocabulary"] == len({"a", "dog", "barks", "and", "loudly", "he", "says", "yes"})
    assert found["repeated phrase"] == 0.25 and found["unfinished"] == 0.5


@pytest.mark.parametrize("metric", [Hearing(), Hearing(over_labels=True), Wording()], ids=lambda metric: metric.name)
def test_every_metric_takes_no_clips_at_all_and_refuses_lists_that_do_not_fit(metric: Metric) -> None:
    scores = metric.score([], [])
    assert scores and all(score.items == 0 for score in scores)
    assert [score.name for score in scores] == [score.name for score in metric.score(CAPTIONS, LABELS)]
    with pytest.raises(ValueError, match="6 predictions, but references for 5"):
        metric.score(CAPTIONS, LABELS[:5])
    order = [3, 1, 5, 0, 4, 2]
    turned = metric.score([CAPTIONS[index] for index in order], [LABELS[index] for index in order])
    assert [score.value for score in turned] == pytest.approx([score.value for score in metric.score(CAPTIONS, LABELS)])


class Equal:
    """A test double: the share of captions that are their own reference."""

    name = "equal"

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        return [Score("equal", float(np.mean([p in r for p, r in zip(predictions, references, strict=True)])), 4)]


def test_baselines_are_the_score_of_captions_in_random_order_and_of_the_best_single_caption() -> None:
    texts = ["a", "a", "b", "c"]
    found = compare_with_baselines(Equal(), texts, [(text,) for text in texts], "equal")
    assert found.score.value == 1.0 and found.constant == 0.5
    generator = np.random.default_rng(0)
    orders = [generator.permutation(4) for _ in range(PERMUTATIONS)]
    slow = [np.mean([texts[index] == text for index, text in zip(order, texts, strict=True)]) for order in orders]
    assert found.shuffled == pytest.approx(np.mean(slow))
    with pytest.raises(KeyError, match="no score 'other'"):
        score_named(Equal().score(texts, [()] * 4), "other")


LINK_PARSER = """#!/bin/sh
while read line; do
    case "$line" in
        *cat*) echo "No complete linkages found." ;;
        *strange*) ;;
        *) echo "Found 3 linkages" ;;
    esac
done
"""


def test_grammar_is_the_share_that_link_parser_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="link-parser is missing"):
        Grammar().score(["A dog barks."], [()])
    program = tmp_path / "link-parser"
    program.write_text(LINK_PARSER, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    assert Grammar().score(["A dog barks.", "Cat the cat.", "Rain."], [()] * 3) == [
        Score("parsed", pytest.approx(2 / 3), 3)
    ]
    with pytest.raises(EnvironmentFault, match="0 answers for 1 sentences"):
        Grammar().score(["A strange one."], [()])
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match=r"exit code 3 \(broken\)"):
        Grammar().score(["A dog barks."], [()])


@dataclass
class Parrot:
    """Captions every source with the same sentence."""

    text: str

    def caption(self, sources: list[object]) -> list[CaptionResult]:
        return [CaptionResult(None, 1.0, (Caption(0.0, 1.0, self.text, 0.5),)) for _ in sources]


PAIRS = 24


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("collection") / "sounds")


@pytest.fixture
def recordings(collection: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small collection, of which few pairs are drawn."""
    monkeypatch.setattr(sound_pairs, "PAIRS", PAIRS)
    return collection


def test_a_constant_caption_hears_what_chance_hears(recordings: Path) -> None:
    report = measure_hearing(Parrot("Rain falls."), recordings, TEST)  # type: ignore[arg-type]
    assert list(report.figures) == [
        ESC,
        NAMED,
        FAMILY,
        ONCE,
        ESC_PAIRS,
        ORDER.format(ESC_PAIRS),
        COMMON_PAIRS,
        ORDER.format(COMMON_PAIRS),
        THREE,
        *(COVERED.format("speech", decibels) for decibels in LEVELS),
        *(BANDED.format(name) for name in BANDS),
        FAULTY,
        LENGTH,
        VOCABULARY,
    ]
    esc = report.figures[ESC]
    assert esc.value == esc.shuffled == esc.constant == pytest.approx(1 / 8) and esc.items == 16
    assert report.figures[ESC_PAIRS].value == 0.0 and report.figures[ORDER.format(ESC_PAIRS)].items == 0
    assert report.figures[FAULTY].value == 0.0
    assert report.figures[FAULTY].items == len(report.captions) == 16 + 3 * PAIRS
    assert report.figures[ONCE].value == 1 and report.figures[LENGTH].value == report.figures[VOCABULARY].value == 2
    assert 0.0 < report.figures[THREE].value < 1.0  # rain is one of three sounds in some rows
    assert report.figures[COVERED.format("speech", -6.0)].value == pytest.approx(1 / 8)


def test_a_covered_sound_has_its_level_beside_what_covers_it(recordings: Path) -> None:
    sounds = {clip.label: clip for clip in select(read_collection(recordings), TEST)}
    rain, speech = sounds["rain"], sounds["person speaking"]
    alone = read_at_pair_rate(recordings, rain)
    over = np.resize(read_at_pair_rate(recordings, speech), len(alone))
    for decibels in LEVELS:
        covered = cover_clip(recordings, rain, speech, decibels)
        assert covered.labels == ("rain",) and len(covered.waveform.samples) == len(alone)
        level = 10.0 ** (decibels / 20.0) * root_mean_square(over) / root_mean_square(alone)
        mixed = over + level * alone
        assert np.allclose(covered.waveform.samples, mixed / max(1.0, np.abs(mixed).max()), atol=1e-5)


def test_pairs_whose_sounds_are_named_in_order_are_counted(recordings: Path) -> None:
    captioner = Parrot("A dog barks, and then rain falls.")
    report = measure_hearing(captioner, recordings, TEST)  # type: ignore[arg-type]
    pairs = [caption.labels for caption in report.captions if len(caption.labels) == 2][:PAIRS]
    both = [pair for pair in pairs if set(pair) == {"dog barking", "rain"}]
    assert report.figures[ESC_PAIRS].value == pytest.approx(len(both) / PAIRS) and both
    order = report.figures[ORDER.format(ESC_PAIRS)]
    assert order.items == len(both)
    assert order.value == pytest.approx(np.mean([pair == ("dog barking", "rain") for pair in both]))


def test_a_band_limited_clip_holds_nothing_outside_its_band(recordings: Path) -> None:
    rain = next(clip for clip in select(read_collection(recordings), TEST) if clip.label == "rain")
    samples = limit_band(recordings, rain, 300.0, 3_400.0).waveform.samples
    power = np.square(np.abs(np.fft.rfft(samples)))
    hertz = np.fft.rfftfreq(len(samples), 1.0 / 32_000)
    inside = (hertz >= 300.0) & (hertz <= 3_400.0)
    assert power[~inside].sum() < 1e-9 * power[inside].sum()


def test_faulty_captions_repeat_a_phrase_or_do_not_end() -> None:
    assert not is_faulty("A dog barks.")
    for caption in ("A dog barks, and a dog barks.", "A dog barks", " ".join(["word"] * 21) + "."):
        assert is_faulty(caption)


def test_the_clips_of_a_split_are_its_recordings_and_pairs_of_them_the_same_each_time(recordings: Path) -> None:
    clips = list(labelled_clips(recordings, VALIDATION))
    again = list(labelled_clips(recordings, VALIDATION))
    assert [clip.labels for clip in clips] == [clip.labels for clip in again]
    single = [clip for clip in clips if len(clip.labels) == 1]
    pairs = [clip for clip in clips if len(clip.labels) == 2]
    assert len(single) == 6 and len(pairs) == PAIRS and all(len(set(clip.labels)) == 2 for clip in pairs)
    assert all(
        np.array_equal(one.waveform.samples, two.waveform.samples) for one, two in zip(clips, again, strict=True)
    )


class Ears:
    """An engine that names two sounds when it has both inputs, one without the codes, none without the embedding."""

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        return [Features(np.zeros((4, 2), np.int64), np.float32([1.0, 0.0])) for _ in windows]

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        return [[Candidate((), self.sentence(clip), -1.0)] for clip in features]

    def sentence(self, clip: Features) -> str:
        if not embedding_of(clip).any():
            return "Something."
        return "A dog barks." if (clip.codes == 16).all() else "A dog barks, and then rain falls."


def test_what_an_input_adds_is_what_is_lost_without_it(recordings: Path) -> None:
    figures = measure_inputs(Ears(), 16, recordings, TEST)  # type: ignore[arg-type]
    both, order = figures["codes and embedding"]
    assert 0.0 < both.value < 1.0 and both.items == PAIRS and order.items == round(both.value * PAIRS)
    assert figures["embedding alone"][0].value == figures["codes alone"][0].value == 0.0
    assert figures["codes alone"][1].items == 0
