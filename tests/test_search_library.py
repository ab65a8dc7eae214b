"""Libraries: what is heard again, what vanishes, and what a careless or killed run leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enclap.captioner import Captioner
from enclap.errors import AudioNotFound, DataError, EnvironmentFault, ModelError, UsageError
from enclap.search import store
from enclap.search.indexing import update_library
from enclap.search.labels import LabelSet
from enclap.search.library import FACTS, Library, written_library
from enclap.search.query import FEWEST, search_words
from enclap.search.store import ROW_NAMES, RowStore, table_of
from enclap.search.words import name_words
from fakes import EchoEngine
from libraries import ToneEngine, all_rows, direction, indexed, tone_captioner, write_sound, write_sounds
from sounds import write_audio

SOUNDS = {"a.wav": "dog", "b.wav": "rain", "deep/c.wav": "bell"}
UPDATES = 500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sounds(tmp_path / "sounds", SOUNDS)


@pytest.fixture
def captioner(tmp_path: Path) -> Captioner:
    return tone_captioner(tmp_path / "model")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "library"


def heard(captioner: Captioner) -> int:
    """Windows heard since the last call."""
    assert isinstance(captioner.engine, ToneEngine)
    count, captioner.engine.heard = captioner.engine.heard, 0
    return count


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_library_holds_a_row_for_each_window(path: Path, folder: Path, captioner: Captioner) -> None:
    write_sound(folder / "long.wav", "dog", "rain", "bell", seconds=10.0)
    library, done = indexed(path, folder, captioner)
    assert (done.found, done.heard, done.windows) == (4, 4, 6)
    rows = [row for row in all_rows(library) if row[0] == "long.wav"]
    assert [row[1:4] for row in rows] == [
        (0.0, 10.0, "A dog is heard."),
        (10.0, 20.0, "A rain is heard."),
        (20.0, 30.0, "A bell is heard."),
    ]
    assert np.allclose(rows[0][6], direction("dog"))


def test_only_what_changed_is_heard_again(path: Path, folder: Path, captioner: Captioner) -> None:
    indexed(path, folder, captioner)
    assert heard(captioner) == 3
    _, done = indexed(path, folder, captioner)
    assert (heard(captioner), done.unchanged) == (0, 3)
    os.utime(folder / "a.wav", (1, 1))
    (folder / "b.wav").rename(folder / "moved.wav")
    (folder / "deep/c.wav").unlink()
    write_sound(folder / "new.wav", "wind")
    library, done = indexed(path, folder, captioner)
    assert heard(captioner) == 1
    assert (done.heard, done.copied, done.removed, done.unchanged) == (1, 2, 2, 0)
    assert [(row[0], row[3]) for row in all_rows(library)] == [
        ("a.wav", "A dog is heard."),
        ("moved.wav", "A rain is heard."),
        ("new.wav", "A wind is heard."),
    ]
    assert indexed(path, folder, captioner)[1].unchanged == 3


def test_files_that_change_places_keep_their_own_rows(path: Path, folder: Path, captioner: Captioner) -> None:
    indexed(path, folder, captioner)
    (folder / "a.wav").rename(folder / "aside")
    (folder / "b.wav").rename(folder / "a.wav")
    (folder / "aside").rename(folder / "b.wav")
    os.utime(folder / "a.wav", (5, 5)), os.utime(folder / "b.wav", (6, 6))
    library, _ = indexed(path, folder, captioner)
    assert [row[3] for row in all_rows(library)][:2] == ["A rain is heard.", "A dog is heard."]


def test_updates_give_the_rows_of_a_fresh_library(tmp_path: Path, path: Path, captioner: Captioner) -> None:
    grown = grow(tmp_path, path, captioner, updates=12)
    fresh, _ = indexed(tmp_path / "fresh", tmp_path / "grown", captioner)
    assert all_rows(grown) == all_rows(fresh)
    assert_all_found(grown)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_500_updates_leave_every_row_findable_and_the_size_small(
    tmp_path: Path, path: Path, captioner: Captioner
) -> None:
    grown = grow(tmp_path, path, captioner, updates=UPDATES)
    fresh, _ = indexed(tmp_path / "fresh", tmp_path / "grown", captioner)
    assert all_rows(grown) == all_rows(fresh)
    assert_all_found(grown)
    assert size(path) <= 1.5 * size(tmp_path / "fresh")


def grow(tmp_path: Path, path: Path, captioner: Captioner, updates: int) -> Library:
    """A library after so many runs, each with a new, a changed and, now and then, a removed file."""
    sounds, names = tmp_path / "grown", ("dog", "rain", "bell", "engine", "wind")
    labels = LabelSet(captioner.engine)  # once, which each run of `enclap index` does for itself
    for number in range(updates):
        letters = "".join("abcdefghij"[int(digit)] for digit in str(number))
        write_sound(sounds / f"kept{letters}.wav", names[number % 5], seconds=0.2, hertz=number / 8)
        write_sound(sounds / "changing.wav", names[number % 5], seconds=0.2, hertz=number / 8 + 0.05)
        if number % 5 == 4:
            sorted(sounds.glob("kept*"))[number % 3].unlink()
        if not number:
            library, _ = indexed(path, sounds, captioner)
            continue
        with written_library(path, library.facts, reindex=False) as written:
            update_library(written, captioner, labels)
    return Library.open(path)


def assert_all_found(library: Library) -> None:
    """Every row comes by the words of its file's name, and as the nearest to its own embedding."""
    rows = library.rows.columns(["path", "start", "embedding", "names"]).to_pylist()
    for row in rows:
        _, _, found = library.rows.rankings(direction("dog"), row["names"], 5)
        assert row["path"] in {item.path for item in found}, row["names"]
        nearest = library.rows.nearest(np.array(row["embedding"], np.float32), len(rows))
        assert row["path"] in {item.path for item in nearest}


