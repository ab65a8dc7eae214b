"""Data sets in every form that they come in, and the faults that are found before any work starts."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enclap.audio.read import read_audio
from enclap.data.datasets.archives import ArchiveDataset
from enclap.data.datasets.base import CaptionDataset, Fault, common_split, describe_faults, split_named
from enclap.data.datasets.open import open_checked, open_dataset
from enclap.errors import DataError
from enclap.types import Waveform
from sounds import tone, write_wav

RATE = 8_000


def sound(path: Path, number: int) -> Path:
    """A short file, another for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, (tone(0.1, RATE, 200.0 + 50.0 * number) * 32767).astype(np.int16), RATE)
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    for number, name in enumerate(("one", "two", "three")):
        sound(tmp_path / "sounds" / f"{name}.wav", number)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def facts(dataset: CaptionDataset) -> list[tuple[str, tuple[str, ...], str]]:
    clips = list(dataset)
    assert len(clips) == len(dataset) and len({clip.name for clip in clips}) == len(clips)
    for clip in clips:
        assert not isinstance(clip.source, Waveform) and read_audio(clip.source).seconds == pytest.approx(0.1)
    return [(clip.name, clip.captions, clip.split) for clip in clips]


def test_tsv_and_parquet_say_what_csv_says(sounds: Path) -> None:
    rows = [{"path": "one.wav", "caption_1": "A dog.", "caption_2": "Woof."}, {"path": "two.wav", "caption_1": "Rain."}]
    write(sounds / "a.csv", "path,caption_1,caption_2\none.wav,A dog.,Woof.\ntwo.wav,Rain.,\n")
    write(sounds / "a.tsv", "path\tcaption_1\tcaption_2\none.wav\tA dog.\tWoof.\ntwo.wav\tRain.\t\n")
    pq.write_table(pa.Table.from_pylist(rows), sounds / "a.parquet")
    found = [facts(open_dataset([str(sounds / f"a.{kind}")], sounds / "sounds")) for kind in ("csv", "tsv", "parquet")]
    assert found == [[("one.wav", ("A dog.", "Woof."), "train"), ("two.wav", ("Rain.",), "train")]] * 3


def test_the_official_tables_name_arrays_and_lead_to_the_audio_of_the_same_name(sounds: Path) -> None:
    table = write(sounds / "train.csv", "file_path,caption\ntrain/one.npy,A dog.\ntrain/two.npy,Rain.\n")
    found = facts(open_dataset([str(table)], sounds / "sounds"))
    assert found == [("train/one.npy", ("A dog.",), "train"), ("train/two.npy", ("Rain.",), "train")]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("clotho_captions_development", "train"),
        ("clotho_captions_validation", "validation"),
        ("clotho_captions_evaluation", "test"),
        ("val", "validation"),
        ("audiocaps-test", "test"),
        ("contest", "train"),
    ],
)
def test_the_name_of_a_table_says_its_split(sounds: Path, name: str, split: str) -> None:
    header = "file_name," + ",".join(f"caption_{number}" for number in range(1, 6))
    table = write(sounds / f"{name}.csv", f"{header}\none.wav,A.,B.,C.,D.,E.\n")
    assert facts(open_dataset([str(table)], sounds / "sounds")) == [("one.wav", ("A.", "B.", "C.", "D.", "E."), split)]
    assert split_named(name) == common_split(split) == split and common_split(" Eval ") == "test"


def test_audiocaps_names_clips_by_video_and_start(sounds: Path) -> None:
    folder = sounds / "audiocaps"
    for number, name in enumerate(("abc_30", "Yd-f", "-xyz", "91139")):
        sound(folder / "deep" / f"{name}.wav", number)
    table = write(
        sounds / "val.csv",
        "audiocap_id,youtube_id,start_time,caption\n1,abc,30,A dog.\n2,abc,30,Woof.\n3,d-f,0,Rain.\n4,-xyz,10,Wind.\n"
        "91139,gone,20,A bell.\n92,abc,30,A dog.\n",
    )
    assert facts(open_dataset([str(table)], folder)) == [  # people may write the same of a clip
        ("abc_30", ("A dog.", "Woof."), "validation"),
        ("d-f_0", ("Rain.",), "validation"),
        ("-xyz_10", ("Wind.",), "validation"),
        ("gone_20", ("A bell.",), "validation"),
    ]


