"""What results look like when they are written."""

from __future__ import annotations

import json

import pytest

from enclap.cli.caption import FormatName
from enclap.formats import FORMATS, SUFFIXES, join_neighbours
from enclap.names import printable
from enclap.types import Candidate, Caption, CaptionResult


def caption(start: float, end: float, text: str = "A dog barks.", score: float | None = -0.51234) -> Caption:
    best = (Candidate((0, 5, 2), text, score),) if score is not None else ()
    return Caption(start, end, text, score, silence=score is None, candidates=best)


SHORT = CaptionResult("dog.wav", 5.0, (caption(0, 5),))
LONG = CaptionResult("street.mp3", 3723.4, (caption(0, 10), caption(10, 20), caption(20, 3723.4, "Silence.", None)))


def write(style: str, *results: CaptionResult) -> str:
    return "".join(FORMATS[style](results, "mini"))


def test_text_is_a_line_per_recording_and_per_window() -> None:
    assert write("text", SHORT, LONG) == (
        "dog.wav: A dog barks.\n"
        "street.mp3\n"
        "     0:00.0 -    0:10.0  A dog barks.\n"
        "     0:10.0 -    0:20.0  A dog barks.\n"
        "     0:20.0 - 1:02:03.4  Silence.\n"
    )


def test_text_shows_the_other_candidates() -> None:
    others = (Candidate((0, 2), "A dog barks.", -0.5), Candidate((0, 2), "A dog howls.", -0.7))
    result = CaptionResult("dog.wav", 5.0, (Caption(0, 5, "A dog barks.", -0.5, candidates=others),))
    assert write("text", result) == "dog.wav: A dog barks.\n  or: A dog howls.\n"


def test_json_has_the_documented_fields() -> None:
    document = json.loads(write("json", SHORT, LONG))
    assert (document["schema"], document["model"], len(document["results"])) == (1, "mini", 2)
    assert document["results"][0] == {
        "path": "dog.wav",
        "duration": 5.0,
        "captions": [
            {
                "start": 0,
                "end": 5,
                "text": "A dog barks.",
                "score": -0.5123,
                "silence": False,
                "candidates": [{"text": "A dog barks.", "score": -0.5123}],
            }
        ],
    }
    assert document["results"][1]["captions"][2]["score"] is None
    assert document["results"][1]["captions"][2]["silence"] is True


def test_json_of_nothing_is_json() -> None:
    assert json.loads(write("json")) == {"schema": 1, "model": "mini", "results": []}
    assert write("jsonl") == ""


def test_json_lines_are_the_results_of_the_document() -> None:
    lines = [json.loads(line) for line in write("jsonl", SHORT, LONG).splitlines()]
    assert lines == json.loads(write("json", SHORT, LONG))["results"]


def test_subtitles_join_neighbours_with_the_same_caption() -> None:
    assert write("srt", LONG) == (
        "1\n00:00:00,000 --> 00:00:20,000\nA dog barks.\n\n2\n00:00:20,000 --> 01:02:03,400\nSilence.\n\n"
    )


def test_joining_keeps_the_time_line() -> None:
    captions = [caption(0, 1, "a"), caption(1, 2, "b"), caption(2, 3, "b"), caption(3, 4, "a")]
    assert [(item.start, item.end, item.text) for item in join_neighbours(captions)] == [
        (0, 1, "a"),
        (1, 3, "b"),
        (3, 4, "a"),
    ]


@pytest.mark.parametrize("style", list(FORMATS))
def test_names_cannot_reach_the_terminal_or_break_the_format(style: str) -> None:
    path = "red\x1b[31m\nbell\x07\x9b2J\u202etxt\udcff\U000e0001é.wav"
    output = write(style, CaptionResult(path, 5.0, (caption(0, 5),)))
    assert all(character.isprintable() or character == "\n" for character in output)
    output.encode("utf-8")  # no lone surrogate is left
    if style == "json":
        assert json.loads(output)["results"][0]["path"] == path.replace("\udcff", "\\xff")
    if style == "text":
        assert output.count("\n") == 1
        assert "é.wav" in output


def test_escapes_show_what_was_there() -> None:
    assert printable("a\x1b\udcff\u202e\U000e0001é 猫.wav") == "a\\x1b\\xff\\u202e\\U000e0001é 猫.wav"


def test_the_command_line_offers_every_format() -> None:
    assert set(FORMATS) == set(SUFFIXES) == {name.value for name in FormatName}
