"""Threads of the onnx engine: when each core takes a batch of its own, and work that nobody waits for any more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from enclap.engines.onnx.sessions import Sessions, providers
from enclap.engines.onnx.threads import Cancelled, CancelToken, ThreadPolicy, run_parallel
from enclap.hub.model_folder import ModelFolder

TIMEOUT = 10.0  # seconds; nothing here takes one


def test_the_first_call_decides_and_two_in_a_row_change_it() -> None:
    policy = ThreadPolicy(2)
    assert [policy.workers(clips) for clips in (8, 1, 8, 1, 1, 1, 4, 3, 4, 4)] == [2, 2, 2, 2, 1, 1, 1, 1, 1, 2]
    assert [ThreadPolicy(2).workers(clips) for clips in (1, 3, 4)] == [1, 1, 2]


def test_one_core_has_one_worker() -> None:
    policy = ThreadPolicy(1)
    assert {policy.workers(clips) for clips in (1, 1, 8, 8, 8)} == {1}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers: int) -> None:
    assert run_parallel(lambda part, _: -part, [3, 1, 2, 5], workers) == [-3, -1, -2, -5]


def test_parts_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2)
    assert sorted(run_parallel(lambda _part, _: meeting.wait(TIMEOUT), [1, 2], 2)) == [0, 1]


@pytest.mark.parametrize("failing", [0, 1])
def test_when_one_part_fails_the_others_are_cancelled(failing: int) -> None:
    begun, ends = threading.Event(), []

    def run(part: int, cancel: CancelToken) -> None:
        if part == failing:
            assert begun.wait(TIMEOUT)
            raise ValueError("no such clip")
        begun.set()
        try:
            while True:
                cancel.check()
        except Cancelled:
            ends.append(part)
            raise

    with pytest.raises(ValueError, match="no such clip"):
        run_parallel(run, range(9), 2)
    assert 1 - failing in ends and 8 not in ends


def test_a_graph_is_in_memory_once_however_many_threads_it_is_asked_for(tiny_model: Path) -> None:
    sessions = Sessions(ModelFolder.read(tiny_model), 2, providers("cpu"))
    both = sessions.get("decoder")
    assert sessions.get("decoder", 2) is both
    one = sessions.get("decoder", 1)
    assert one is not both and sessions.get("decoder", 1) is one and sessions.get("decoder") is not both
    options = [sessions.get("decoder", threads).get_session_options().intra_op_num_threads for threads in (1, 2)]
    assert options == [1, 2]


@pytest.mark.parametrize(("given", "taken"), [(None, "1"), ("3", "3")])
def test_numpy_s_threads_keep_no_core_busy_unless_they_are_asked_for(given: str | None, taken: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    program = "import os, sys; sys.argv = ['enclap', '--version']; from enclap.cli.main import main\n"
    program += "try: main()\nexcept SystemExit: print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == taken
