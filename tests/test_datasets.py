"""Data sets of captions: the recordings by their labels, tables of one's own, and who may see which recording."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enclap.audio.read import read_audio
from enclap.data.columns import CLIP_COLUMNS
from enclap.data.datasets.base import FAULTS_SHOWN, CaptionDataset, CaptionedClip, Fault, in_split
from enclap.data.datasets.recordings import RecordingsDataset
from enclap.data.datasets.table import TableDataset
from enclap.data.recordings import Recording, read_manifest
from enclap.data.splits import EXTERNAL_SOURCES, SPLITS, hash_fraction, is_held_out, select, split_of
from enclap.data.tables import READERS
from enclap.errors import DataError, MissingExtra
from enclap.evaluation.captioning.tables import ClipCaptions, read_references
from enclap.evaluation.hearing import mentions_label
from sounds import tone, write_wav
from tiny_mini import SOUNDS, write_recordings

TWO_CLIPS = [
    ("one.wav", "A dog.", "A dog.", "dog; rain"),
    ("two.wav", "Rain.", "", ""),
    ("one.wav", "Woof.", "", ""),
]
MANIFEST = Path(__file__).resolve().parents[1] / "recipes" / "mini" / "recordings.csv"


def test_recordings_are_set_apart_by_name_evenly() -> None:
    draws = [hash_fraction(f"r{number}", "held out") for number in range(2_000)]
    assert draws == [hash_fraction(f"r{number}", "held out") for number in range(2_000)]
    assert np.mean(np.asarray(draws) < 0.15) == pytest.approx(0.15, abs=0.03)


def test_the_splits_of_minis_recordings_part_them_and_keep_clips_of_one_original_together() -> None:
    recordings = read_manifest(MANIFEST)
    parts = {split: select(recordings, split) for split in SPLITS}
    assert sum(map(len, parts.values())) == len(recordings) and len(parts["test"]) == 385
    assert {item.source_repo for item in parts["external"]} == set(EXTERNAL_SOURCES) and len(parts["external"]) == 121
    assert select(recordings, "unseen", "validation") == [
        item
        for item in recordings
        if item.split == "train" and item.source_repo not in EXTERNAL_SOURCES and is_held_out(item)
    ]
    originals: dict[str, set[str]] = {}
    for item in recordings:
        if item.fold is None:
            originals.setdefault(item.recording, set()).add(split_of(item))
    assert all(len(splits) == 1 for splits in originals.values())
    assert {split_of(item) for item in recordings if item.fold == 3 and item.split == "train"} == {"seen"}


def slow_split(recording: Recording) -> str:
    """The rule as it was first written, in two places."""
    if recording.source_repo in EXTERNAL_SOURCES:
        return "external"
    if recording.split == "test":
        return "test"
    held_out = recording.fold == 4 if recording.fold else hash_fraction(recording.recording, "held out") < 0.15
    return ("unseen" if hash_fraction(recording.recording, "captioner") < 0.5 else "validation") if held_out else "seen"


def test_the_rule_is_that_by_which_the_shipped_model_was_trained() -> None:
    for recording in read_manifest(MANIFEST):
        assert split_of(recording) == slow_split(recording), recording.path


def test_a_manifest_with_another_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(MANIFEST.read_text(encoding="utf-8").replace(",train,", ",dev,", 1), encoding="utf-8")
    with pytest.raises(DataError, match="split 'dev'; write train or test"):
        read_manifest(path)


@pytest.mark.parametrize(
    "content", [b"path,labels\na.wav,rain\n", b"\xff\xfe\x00", b""], ids=["columns", "bytes", "empty"]
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    if content:
        with pytest.raises(DataError, match="not a recordings manifest"):
            read_manifest(path)
    else:
        assert read_manifest(path) == []


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("collection") / "sounds")


def test_recordings_are_described_by_their_labels(recordings: Path) -> None:
    dataset: CaptionDataset = RecordingsDataset(recordings)
    clips = list(dataset)
    assert len(clips) == len(dataset) == 10 * len(SOUNDS) and clips == list(RecordingsDataset(recordings))
    for clip in clips:
        assert isinstance(clip.source, Path) and read_audio(clip.source).seconds > 0.5
        assert 1 <= len(clip.captions) <= 3 and len(set(clip.captions)) == len(clip.captions)
        assert all(mentions_label(text, clip.labels[0]) for text in clip.captions)
    assert len({clip.name for clip in clips}) == len(clips)
    assert sum(len(in_split(dataset, split)) for split in SPLITS) == len(clips)
    assert all(len(clip.captions) == 1 for clip in RecordingsDataset(recordings, captions=1))


def test_a_label_that_the_lexicon_lacks_is_named(recordings: Path, tmp_path: Path) -> None:
    text = (recordings / "manifest.csv").read_text(encoding="utf-8").replace("helicopter", "purple noise")
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="labels that the lexicon lacks: purple noise"):
        RecordingsDataset(tmp_path)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with three sounds."""
    for name in ("one", "two", "three"):
        write_wav(tmp_path / f"{name}.wav", (tone(0.1, 8_000) * 32767).astype(np.int16), 8_000)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_in_csv_and_in_json_lines_is_the_same_data_set(sounds: Path) -> None:
    table = write(
        sounds / "a.csv",
        '\ufeffpath,caption_1,caption_2,split,keywords\none.wav,"A dog barks,\ntwice.",A dog.,,x\n'
        "two.wav,Rain falls.,,test,\none.wav,A  dog.,Woof.,train,\n",
    )
    lines = write(
        sounds / "a.jsonl",
        '{"path": "one.wav", "captions": ["A dog barks, twice.", "A dog."]}\n\n'
        '{"path": "two.wav", "caption": "Rain falls.", "split": "test"}\n'
        '{"path": "one.wav", "captions": ["A dog.", "Woof."], "split": "train"}\n',
    )
    wanted = [
        CaptionedClip("one.wav", sounds / "one.wav", ("A dog barks, twice.", "A dog.", "Woof."), "train"),
        CaptionedClip("two.wav", sounds / "two.wav", ("Rain falls.",), "test"),
    ]
    datasets: list[CaptionDataset] = [TableDataset(table), TableDataset(lines)]
    found = [[replace(clip, table="", line=0) for clip in dataset] for dataset in datasets]
    assert found == [wanted, wanted] and len(datasets[0]) == 2


