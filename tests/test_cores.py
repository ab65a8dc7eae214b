"""Sharing the cores: when each gets clips of its own, and what becomes of work that nobody waits for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from enclap.engines.onnx.sessions import Sessions, providers
from enclap.engines.onnx.threads import Cancelled, CancelToken, CoreSharing, side_by_side
from enclap.hub.model_folder import ModelFolder

PATIENCE = 10.0  # seconds; nothing here takes one


def test_the_first_call_decides_and_two_in_a_row_change_it() -> None:
    sharing = CoreSharing(2)
    assert [sharing.workers(clips) for clips in (8, 1, 8, 1, 1, 1, 4, 3, 4, 4)] == [2, 2, 2, 2, 1, 1, 1, 1, 1, 2]
    assert [CoreSharing(2).workers(clips) for clips in (1, 3, 4)] == [1, 1, 2]


def test_one_core_has_one_worker() -> None:
    sharing = CoreSharing(1)
    assert {sharing.workers(clips) for clips in (1, 1, 8, 8, 8)} == {1}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers: int) -> None:
    assert side_by_side(lambda part, _: -part, [3, 1, 2, 5], workers) == [-3, -1, -2, -5]


def test_parts_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2)
    assert sorted(side_by_side(lambda _part, _: meeting.wait(PATIENCE), [1, 2], 2)) == [0, 1]


@pytest.mark.parametrize("failing", [0, 1])
def test_when_one_part_fails_the_others_are_told(failing: int) -> None:
    begun, ends = threading.Event(), []

    def run(part: int, wanted: CancelToken) -> None:
        if part == failing:
            assert begun.wait(PATIENCE)
            raise ValueError("no such clip")
        begun.set()
        try:
            while True:
                wanted.check()
        except Cancelled:
            ends.append(part)
            raise

    with pytest.raises(ValueError, match="no such clip"):
        side_by_side(run, range(9), 2)
    assert 1 - failing in ends and 8 not in ends


def test_a_graph_is_in_memory_once_however_many_threads_it_is_asked_for(tiny_folder: Path) -> None:
    sessions = Sessions(ModelFolder.read(tiny_folder), 2, providers("cpu"))
    both = sessions.get("decoder")
    assert sessions.get("decoder", 2) is both
    one = sessions.get("decoder", 1)
    assert one is not both and sessions.get("decoder", 1) is one and sessions.get("decoder") is not both
    options = [sessions.get("decoder", threads).get_session_options().intra_op_num_threads for threads in (1, 2)]
    assert options == [1, 2]
