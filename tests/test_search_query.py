"""Questions to a library: by words, by a sound, with filters, and how the answers are written."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enclap.captioner import Captioner
from enclap.engines import load_engine
from enclap.errors import AudioRefused, UsageError
from enclap.hub.resolve import find_model
from enclap.search.asking import Question, Run, answer
from enclap.search.library import Library, model_hashes
from enclap.search.likeness import search_like
from enclap.search.listing import Hit, list_hits
from enclap.search.query import RANK_OFFSET, Filters, fuse, parse_day, relevance_values, search_words
from enclap.search.relevance import FITTED_SPACES
from enclap.search.store import Row
from libraries import indexed, tone_captioner, write_sound, write_sounds
from sounds import write_audio


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return tone_captioner(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, captioner: Captioner) -> Library:
    folder = tmp_path_factory.mktemp("made")
    sounds = write_sounds(folder / "sounds", {"one.wav": "dog", "deep/two.wav": "rain", "deep/dog-three.wav": "bell"})
    write_sound(sounds / "long.wav", "engine", "dog", "engine", "dog", seconds=10.0)
    os.utime(sounds / "one.wav", (1_700_000_000, 1_700_000_000))  # in November 2023
    return indexed(folder / "library", sounds, captioner)[0]


def paths(hits: list[Hit]) -> list[str]:
    return [hit.path for hit in hits]


def test_words_find_the_sound_and_its_time(library: Library, captioner: Captioner) -> None:
    hits = search_words(library, captioner.engine, "a dog", 10)
    assert set(paths(hits)[:3]) == {"one.wav", "long.wav", "deep/dog-three.wav"}  # the last by its name alone
    assert sorted(paths(hits)) == sorted(set(paths(hits)))
    times = {hit.path: (hit.start, hit.end) for hit in hits}
    assert times["long.wav"] == (10.0, 20.0)
    assert all(0 <= hit.score <= 1 for hit in hits)


def test_curves_order_the_hits_of_the_model_that_they_were_fitted_to(
    library: Library, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = {hit.path: hit for hit in search_words(library, captioner.engine, "a dog", 10)}
    monkeypatch.setattr("enclap.search.query.FITTED_SPACES", {library.facts.space})
    for segments in (False, True):
        hits = search_words(library, captioner.engine, "a dog", 10, segments=segments)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert {hit.path for hit in hits} == set(ranked)
    hits = search_words(library, captioner.engine, "a dog", 10)
    assert {hit.path: hit for hit in hits} == ranked  # the order alone is another
    assert search_words(library, captioner.engine, "a dog", 2, Filters(score=hits[1].score)) == hits[:2]


def test_the_curves_were_fitted_to_mini_as_it_is() -> None:
    space = model_hashes(find_model("mini"))[0]
    assert space in FITTED_SPACES, "mini hears otherwise now: benchmarks/search.py --split validation --calibrate"


def test_a_text_matches_as_well_as_the_words_that_it_holds() -> None:
    def row(caption: str, path: str, matched: float = 0.0) -> Row:
        return Row(path, 0.0, 1.0, caption, 0.1, 0.2, 0.5, matched)

    captions = [row("A dog barks.", "x.wav", 8.0), row("A dog howls.", "y.wav", 4.0)]
    names = [row("", "Dog Barking.wav", 3.0)]
    rows = [*captions, *names, row("A dog howls.", "z/dog-barking.wav"), row("Rain.", "rain.wav")]
    values = relevance_values("dog barking", rows, captions, names)
    assert [value[0] for value in values] == [pytest.approx(2.0)] * 5
    assert [value[1] for value in values] == [1.0, 0.5, 0.0, 0.5, 0.0]  # of equal captions one stands for all
    assert [value[2] for value in values] == [0.0, 0.0, 1.0, 0.0, 0.0]
    assert [value[1] for value in relevance_values("dog biting a postman", captions, captions, [])] == [
        pytest.approx(4 / 6),
        pytest.approx(2 / 6),
    ]


def test_a_name_is_evidence_beside_the_sound(library: Library, captioner: Captioner) -> None:
    hits = search_words(library, captioner.engine, "dog", 10)
    scores = {hit.path: hit.score for hit in hits}
    assert scores["deep/dog-three.wav"] > scores["deep/two.wav"]


def test_segments_are_shown_one_by_one(library: Library, captioner: Captioner) -> None:
    hits = search_words(library, captioner.engine, "dog", 10, segments=True)
    found = {(hit.path, hit.start) for hit in hits[:4]} - {("deep/dog-three.wav", 0.0)}
    assert found == {("one.wav", 0.0), ("long.wav", 10.0), ("long.wav", 30.0)}
    assert len(hits) == 7


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(folder="deep"), {"deep/two.wav", "deep/dog-three.wav"}),
        (Filters(folder="deep/"), {"deep/two.wav", "deep/dog-three.wav"}),
        (Filters(folder="dee"), set()),
        (Filters(folder="o'clock"), set()),
        (Filters(shortest=5), {"long.wav"}),
        (Filters(longest=5), {"one.wav", "deep/two.wav", "deep/dog-three.wav"}),
        (Filters(until=date(2023, 12, 31)), {"one.wav"}),
        (Filters(since=date(2024, 1, 1)), {"long.wav", "deep/two.wav", "deep/dog-three.wav"}),
        (Filters(score=1.0), set()),
    ],
)
def test_filters_leave_out_what_they_say(
    library: Library, captioner: Captioner, filters: Filters, expected: set[str]
) -> None:
    assert set(paths(search_words(library, captioner.engine, "dog", 10, filters))) == expected


def test_a_sound_finds_its_like_but_not_itself(library: Library, captioner: Captioner, tmp_path: Path) -> None:
    assert paths(search_like(library, captioner, str(library.folder / "one.wav"), 1)) == ["long.wav"]
    other = write_sound(tmp_path / "other.wav", "rain", seconds=2.0)
    assert paths(search_like(library, captioner, str(other), 1)) == ["deep/two.wav"]
    dog = write_sound(tmp_path / "dog.wav", "dog", seconds=3.0)
    segments = search_like(library, captioner, str(dog), 3, segments=True)
    assert {(hit.path, hit.start) for hit in segments} == {("one.wav", 0.0), ("long.wav", 10.0), ("long.wav", 30.0)}
    with pytest.raises(AudioRefused, match="is silent"):
        search_like(
            library, captioner, str(write_audio(tmp_path / "no.wav", np.zeros((800, 1), np.float32), 16_000)), 1
        )


def test_rankings_are_fused_by_the_sum_of_reciprocal_ranks() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        names = [str(name) for name in generator.permutation(9)[: generator.integers(1, 9)]]
        rankings = [{(name, 0.0): float(generator.integers(4)) for name in names[:count]} for count in (9, 5, 2)]
        weights = [1.0, 0.5, 2.0]
        sums: dict[Any, float] = {}
        for scores, weight in zip(rankings, weights, strict=True):
            for key in scores:
                rank = 1 + sum(other > scores[key] for other in scores.values())
                sums[key] = sums.get(key, 0.0) + weight / (RANK_OFFSET + rank)
        found = fuse(list(zip(rankings, weights, strict=True)))
        assert sorted(found) == sorted(sums)
        assert [round(sums[key], 9) for key in found] == sorted((round(v, 9) for v in sums.values()), reverse=True)


@pytest.mark.parametrize(
    ("words", "fault"),
    [("", "no words"), (" ?! ", "no words"), ("dog " * 10_000, "has 10000 words"), ("x" * 5000, "has 1 words")],
)
def test_queries_of_no_words_or_too_many_are_refused(
    library: Library, captioner: Captioner, words: str, fault: str
) -> None:
    with pytest.raises(UsageError, match=fault):
        search_words(library, captioner.engine, words, 10)


def test_words_with_signs_of_query_languages_are_only_words(library: Library, captioner: Captioner) -> None:
    for words in ('dog" OR "', "dog AND (rain", "it's a dog; DROP TABLE rows", "dog~2 +rain -bell *", "犬 dog"):
        assert search_words(library, captioner.engine, words, 3)


def test_days_are_days() -> None:
    assert parse_day("2026-11-27", "--since") == date(2026, 11, 27)
    with pytest.raises(UsageError, match="--since yesterday: not a day"):
        parse_day("yesterday", "--since")


HITS = [
    Hit("/sounds/a dog.wav", 10.0, 20.0, "A dog barks.", 0.91234),
    Hit('/sounds/=cmd,"x".wav', 0.0, 2.5, "Rain\nfalls.", 0.5),
]


def test_hits_are_written_as_text_json_table_and_list() -> None:
    assert list_hits("text", HITS[:1]) == "0.91  /sounds/a dog.wav  0:10.0 - 0:20.0  A dog barks.\n"
    table = json.loads(list_hits("json", HITS))
    assert table["schema"] == 1
    assert table["results"][0] == {
        "path": "/sounds/a dog.wav",
        "start": 10.0,
        "end": 20.0,
        "text": "A dog barks.",
        "score": 0.9123,
    }
    rows = list(csv.DictReader(io.StringIO(list_hits("csv", HITS))))
    assert [row["path"] for row in rows] == ["/sounds/a dog.wav", '/sounds/=cmd,"x".wav']
    assert rows[1]["text"] == "Rain\\x0afalls."
    lines = list_hits("m3u", HITS).splitlines()
    assert lines[:5] == [
        "#EXTM3U",
        "#EXTINF:10,A dog barks.",
        "#EXTVLCOPT:start-time=10.000",
        "#EXTVLCOPT:stop-time=20.000",
        "/sounds/a dog.wav",
    ]
    assert len(lines) == 9
    assert [list_hits(style, []) for style in ("text", "json")] == ["", '{"schema": 1, "results": []}\n']


def test_texts_that_have_nothing_in_common_lie_apart() -> None:
    """A text tower that has collapsed gives all texts one direction: its searches find the same for every query."""
    queries = [
        "A dog barks.",
        "Rain falls on a roof.",
        "Someone plays the violin.",
        "A car engine runs.",
        "A woman speaks.",
        "Glass breaks.",
        "A bell rings.",
        "Birds sing in a forest.",
    ]
    vectors = load_engine(find_model("mini"), threads=1).embed_text(queries)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(queries), 1)]
    assert cosines.mean() < 0.6, cosines


def test_an_answer_names_whole_paths(library: Library, captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enclap.search.asking.library_model", lambda opened, run: captioner)
    question = Question("dog", None, False, 1, Filters(), False)
    [hit] = json.loads(answer(library.path, question, "json", Run()))["results"]
    assert Path(hit["path"]).is_file()