@pytest.mark.parametrize("name", CLIP_COLUMNS)
@pytest.mark.parametrize("format_", READERS)
def test_a_data_set_and_references_read_the_same_of_a_table(sounds: Path, name: str, format_: str) -> None:
    header = (name, "reference_1", "reference_2", "labels")
    rows = [dict(zip(header, cells, strict=True)) for cells in TWO_CLIPS]
    table = sounds / f"a{format_}"
    if format_ == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif format_ == ".jsonl":
        write(table, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        write(table, "".join({".csv": ",", ".tsv": "\t"}[format_].join(row) + "\n" for row in (header, *TWO_CLIPS)))
    clips = list(TableDataset(table, is_distinct=False))
    assert [ClipCaptions(clip.name, clip.captions, clip.labels) for clip in clips] == read_references(table)
    assert [clip.name for clip in clips] == ["one.wav", "two.wav"] and [clip.line for clip in clips] == (
        [2, 3] if format_ in (".csv", ".tsv") else [1, 2]
    )
    assert clips[0].labels == ("dog", "rain") and clips[0].captions == ("A dog.", "A dog.", "Woof.")
    assert next(iter(TableDataset(table))).captions == ("A dog.", "Woof.")


@pytest.mark.parametrize("content", [b"no Parquet", b"PAR1" + bytes(20) + b"PAR1"])
def test_what_is_no_parquet_is_refused_in_one_line(sounds: Path, content: bytes) -> None:
    (sounds / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: (not Parquet|cannot be read)") as caught:
        TableDataset(sounds / "a.parquet")
    assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"sound": ["one.wav"], "caption": ["A dog."]}), sounds / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the header needs a clip .* it has sound, caption$"):
        TableDataset(sounds / "a.parquet")


