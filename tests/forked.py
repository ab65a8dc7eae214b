"""Trainings in processes of their own, forked from one that has loaded PyTorch and transformers once for all."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import run_program
import training_program

TESTS = Path(__file__).parent


def start(function: Callable[..., None], *arguments: Any, ranks: dict[str, str] | None = None) -> BaseProcess:
    """A started process that runs a function of a module with arguments; ranks: what `torchrun` writes for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([run_program.__name__, training_program.__name__])
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with patch.dict(os.environ, {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()
    process = context.Process(target=call, args=(function, arguments, ranks or {}))
    process.start()
    return process


def run_in_two(function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function in two processes that find each other as those of `torchrun` do; both must end well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [start(function, *arguments, ranks={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def call(function: Callable[..., None], arguments: tuple[Any, ...], ranks: dict[str, str]) -> None:
    """What a process does."""
    os.environ.update(ranks)
    function(*arguments)
