"""Labels that the teachers contradict: the list, its faults, and that decisions reach every stage that trains."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from enclap.data.recordings import Recording, read_collection
from enclap.data.splits import EXTERNAL, SEEN, TEST, UNSEEN, VALIDATION, split_of
from enclap.errors import DataError
from enclap.training.mini import find_contradictions
from enclap.training.mini.context import MiniRun
from enclap.training.mini.contradictions import (
    TABLE,
    Contradiction,
    mend_labels,
    read_contradictions,
    write_contradictions,
)
from enclap.training.mini.find_contradictions import as_text, best_names, class_names, is_contradicted
from enclap.training.mini.opinions import class_labels
from tiny_mini import tiny_run

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "mini"
RAIN = Recording("a.wav", ("rain",), "", "", "", "", "CC0", "train", None, 1.0, "", "a")


def opinion(**classes: float) -> np.ndarray:
    """Probabilities [1, 527] of AudioSet's classes by name, "_" for a space; all others are zero."""
    values = np.zeros((1, len(class_names())), np.float16)
    for name, value in classes.items():
        values[0, class_names().index(name.replace("_", " "))] = value
    return values


def test_only_a_certain_teacher_that_suspects_nothing_alike_contradicts() -> None:
    assert is_contradicted(RAIN, opinion(Helicopter=0.9))
    assert not is_contradicted(RAIN, opinion(Helicopter=0.4))
    assert not is_contradicted(RAIN, opinion(Helicopter=0.9, Rain=0.1))
    assert not is_contradicted(RAIN, opinion(Helicopter=0.9, Raindrop=0.1))
    assert not is_contradicted(RAIN, opinion(Music=0.9)) and is_contradicted(RAIN, opinion(Music=0.9, Dog=0.6))
    assert not is_contradicted(replace(RAIN, labels=("rain", "helicopter")), opinion(Helicopter=0.9))
    assert len(class_names()) == len(class_labels())


def test_the_best_names_are_listed_once_each() -> None:
    names = ("rain", "wind", "rain", "dog", "cat")
    assert best_names(names, np.float32([0.5, 0.9, 0.7, 0.1, 0.2])) == pytest.approx(
        {"wind": 0.9, "rain": 0.7, "cat": 0.2}
    )
    assert as_text({"wind": 0.9, "rain": 0.7}) == "wind 0.90; rain 0.70"


def decided(run: MiniRun) -> tuple[Recording, Recording, MiniRun]:
    """A recording that is dropped, one that is mended, and a fresh run whose recipes say so."""
    dropped, mended = (run.collection[numbers[0]] for numbers in (run.seen, run.unseen))
    rows = [
        Contradiction(dropped.path, dropped.label, "Dog 0.9", decision="dropped", reason="noise"),
        Contradiction(mended.path, mended.label, "Dog 0.9", decision="mended", mended="dog growling", reason="a dog"),
    ]
    write_contradictions(run.recipes, rows)
    return dropped, mended, MiniRun(run.recordings, run.output, run.recipes, run.teachers)


def test_dropped_recordings_enter_no_stage_and_mended_ones_have_the_new_label(tmp_path: Path) -> None:
    before = tiny_run(tmp_path, steps=1)
    dropped, mended, run = decided(before)
    numbers = [*run.seen, *run.unseen, *run.held_out]
    used = [run.corpus.recordings[number] for number in numbers]
    assert dropped.path not in {item.path for item in (*used, *run.used)}
    assert {item.label for item in used if item.path == mended.path} == {"dog growling"}
    assert len(run.used) == len(before.used) - 1 and len(run.corpus) == len(before.corpus)
    assert [item.path for item in run.corpus.recordings] == [item.path for item in run.collection]
    for rate in (8_000, 16_000):
        assert {item.label for item in run.corpus_at(rate).recordings if item.path == mended.path} == {"dog growling"}
    others = [item for item in run.corpus.recordings if item.path != mended.path]
    assert others == [item for item in before.corpus.recordings if item.path != mended.path]