def test_parquet_without_its_packages_names_the_extra(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"a Parquet table needs the extra 'data'"):
        TableDataset(sounds / "a.parquet")


def test_a_row_that_contradicts_another_is_left_out_with_its_captions(sounds: Path) -> None:
    rows = "path,caption,split\none.wav,A dog.,train\none.wav,Woof.,test\none.wav,A dog.,dev\none.wav,Bark.,training\n"
    faults: list[Fault] = []
    [clip] = TableDataset(write(sounds / "a.csv", rows), faults=faults)
    assert clip.captions == ("A dog.", "Bark.") and clip.split == "train"
    assert [(fault.line, fault.text) for fault in faults] == [
        (3, "split 'test', but 'train' in line 2"),
        (4, "split 'validation', but 'train' in line 2"),
    ]


def test_all_faults_of_a_csv_table_are_listed_with_their_lines(sounds: Path) -> None:
    table = write(
        sounds / "a.csv",
        'path,caption,split\none.wav,"A dog\nbarks.",train\n,Rain falls.,train\ntwo.wav,,train\n'
        "none.wav,Wind.,train\none.wav,Woof.,test\nthree.wav,A bell, rings.,train\n",
    )
    with pytest.raises(DataError) as caught:
        TableDataset(table)
    message = str(caught.value)
    assert message.startswith(f"{table}: ") and "\n" not in message
    assert message.split(": ", 1)[1].split("; ") == [
        "line 4: path is empty",
        "line 5: no caption, all are empty",
        "line 6: no file 'none.wav'",
        "line 7: split 'test', but 'train' in line 2",
        "line 8: 4 cells, but the header has 3",
        "put quotes around commas",
    ]


def test_all_faults_of_a_json_table_are_listed_with_their_lines(sounds: Path) -> None:
    rows: list[object] = [
        {"path": "one.wav", "captions": "A dog."},
        ["one.wav"],
        {"path": ["one.wav"], "caption": "A dog."},
        {"path": "one.wav"},
        {"path": "one.wav", "captions": ["A dog.", 1]},
        {"path": "one.wav", "caption": "A dog.", "split": 3},
        {"path": "x" * 300, "caption": "A dog."},
    ]
    table = write(sounds / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + '{"path": \n')
    with pytest.raises(DataError) as caught:
        TableDataset(table)
    message = str(caught.value)
    for line, fault in enumerate(
        (
            "no captions",
            "not an object",
            "path is empty",
            "no captions",
            "a caption is no text",
            "split must",
            "no file",
            "not JSON",
        ),
        start=1,
    ):
        assert f"line {line}: {fault}" in message


def test_very_many_faults_are_counted(sounds: Path) -> None:
    table = write(sounds / "a.csv", "path,caption\n" + "gone.wav,\n" * (FAULTS_SHOWN + 7))
    with pytest.raises(DataError, match="and 7 more faults"):
        TableDataset(table)


UNREADABLE = [
    ("a.csv", b"", "no rows"),
    ("a.csv", b"path,caption\n", "no rows"),
    ("a.csv", b"file,text\none.wav,A dog.\n", "line 1: the header needs a clip (path, file_name, fname, "),
    ("a.csv", b"path,caption\none.wav,\xff\n", "not UTF-8"),
    ("a.csv", b'path,caption\none.wav,"A dog\n', "not CSV from here on"),
    ("a.txt", b"one.wav A dog.", "not a table that is read here; give .csv or .tsv or .jsonl or .parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), UNREADABLE)
def test_what_is_no_table_is_refused_in_one_line(sounds: Path, name: str, content: bytes, message: str) -> None:
    (sounds / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        TableDataset(sounds / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        TableDataset(sounds / "absent.csv")