def test_an_audio_folder_has_a_table_for_each_split(sounds: Path) -> None:
    for number, split in enumerate(("train", "test")):
        sound(sounds / "set" / split / f"{split}.wav", number)
        write(sounds / "set" / split / "metadata.csv", f"file_name,caption\n{split}.wav,A dog.\n")
    found = facts(open_dataset([str(sounds / "set")]))
    assert found == [
        ("test/metadata/test.wav", ("A dog.",), "test"),
        ("train/metadata/train.wav", ("A dog.",), "train"),
    ]
    write(sounds / "sounds" / "metadata.jsonl", '{"file_name": "one.wav", "caption": "A dog."}\n')
    assert facts(open_dataset([str(sounds / "sounds")])) == [("one.wav", ("A dog.",), "train")]


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_archives_hold_sounds_beside_their_captions(sounds: Path) -> None:
    audio = [path.read_bytes() for path in sorted((sounds / "sounds").iterdir())]
    table = json.dumps({"references": ["Rain."], "split": "val"}).encode()
    write_archive(
        sounds / "b.tar", {"x/1.wav": audio[0], "x/1.txt": b"A dog.\nWoof.\n", "2.json": table, "2.wav": audio[1]}
    )
    own = json.dumps({"split": "fold 1"}).encode()
    members = {"3.txt": b"Wind.", "3.wav": audio[2], "3.npy": b"x", "4.wav": audio[2], "4.txt": b"Air.", "4.json": own}
    write_archive(sounds / "test-01.tar", members)
    wanted = [
        ("b/x/1", ("A dog.", "Woof."), "train"),
        ("b/2", ("Rain.",), "validation"),
        ("test-01/3", ("Wind.",), "test"),
        ("test-01/4", ("Air.",), "fold 1"),
    ]
    assert facts(open_dataset([str(sounds / name) for name in ("b.tar", "test-01.tar")])) == wanted
    (sounds / "tars").mkdir()
    (sounds / "b.tar").rename(sounds / "tars" / "b.tar")
    assert facts(open_dataset([str(sounds / "tars")])) == wanted[:2]


def test_faults_of_an_archive_are_listed_at_once(sounds: Path) -> None:
    audio = (sounds / "sounds" / "one.wav").read_bytes()
    members = {"1.wav": audio, "2.txt": b"A dog.", "3.wav": audio, "3.json": b"{", "4.wav": audio, "4.txt": b" \n"}
    members |= {"5.json": b"[]", "6.json": b'{"caption": "A dog.", "split": 3}'}
    with pytest.raises(DataError) as caught:
        ArchiveDataset([write_archive(sounds / "a.tar", members)])
    others = ("line 7: 5: its .json is not an object", "line 8: 6: split must be a word")
    for fault in (
        "line 1: 1: no caption",
        "line 2: 2: no audio",
        "line 3: 3: its text",
        "line 5: 4: no caption",
        *others,
    ):
        assert fault in str(caught.value)
    with pytest.raises(DataError, match="not an uncompressed tar"):
        ArchiveDataset([write(sounds / "b.tar", "no archive at all, of a kind")])


def test_a_hugging_face_data_set_is_taken_undecoded(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(path) for path in sorted((sounds / "sounds").iterdir())]
    table = datasets.Dataset.from_dict({"sound": paths, "caption": ["A dog.", "Rain.", "Wind."]})
    table = table.cast_column("sound", datasets.Audio())

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the library's decoder was asked")

    monkeypatch.setattr(datasets.Audio, "decode_example", refuse)
    splits = datasets.DatasetDict({"train": table.select([0, 1]), "val": table.select([2])})
    wanted = [("train/0", ("A dog.",), "train"), ("train/1", ("Rain.",), "train"), ("val/0", ("Wind.",), "validation")]
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    assert facts(open_dataset(["someone/sounds"])) == wanted
    splits.save_to_disk(str(sounds / "saved"))  # which puts the files' bytes into the table
    for path in paths:
        Path(path).unlink()
    assert facts(open_dataset([str(sounds / "saved")])) == wanted


