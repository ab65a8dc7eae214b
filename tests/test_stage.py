"""Stages: order follows from needs, what is needed is checked, and failures stop only what needs them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from enclap.errors import EnclapError, UsageError
from enclap.training.mini.context import MiniRun
from enclap.training.mini.stages import STAGES
from enclap.training.stage import Markers, in_order, run_side_by_side, run_stage


@dataclass
class Note:
    """A stage that notes that it ran."""

    name: str
    needs: tuple[str, ...] = ()
    fails: bool = False
    ran: list[str] = field(default_factory=list)

    def run(self, context: list[str], /) -> None:
        if self.fails:
            raise EnclapError(f"{self.name} broke")
        context.append(self.name)


CHAIN = (Note("model", ("codec", "text")), Note("text", ("tower",)), Note("codec"), Note("tower"), Note("extra"))


@pytest.fixture
def markers(tmp_path: Path) -> Markers:
    return Markers(tmp_path / "done")


def test_every_stage_comes_after_those_that_it_needs() -> None:
    names = [stage.name for stage in in_order(CHAIN)]
    assert sorted(names) == sorted(stage.name for stage in CHAIN)
    for stage in CHAIN:
        assert all(names.index(need) < names.index(stage.name) for need in stage.needs)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Note("a", ("b",)), Note("b", ("c",)), Note("c", ("a",))], "need each other in a circle: .*a.*b|b.*a"),
        ([Note("a", ("a",))], "circle: a <- a"),
        (
            [Note("a", ("nothing",)), Note("b", ("void",))],
            "no such stage: a needs nothing; b needs void; there are a, b",
        ),
        ([Note("a"), Note("a")], "two stages have one name"),
    ],
)
def test_needs_that_cannot_be_met_are_named_before_anything_runs(
    stages: list[Note], message: str, markers: Markers
) -> None:
    with pytest.raises(UsageError, match=message):
        in_order(stages)
    with pytest.raises(UsageError, match=message):
        run_side_by_side(stages, lambda name: [sys.executable, "-c", ""], markers, 2)


def test_a_stage_that_is_started_too_early_does_not_run(markers: Markers) -> None:
    ran: list[str] = []
    with pytest.raises(UsageError, match="model: needs codec, text, not done yet"):
        run_stage(CHAIN, "model", ran, markers)
    with pytest.raises(UsageError, match="no such stage: modle; there are"):
        run_stage(CHAIN, "modle", ran, markers)
    for name in ("codec", "tower", "text", "model"):
        run_stage(CHAIN, name, ran, markers)
    run_stage(CHAIN, "model", ran, markers)  # done already
    assert ran == ["codec", "tower", "text", "model"]


def test_a_stage_that_fails_is_not_done(markers: Markers) -> None:
    stages = [Note("a", fails=True)]
    with pytest.raises(EnclapError, match="a broke"):
        run_stage(stages, "a", [], markers)
    assert not markers.is_done("a")


def test_a_stage_whose_result_others_were_made_from_is_not_run_again(markers: Markers, tmp_path: Path) -> None:
    ran: list[str] = []
    for name in ("codec", "tower", "text", "model"):
        run_stage(CHAIN, name, ran, markers)
    (tmp_path / "done" / "tower").unlink()
    with pytest.raises(UsageError, match="tower: its last result is in model, text already"):
        run_stage(CHAIN, "tower", ran, markers)
    for name in ("text", "model"):
        (tmp_path / "done" / name).unlink()
    run_stage(CHAIN, "tower", ran, markers)
    assert ran == ["codec", "tower", "text", "model", "tower"]


PROGRAM = """
import sys, time
from pathlib import Path
name, folder, fails, seconds = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), float(sys.argv[4])
with (folder / "log").open("a") as log:
    log.write(f"begin {name} {time.time()}\\n"); log.flush()
    time.sleep(seconds)
    if name in fails:
        sys.exit(3)
    log.write(f"end {name} {time.time()}\\n")
(folder / "done").mkdir(exist_ok=True)
(folder / "done" / name).touch()
"""


def run_processes(
    folder: Path, stages: tuple[Note, ...], fails: str = "", at_once: int = 2, seconds: float = 0.0
) -> None:
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(program)]
    markers = Markers(folder / "done")
    run_side_by_side(stages, lambda name: [*command, name, str(folder), fails, str(seconds)], markers, at_once)


def log(folder: Path) -> list[tuple[str, str, float]]:
    lines = (folder / "log").read_text(encoding="utf-8").splitlines()
    return [(kind, name, float(when)) for kind, name, when in map(str.split, lines)]


def test_stages_that_do_not_need_each_other_run_side_by_side(tmp_path: Path) -> None:
    run_processes(tmp_path, CHAIN, seconds=0.5)
    times = {(kind, name): when for kind, name, when in log(tmp_path)}
    assert len(times) == 2 * len(CHAIN)
    for stage in CHAIN:
        assert all(times["end", need] <= times["begin", stage.name] for need in stage.needs)
    spans = [(times["begin", stage.name], times["end", stage.name]) for stage in CHAIN]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_once) == 2


def test_a_failed_stage_stops_what_needs_it_and_nothing_else_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(EnclapError, match=r"^tower failed, see above; text, model did not run; the same command"):
        run_processes(tmp_path, CHAIN, fails="tower")
    assert {name for kind, name, _ in log(tmp_path) if kind == "end"} == {"codec", "extra"}
    (tmp_path / "log").unlink()
    run_processes(tmp_path, CHAIN)
    assert [name for kind, name, _ in log(tmp_path) if kind == "begin"] == ["tower", "text", "model"]
    run_processes(tmp_path, CHAIN, fails="codec,extra,tower,text,model")  # nothing is left to run


def test_a_process_that_ends_well_but_leaves_its_stage_undone_has_failed(tmp_path: Path) -> None:
    with pytest.raises(EnclapError, match=r"^a failed"):
        run_side_by_side([Note("a")], lambda name: [sys.executable, "-c", ""], Markers(tmp_path), 1)


def test_the_stages_of_mini_are_in_order_and_scenes_wait_for_the_codec(tmp_path: Path) -> None:
    names = [stage.name for stage in in_order(STAGES)]
    assert len(names) == 12 and names.index("codec") < names.index("scenes") and names[-1] == "calibrate"
    run = MiniRun(tmp_path / "sounds", tmp_path / "out", tmp_path / "recipes")
    began = time.monotonic()
    with pytest.raises(UsageError, match="scenes: needs codec, opinions, not done yet"):
        run_stage(STAGES, "scenes", run, run.markers)
    assert not run.output.exists() and time.monotonic() - began < 5.0
