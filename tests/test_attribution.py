"""The attribution list: complete, in order, and refused when a recording could not be given away."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from enclap.data.attribution import COLUMNS, FILE_NAME, LICENCE_URLS, write_attribution
from enclap.data.recordings import Recording, read_collection
from enclap.errors import DataError


def recording(path: str, **changes: str) -> Recording:
    fields = {
        "description": "",
        "source_repo": "someone/sounds",
        "source_path": "takes/a bark.wav; takes/b.wav",
        "author": "Ada",
        "licence": "CC BY 3.0",
        "source_url": "",
        "recording": "r0",
    } | changes
    return Recording(path=path, labels=("dog barking",), split="train", fold=None, seconds=1.0, **fields)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_recording_has_its_row_with_author_licence_and_link(tmp_path: Path) -> None:
    recordings = [
        recording("b.ogg", source_url="https://example.org/1", description='A dog, "Rex"'),
        recording("a.ogg", author="Ünal", licence="CC0 1.0"),
    ]
    written = write_attribution(recordings, tmp_path)
    assert written == tmp_path / FILE_NAME
    first, second = rows(written)
    assert tuple(first) == COLUMNS
    assert (first["path"], first["author"], first["title"]) == ("a.ogg", "Ünal", "a bark")
    assert first["link"] == "https://github.com/someone/sounds/blob/HEAD/takes/a%20bark.wav"
    assert first["licence_url"] == LICENCE_URLS["CC0 1.0"]
    assert (second["title"], second["link"]) == ('A dog, "Rex"', "https://example.org/1")


def test_order_of_input_does_not_matter_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    recordings = [recording(f"{name}.ogg") for name in "cab"]
    first = write_attribution(recordings, tmp_path).read_bytes()
    assert write_attribution(reversed(recordings), tmp_path).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_recording_that_cannot_be_given_away_is_refused_with_all_faults(tmp_path: Path) -> None:
    unusable = [recording("a.ogg", licence="CC BY-NC 4.0"), recording("b.ogg", author=" ")]
    with pytest.raises(DataError, match=r"b\.ogg: no author; a\.ogg: unknown licence 'CC BY-NC 4\.0'"):
        write_attribution(unusable, tmp_path)
    with pytest.raises(DataError, match="no recordings at all"):
        write_attribution([], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.shared
def test_the_whole_collection_can_be_attributed(shared: Path, tmp_path: Path) -> None:
    recordings = read_collection(shared / "data" / "sounds")
    written = rows(write_attribution(recordings, tmp_path))
    assert len(written) == len(recordings)
    assert all(row["author"] and row["licence"] and row["link"].startswith("http") for row in written)