def test_what_is_no_hugging_face_data_set_of_sounds_is_told_in_one_line(sounds: Path) -> None:
    datasets.Dataset.from_dict({"caption": ["A dog."]}).save_to_disk(str(sounds / "texts"))
    with pytest.raises(DataError, match="0 columns of type Audio"):
        open_dataset([str(sounds / "texts")])
    table = datasets.Dataset.from_dict({"sound": [str(sounds / "sounds" / "one.wav")] * 2, "caption": ["A dog.", " "]})
    table.cast_column("sound", datasets.Audio()).save_to_disk(str(sounds / "empty"))
    with pytest.raises(DataError, match=r"line 2: no caption"):
        open_dataset([str(sounds / "empty")])


def test_all_faults_of_all_kinds_are_listed_at_once_with_their_lines(sounds: Path) -> None:
    write(sounds / "sounds" / "broken.wav", "this is no sound")
    (sounds / "sounds" / "copy.wav").write_bytes((sounds / "sounds" / "one.wav").read_bytes())
    (sounds / "sounds" / "leak.wav").write_bytes((sounds / "sounds" / "two.wav").read_bytes())
    table = write(
        sounds / "train.csv",
        "path,caption,split\none.wav,A dog.,\ntwo.wav,Rain.,\nthree.wav,,\ngone.wav,Wind.,\nbroken.wav,Wind.,\n"
        "copy.wav,A dog barks.,\nleak.wav,Rain falls.,test\none.wav,A dog.,\n",
    )
    with pytest.raises(DataError) as caught:
        open_checked([str(table)], sounds / "sounds")
    message = str(caught.value)
    for fault in (
        "line 4: no caption",
        "line 5: no file 'gone.wav'",
        "line 6: ",
        "line 7: the sound of line 2 again (one.wav)",
        "line 8: the sound of line 3 (two.wav), which is in split 'train', this in 'test'",
        "line 9: says what line 2 says",
    ):
        assert fault in message, message
    checked, faults = open_checked([str(table)], sounds / "sounds", skip_faulty=True)
    assert [clip.name for clip in checked] == ["one.wav", "two.wav"] and len(faults) == 6
    assert set(checked.hashes) == {"one.wav", "two.wav"}


def test_a_leak_between_two_tables_names_both(sounds: Path) -> None:
    tables = [write(sounds / f"{name}.csv", "path,caption\none.wav,A dog.\n") for name in ("train", "test")]
    with pytest.raises(DataError, match=r"test.csv: line 2: the sound of .*train.csv line 2 \(train/one.wav\)"):
        open_checked([str(path) for path in tables], sounds / "sounds")


def test_what_names_no_data_set_is_told(sounds: Path) -> None:
    with pytest.raises(DataError, match="no table"):
        open_dataset([str(sounds / "sounds")])
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset([str(sounds / "absent.csv")])
    with pytest.raises(DataError, match="not a table"):
        open_dataset([str(sounds / "sounds" / "one.wav")])


def test_an_ambiguous_name_is_a_fault(sounds: Path) -> None:
    for folder in ("a", "b"):
        sound(sounds / "many" / folder / "same.wav", 1)
    table = write(sounds / "t.csv", "file_path,caption\nsame.npy,A dog.\n")
    with pytest.raises(DataError, match=r"'same\.npy' is any of a/same\.wav, b/same\.wav"):
        open_dataset([str(table)], sounds / "many")


def test_faults_are_told_in_order() -> None:
    faults = [Fault("b", 1, "x"), Fault("a", 3, "y"), Fault("a", 2, "z")]
    assert describe_faults(faults) == "a: line 2: z; line 3: y; b: line 1: x"
