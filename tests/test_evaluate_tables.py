"""Reading predictions and references: every format that is promised, and one line for every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enclap.data.datasets.base import FAULTS_SHOWN
from enclap.errors import DataError
from enclap.evaluation.captioning.tables import ClipCaptions, match, read_predictions, read_references


def table(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("column", ["path", "file_name", "fname", "audiocap_id"])
@pytest.mark.parametrize("caption", ["caption", "candidate", "text"])
def test_a_prediction_is_found_under_each_promised_name(tmp_path: Path, column: str, caption: str) -> None:
    csv_file = table(tmp_path, "a.csv", f"{column},{caption}\n1.wav,a dog  barks\n")
    json_file = table(tmp_path, "a.jsonl", json.dumps({column: "1.wav", caption: "a dog barks"}) + "\n")
    assert read_predictions(csv_file) == read_predictions(json_file) == [ClipCaptions("1.wav", ("a dog barks",))]


@pytest.mark.parametrize("name", ["caption", "reference"])
def test_references_are_read_in_the_order_of_their_numbers(tmp_path: Path, name: str) -> None:
    numbers = range(1, 12)
    header = ",".join(["fname", "candidate", *(f"{name}_{number}" for number in reversed(numbers))])
    cells = ",".join(["a.wav", "not this", *(f"text {number}" for number in reversed(numbers))])
    expected = [ClipCaptions("a.wav", tuple(f"text {number}" for number in numbers))]
    assert read_references(table(tmp_path, "a.csv", f"{header}\n{cells}\n")) == expected
    listed = json.dumps({"fname": "a.wav", f"{name}s": [f"text {number}" for number in numbers]})
    assert read_references(table(tmp_path, "a.jsonl", listed)) == expected


def test_references_may_be_in_several_rows_as_those_of_audiocaps(tmp_path: Path) -> None:
    header = "audiocap_id,youtube_id,start_time,caption\n"
    path = table(tmp_path, "test.csv", f"{header}1,abc,30,A dog.\n2,def,0,Rain.\n3,abc,30,A dog.\n4,abc,30,Woof.\n")
    assert read_references(path) == [
        ClipCaptions("abc_30", ("A dog.", "A dog.", "Woof.")),
        ClipCaptions("def_0", ("Rain.",)),
    ]


def test_the_programs_own_json_lines_are_predictions(tmp_path: Path) -> None:
    line = {"path": "a.wav", "duration": 3.0, "captions": [{"start": 0.0, "end": 3.0, "text": "A dog barks."}]}
    assert read_predictions(table(tmp_path, "a.jsonl", json.dumps(line)))[0].captions == ("A dog barks.",)
    line["captions"] *= 2  # type: ignore[operator]
    with pytest.raises(DataError, match="2 captions for one clip; caption with --window 0"):
        read_predictions(table(tmp_path, "a.jsonl", json.dumps(line)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "path,caption\na.wav,one\na.wav,two\n", "line 3: 'a.wav' is in line 2 already"),
        ("a.csv", "path,caption\na.wav,\n", "line 2: the caption is empty"),
        ("a.csv", "path,caption\n,one\n", "line 2: path is empty"),
        ("a.csv", "path,caption\na.wav,one,two\n", "3 cells, but the header has 2; put quotes around commas"),
        ("a.csv", "path,path\na.wav,b\n", "two columns of the header have the same name"),
        ("a.csv", 'path,caption\na.wav,"one\n', "not CSV from here on"),
        ("a.csv", "name,caption\na.wav,one\n", "line 1: the header needs a clip (path, file_name, fname, "),
        ("a.jsonl", '{"caption": "one"}\n', "line 1: names no clip; it needs one of path, file_name, "),
        ("a.csv", "path,words\na.wav,one\n", "and a caption; it has path, words"),
        ("a.csv", "path,reference_1\na.wav,one\n", "no caption; it needs candidate or caption"),
        ("a.csv", "path,caption\n", "no clips; write a row for each"),
        ("a.csv", "", "no clips; write a row for each"),
        ("a.csv", "path,caption\na.wav," + "word " * 1001 + "\n", "a caption of 1001 words; at most 1000"),
        ("a.jsonl", "[]\n", "line 1: not an object"),
        ("a.jsonl", "{\n", "line 1: not JSON"),
        ("a.jsonl", '{"path": "a", "caption": 3}\n', "line 1: the caption is no text"),
        ("a.jsonl", '{"path": null, "caption": "a"}\n', "line 1: path is empty"),
        ("a.txt", "a dog\n", "not a table that is read here; give .csv or .tsv or .jsonl or .parquet"),
    ],
)
def test_each_fault_of_a_table_is_one_line_that_says_where(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_predictions(table(tmp_path, name, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_counted_and_some_shown(tmp_path: Path) -> None:
    path = table(tmp_path, "a.csv", "path,caption\n" + "".join(f"{n}.wav,\n" for n in range(FAULTS_SHOWN + 3)))
    last = rf"line 2: .*line {FAULTS_SHOWN + 1}: the caption is empty; and 3 more faults$"
    with pytest.raises(DataError, match=last):
        read_predictions(path)


def test_a_table_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("path,caption\na.wav,caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_predictions(tmp_path / "latin.csv")


def test_clips_that_do_not_match_are_counted_and_named() -> None:
    predictions = [ClipCaptions(name, ("a dog",)) for name in "abcde"]
    references = [ClipCaptions(name, ("a cat",)) for name in "edxyzw"]
    with pytest.raises(DataError) as caught:
        match(predictions, references, "p and r")
    text = str(caught.value)
    assert "4 of 6 clips without a prediction ('x', 'y', 'z', ...)" in text
    assert "3 of 5 clips predicted but without references ('a', 'b', 'c')" in text


def test_clips_are_matched_by_name_whatever_their_order() -> None:
    predictions = [ClipCaptions("b", ("of b",)), ClipCaptions("a", ("of a",))]
    references = [ClipCaptions("a", ("1", "2"), ("dog",)), ClipCaptions("b", ("3",))]
    found = match(predictions, references, "")
    assert found.clips == ("a", "b")
    assert found.predictions == ("of a", "of b")
    assert found.references == (("1", "2"), ("3",))
    assert found.labels == (("dog",), ())