@pytest.mark.parametrize("width", [64, 60])
def test_the_index_of_the_vectors_finds_what_comparing_all_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("enclap.search.store.INDEXED_ROWS", 1_000)
    generator = np.random.default_rng(0)
    kinds = generator.normal(size=(24, width))
    vectors = (kinds[np.arange(2_400) % 24] + 0.8 * generator.normal(size=(2_400, width))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def rows(numbers: range) -> list[dict[str, Any]]:
        facts = {"start": 0.0, "end": 1.0, "caption": "x", "score": 0.5, "silence": False, "tags": [], "names": "x"}
        state = {"level": 0.0, "spread": 1.0, "fingerprint": b"", "size": 0, "modified": 0, "sha256": "", "duration": 1}
        return [{"path": str(n), "embedding": vectors[n].tolist(), **facts, **state} for n in numbers]

    store = RowStore.create(tmp_path, "rows-1", width, "here")
    for first, last in ((0, 1_500), (1_500, 2_000), (1_000, 1_500), (2_000, 2_400)):  # some are replaced
        part = range(first, last)
        store.replace(table_of(rows(part), width), [str(number) for number in part])
        if last != 2_400:  # the last ones are found before the index knows them
            store.tidy()
    assert store.count() == 2_400
    found = 0
    for number, vector in enumerate(vectors[::40]):
        nearest = store.nearest(vector, FEWEST)
        assert [row.similarity for row in nearest] == sorted((row.similarity for row in nearest), reverse=True)
        assert nearest[0].path == str(40 * number)
        found += len({row.path for row in nearest} & {str(index) for index in np.argsort(-(vectors @ vector))[:20]})
    assert found >= 0.95 * 20 * len(vectors[::40])


def test_a_run_that_fails_anywhere_leaves_a_library_that_the_next_run_completes(
    path: Path, folder: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh, _ = indexed(tmp_path / "fresh", folder, captioner)
    monkeypatch.setattr("enclap.search.indexing.ROWS_TOGETHER", 1)
    steps = [RowStore.replace, RowStore.tidy, RowStore.create]
    for step, anew in ((1, False), (2, False), (3, False), (2, True), (4, True)):
        count = 0

        def stop(real: Any, *arguments: Any, last: int = step) -> Any:
            nonlocal count
            count += 1
            if count == last:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(RowStore, "replace", lambda self, *rest: stop(steps[0], self, *rest))
            patch.setattr(RowStore, "tidy", lambda self: stop(steps[1], self))
            with pytest.raises(KeyboardInterrupt):
                indexed(path, folder, captioner, reindex=anew)
        Library.open(path).rows.columns(["path"])
        search_words(Library.open(path), captioner.engine, "a dog", 5)
    library, _ = indexed(path, folder, captioner)
    assert all_rows(library) == all_rows(fresh)


def test_two_writers_are_refused_and_readers_go_on(path: Path, folder: Path, captioner: Captioner) -> None:
    library, _ = indexed(path, folder, captioner)
    with written_library(path, library.facts, reindex=False) as held:
        with pytest.raises(EnvironmentFault, match="another enclap is writing there"):
            indexed(path, folder, captioner)
        hits = search_words(Library.open(path), captioner.engine, "a dog", 5)
        assert hits[0].path == "a.wav"
        reader = Library.open(path)
        assert reader.rows.count() == 3
        held.rows.replace(held.rows.columns(["path"]).schema.empty_table(), ["a.wav"])
        held.rows.tidy()
        assert [item.path for item in reader.rows.nearest(direction("dog"), 5)].count("a.wav") == 0
        assert reader.rows.count() == 2


def test_what_is_written_between_the_steps_of_a_query_does_not_mix_its_rows(
    path: Path, folder: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, _ = indexed(path, folder, captioner)
    row = next(row for row in library.rows.columns(ROW_NAMES).to_pylist() if row["path"] == "a.wav")
    steps, matching = [], store._matching

    def written_meanwhile(*arguments: Any) -> Any:
        found = matching(*arguments)
        steps.append(len(found))
        if len(steps) == 1:
            with written_library(path, library.facts, reindex=False) as held:
                held.rows.replace(
                    table_of([row | {"caption": "A dog, later.", "names": "dog"}], len(row["embedding"])), ["a.wav"]
                )
                held.rows.tidy()
        return found

    monkeypatch.setattr(store, "_matching", written_meanwhile)
    found = library.rows.rankings(direction("dog"), "dog", 5)
    assert len(steps) == 4, "all is asked again of the new version"
    assert [ranking[0].caption for ranking in found] == 3 * ["A dog, later."]
    assert library.rows.rankings(direction("dog"), "dog", 5) == found, "and then the newest again"


def test_a_library_that_is_made_anew_serves_the_old_rows_until_it_is_done(
    path: Path, folder: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, _ = indexed(path, folder, captioner)
    before, seen = all_rows(library), []
    monkeypatch.setattr("enclap.search.indexing.ROWS_TOGETHER", 1)
    other, done = indexed(
        path, folder, captioner, reindex=True, on_progress=lambda _: seen.append(len(all_rows(Library.open(path))))
    )
    assert set(seen) == {3} and done.heard == 3 and heard(captioner) == 6
    assert all_rows(other) == before
    assert len(list(path.glob("*.lance"))) == 1


def test_a_library_of_another_model_folder_or_format_is_refused(
    path: Path, folder: Path, captioner: Captioner, tmp_path: Path
) -> None:
    indexed(path, folder, captioner)
    with pytest.raises(UsageError, match=r"made with the model tones.*--reindex"):
        indexed(path, folder, tone_captioner(tmp_path / "other", seed=1))
    with pytest.raises(UsageError, match=r"not of this model.*--reindex"):
        Library.open(path).require_space(tmp_path / "other")
    with pytest.raises(UsageError, match="holds the sounds of"):
        indexed(path, write_sounds(tmp_path / "elsewhere", {"x.wav": "dog"}), captioner)
    table = json.loads((path / FACTS).read_text())
    (path / FACTS).write_text(json.dumps(table | {"schema": 0}))
    with pytest.raises(DataError, match=r"another version.*--reindex"):
        Library.open(path)
    (path / FACTS).write_text("{")
    with pytest.raises(DataError, match=r"is damaged.*--reindex"):
        indexed(path, folder, captioner)
    library, done = indexed(path, folder, captioner, reindex=True)
    assert done.heard == 3 and library.rows.count() == 3


def test_a_folder_that_was_moved_is_not_heard_again(
    path: Path, folder: Path, captioner: Captioner, tmp_path: Path
) -> None:
    indexed(path, folder, captioner)
    moved = folder.rename(tmp_path / "moved")
    library, done = indexed(path, moved, captioner)
    assert done.unchanged == 3 and library.folder == moved


def test_a_damaged_store_is_told_in_a_line_and_made_anew(path: Path, folder: Path, captioner: Captioner) -> None:
    indexed(path, folder, captioner)
    for file in (path / "rows-1.lance").rglob("*.lance"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"the library is damaged.*--reindex") as error:
        Library.open(path).rows.columns(["path", "embedding"])
    assert "\n" not in str(error.value)
    assert indexed(path, folder, captioner, reindex=True)[0].rows.count() == 3


def test_an_emptied_folder_does_not_empty_the_library(path: Path, folder: Path, captioner: Captioner) -> None:
    library, _ = indexed(path, folder, captioner)
    for name in SOUNDS:
        (folder / name).unlink()
    with pytest.raises(AudioNotFound, match="no sound files"):
        indexed(path, folder, captioner)
    assert library.rows.count() == 3


def test_files_that_cannot_be_heard_are_listed_and_the_others_done(
    path: Path, folder: Path, captioner: Captioner
) -> None:
    indexed(path, folder, captioner)
    (folder / "a.wav").write_bytes(b"RIFF nothing")
    (folder / "twin.wav").write_bytes(b"RIFF nothing")
    (folder / os.fsdecode(b"\xff.wav")).write_bytes((folder / "b.wav").read_bytes())
    library, done = indexed(path, folder, captioner)
    assert sorted(str(fault)[-45:] for fault in done.faults if "UTF-8" in str(fault))
    assert len(done.faults) == 3 and done.unchanged == 2
    assert {row[0] for row in all_rows(library)} == {"b.wav", "deep/c.wav"}


def test_what_is_no_library_is_refused(path: Path, folder: Path, captioner: Captioner, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no library; make one"):
        Library.open(path)
    with pytest.raises(UsageError, match="holds other files"):
        indexed(folder, folder, captioner)
    with pytest.raises(UsageError, match="does not exist; make it first"):
        indexed(tmp_path / "none" / "library", folder, captioner)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        indexed(tmp_path / "file", folder, captioner)
    assert not path.exists()


def test_a_model_without_text_tower_says_where_there_is_one(path: Path, folder: Path, tmp_path: Path) -> None:
    tone_captioner(tmp_path / "echo")
    with pytest.raises(ModelError, match="--text-tower"):
        indexed(path, folder, Captioner(EchoEngine(), "echo", None, tmp_path / "echo"))
    assert not path.exists()


def test_silence_is_kept_but_never_found(path: Path, folder: Path, captioner: Captioner) -> None:
    write_audio(folder / "quiet.wav", np.zeros((8_000, 1), np.float32), 16_000)
    library, _ = indexed(path, folder, captioner)
    assert library.rows.count() == 4
    hits = search_words(library, captioner.engine, "quiet silence", 20)
    assert "quiet.wav" not in {hit.path for hit in hits}


def test_the_words_in_a_name_are_told_apart() -> None:
    assert name_words("field-trips/DogBark_02 (loud).flac") == "field trips Dog Bark loud"
    assert name_words("v1.Dogs/barking") == "v Dogs barking"
