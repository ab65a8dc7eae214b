"""What results look like when they are written."""

from __future__ import annotations

import csv
import json
import re

import pytest

from enclap.cli.choices import FORMAT_NAMES
from enclap.output.formats import COLUMNS, FORMATS, join_neighbours
from enclap.text import printable
from enclap.types import Candidate, Caption, CaptionResult


def caption(start: float, end: float, text: str = "A dog barks.", score: float | None = -0.51234) -> Caption:
    best = (Candidate((0, 5, 2), text, score),) if score is not None else ()
    return Caption(start, end, text, score, silence=score is None, candidates=best)


SHORT = CaptionResult("dog.wav", 5.0, (caption(0, 5),))
LONG = CaptionResult("street.mp3", 3723.4, (caption(0, 10), caption(10, 20), caption(20, 3723.4, "Silence.", None)))
OTHERS = (
    Candidate((0, 2), "A dog barks.", -0.5),
    Candidate((0, 2), "A dog howls.", -0.7),
    Candidate((0, 2), "A dog howls.", -0.8),
    Candidate((0, 2), "A wolf.", -0.9),
)
CHOICE = CaptionResult("dog.wav", 5.0, (Caption(0, 5, "A dog barks.", -0.5, candidates=OTHERS),))


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
    expected = "dog.wav: A dog barks. (-0.50)\n  or: A dog howls. (-0.70)\n  or: A wolf. (-0.90)\n"
    assert write("text", CHOICE) == expected


def test_tables_have_a_row_for_every_candidate_and_for_silence() -> None:
    for style, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        head, *rows = csv.reader(write(style, CHOICE, LONG).splitlines(), dialect)
        assert tuple(head) == COLUMNS
        assert rows[:2] == [
            ["dog.wav", "0.000", "5.000", "1", "A dog barks.", "-0.5000", "false"],
            ["dog.wav", "0.000", "5.000", "2", "A dog howls.", "-0.7000", "false"],
        ]
        assert rows[-1] == ["street.mp3", "20.000", "3723.400", "1", "Silence.", "", "true"]
        assert len(rows) == 4 + 3


VAGUE = "An animal is heard."


@pytest.mark.parametrize("candidates", [1, 2, 4])
def test_every_format_shows_the_same_caption_first_and_a_lone_distrusted_candidate_is_no_row(candidates: int) -> None:
    """As when a model's calibration replaces a sentence that is probably wrong by a vaguer one."""
    result = CaptionResult("dog.wav", 5.0, (Caption(0, 5, VAGUE, 0.2, candidates=OTHERS[:candidates]),))
    assert write("text", result).splitlines()[0].removeprefix("dog.wav: ").removesuffix(" (0.20)") == VAGUE
    assert json.loads(write("json", result))["results"][0]["captions"][0]["text"] == VAGUE
    assert write("srt", result).splitlines()[2] == write("vtt", result).splitlines()[3] == VAGUE
    for style, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        rows = list(csv.DictReader(write(style, result).splitlines(), dialect=dialect))
        assert (rows[0]["text"], rows[0]["rank"], rows[0]["score"]) == (VAGUE, "1", "0.2000")
        assert [row["rank"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
        marked = [(row["text"], float(row["score"])) for row in rows[1:]]
        expected = [(item.text, item.score) for item in OTHERS[:candidates]]
        assert marked == (expected if candidates > 1 else [])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\uff1d"])
def test_no_cell_of_a_table_runs_in_a_spreadsheet(start: str) -> None:
    formula = f'{start}HYPERLINK("http://example.org","dog")'
    result = CaptionResult(formula, 5.0, (caption(0, 5, formula),))
    for style, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        _, row = csv.reader(write(style, result).splitlines(), dialect)
        assert (row[0], row[4]) == ("'" + formula, "'" + formula)
        assert float(row[5]) == -0.5123  # a negative number stays a number
    assert write("csv", CaptionResult("-", 5.0, (caption(0, 5),))).splitlines()[1].startswith("-,0.000")


def test_a_table_keeps_separators_quotes_and_line_ends_inside_their_cell() -> None:
    name = 'a,b\t"c"\nd.wav'
    for style, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        result = CaptionResult(name, 5.0, (caption(0, 5, 'One, "two"'),))
        _, row = csv.reader(write(style, result).splitlines(), dialect)
        assert (row[0], row[4]) == ('a,b\\x09"c"\\x0ad.wav', 'One, "two"')


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


def test_web_subtitles_have_a_head_points_and_no_markup() -> None:
    result = CaptionResult("a.wav", 5.0, (caption(0, 5, "Rain & <wind> --> thunder."),))
    assert write("vtt", result) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:05.000\nRain &amp; &lt;wind&gt; --&gt; thunder.\n\n"
    )
    assert write("vtt", LONG).count("-->") == write("srt", LONG).count("-->") == 2


@pytest.mark.parametrize(("start", "end"), [(0.0, 1 / 48_000), (0.0, 0.0), (5.0004, 5.0006), (3599.9996, 3600.0001)])
def test_a_cue_lasts_long_enough_for_players(start: float, end: float) -> None:
    result = CaptionResult("a.wav", end, (caption(start, end),))
    for style in ("srt", "vtt"):
        times = re.findall(r"(\d\d):(\d\d):(\d\d)[.,](\d{3})", write(style, result))
        first, last = (3600 * int(h) + 60 * int(m) + int(s) + int(ms) / 1000 for h, m, s, ms in times)
        assert first == pytest.approx(start, abs=0.0005) and 0.03 < last - first < 0.05


def test_captions_with_a_gap_between_them_are_not_joined() -> None:
    result = CaptionResult("a.mp4", 28.0, (caption(0, 4), caption(24, 28)))
    assert write("srt", result).count("-->") == write("vtt", result).count("-->") == 2


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
    separators = "\n\t" if style == "tsv" else "\n"
    assert all(character.isprintable() or character in separators for character in output)
    output.encode("utf-8")  # no lone surrogate is left
    if style == "json":
        assert json.loads(output)["results"][0]["path"] == path.replace("\udcff", "\\xff")
    if style == "text":
        assert output.count("\n") == 1
        assert "é.wav" in output


def test_escapes_show_what_was_there() -> None:
    assert printable("a\x1b\udcff\u202e\U000e0001é 猫.wav") == "a\\x1b\\xff\\u202e\\U000e0001é 猫.wav"


def test_the_bytes_for_http_are_those_of_files() -> None:
    for style, form in FORMATS.items():
        pieces = list(form.encoded([SHORT, LONG], "mini"))
        assert b"".join(pieces).decode() == write(style, SHORT, LONG)
        assert len(pieces) == 4 and re.fullmatch(r"(text|application)/[a-z-]+(; charset=utf-8)?", form.media_type)
    assert b"".join(FORMATS["text"].encoded([CaptionResult("\ud800.wav", 5.0, SHORT.captions)], "m")).startswith(
        b"\\ud800"
    )


def test_the_command_line_offers_every_format() -> None:
    assert list(FORMATS) == list(FORMAT_NAMES)
    assert len({form.suffix for form in FORMATS.values()}) == len(FORMATS)