def test_labels_of_recordings_that_validate_or_test_cannot_be_changed() -> None:
    for fold, split in ((4, "train"), (5, "test"), (None, "train")):
        item = replace(RAIN, fold=fold, split=split, recording="x" if fold is None else "a")
        row = Contradiction("a.wav", "rain", "Dog 0.9", decision="dropped")
        if split_of(item) in (SEEN, UNSEEN):
            assert mend_labels([item], {"a.wav": row}) == (item,)
            with pytest.raises(DataError, match="other labels in the manifest"):
                mend_labels([item], {"a.wav": replace(row, labels="wind")})
        else:
            with pytest.raises(DataError, match="validates or tests"):
                mend_labels([item], {"a.wav": row})
    assert mend_labels([RAIN], {}) == (RAIN,)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"decision": "burnt"}, "no decision"),
        ({"decision": "mended"}, "no label of the lexicon"),
        ({"decision": "mended", "mended": "an unheard-of thing"}, "no label of the lexicon"),
        ({"decision": "kept", "mended": "rain"}, "no label of the lexicon"),
    ],
)
def test_a_faulty_row_is_named_by_its_line(tmp_path: Path, row: dict[str, str], message: str) -> None:
    good = Contradiction("a.wav", "rain", "Dog 0.9")
    write_contradictions(tmp_path, [good, replace(good, path="b.wav", **row)])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"line 3: .*{message}"):
        read_contradictions(tmp_path)


def test_a_list_with_other_columns_or_a_path_twice_is_refused(tmp_path: Path) -> None:
    assert read_contradictions(tmp_path) == {}
    (tmp_path / TABLE).write_text("path,labels\na.wav,rain\n", encoding="utf-8")
    with pytest.raises(DataError, match="make the list anew"):
        read_contradictions(tmp_path)
    write_contradictions(tmp_path, [Contradiction("a.wav", "rain", "Dog 0.9")] * 2)
    with pytest.raises(DataError, match="listed twice"):
        read_contradictions(tmp_path)


def test_the_command_keeps_decisions_and_asks_all_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped, mended, run = decided(tiny_run(tmp_path, steps=1))
    opinions = [opinion(Theremin=0.9) for _ in run.collection]
    opinions[run.unseen[1]] = opinion(Theremin=0.1)
    monkeypatch.setattr(find_contradictions, "read_opinions", lambda run: opinions)
    monkeypatch.setattr(find_contradictions, "YamNetOpinion", lambda teachers: lambda path: {f"of {path.stem}": 0.5})
    monkeypatch.setattr(find_contradictions, "AiSfxOpinion", lambda *arguments: lambda path: {"near": 0.9})
    app = Typer()
    app.command()(find_contradictions.main)
    options = [f"--recordings={run.recordings}", f"--output={run.output}", f"--recipes={run.recipes}"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    rows = read_contradictions(run.recipes)
    assert rows[dropped.path].decision == "dropped" and rows[mended.path].mended == "dog growling"
    assert rows[mended.path].yamnet == f"of {Path(mended.path).stem} 0.50" and rows[mended.path].aisfx == "near 0.90"
    training = [item for item in run.collection if split_of(item) in (SEEN, UNSEEN)]
    assert len(rows) == len(training) - 1 and f"{len(rows)} recordings listed, {len(rows) - 2} without" in done.output
    (run.recipes / TABLE).write_text("path\n1\n", encoding="utf-8")
    broken = CliRunner().invoke(app, options)
    assert broken.exit_code != 0 and "make the list anew" in broken.output


def test_every_row_of_the_committed_list_is_decided_with_a_reason() -> None:
    rows = read_contradictions(RECIPES)
    assert rows and all(
        row.decision and row.reason and row.mn04_as and row.yamnet and row.aisfx for row in rows.values()
    )
    with (RECIPES / "recordings.csv").open(encoding="utf-8", newline="") as stream:
        known = {row["path"] for row in csv.DictReader(stream)}
    assert set(rows) <= known


@pytest.mark.shared
def test_the_committed_list_fits_the_collection(shared: Path) -> None:
    collection = read_collection(shared / "data" / "sounds")
    mended = mend_labels(collection, read_contradictions(RECIPES))
    kept = {split: [item for item in collection if split_of(item) == split] for split in (VALIDATION, TEST, EXTERNAL)}
    assert {split: [item for item in mended if split_of(item) == split] for split in kept} == kept
