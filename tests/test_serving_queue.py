"""Windows on their way to the model: in turn, in order, bounded."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from enclap.decoding.options import DecodingOptions
from enclap.serving import window_queue
from enclap.serving.window_queue import EndOfRecording, WindowQueue, WindowStream
from enclap.types import Waveform, Window


def window(seconds: float = 0.1) -> Window:
    return Window(Waveform(np.zeros(round(seconds * 1000), np.float32), 1000), 0.0, seconds)


def opened(queue: WindowQueue, name: str) -> WindowStream:
    stream = WindowStream(name, DecodingOptions(), lambda item: None)
    queue.open(stream)
    return stream


def names(batch: list[tuple[WindowStream, Window | EndOfRecording]]) -> str:
    return "".join(f"{stream.name}" for stream, _ in batch)


def test_streams_take_turns() -> None:
    queue = WindowQueue(4)
    long, short = opened(queue, "a"), opened(queue, "b")
    for _ in range(6):
        assert queue.put(long, window())
    assert queue.put(short, window())
    assert names(queue.next_batch()) == "abaa"
    assert queue.put(short, window())
    assert names(queue.next_batch()) == "baaa"


def test_a_lone_stream_does_not_wait() -> None:
    queue = WindowQueue(4, most_waiting=30.0)
    queue.put(opened(queue, "a"), window())
    assert names(queue.next_batch()) == "a"


def test_a_batch_waits_a_moment_for_others() -> None:
    queue = WindowQueue(2, most_waiting=10.0)
    first, second = opened(queue, "a"), opened(queue, "b")
    queue.put(first, window())
    threading.Timer(0.1, queue.put, (second, window())).start()
    assert names(queue.next_batch()) == "ab"
    queue = WindowQueue(2, most_waiting=0.01)
    first, second = opened(queue, "a"), opened(queue, "b")
    queue.put(first, window())
    assert names(queue.next_batch()) == "a", "and no longer"


def test_a_reader_waits_when_its_stream_is_full() -> None:
    queue = WindowQueue(1)
    stream = opened(queue, "a")
    for _ in range(2):
        queue.put(stream, window())
    done = threading.Event()
    thread = threading.Thread(target=lambda: (queue.put(stream, window()), done.set()))
    thread.start()
    assert not done.wait(0.1)
    queue.next_batch()
    assert done.wait(5.0)
    thread.join()


def test_memory_is_bounded_over_all_streams_and_each_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_queue, "HELD_SAMPLES", 250)
    queue = WindowQueue(8)
    streams = [opened(queue, name) for name in "abc"]
    for stream in streams:
        assert queue.put(stream, window())  # one each, whatever the others hold
    done = threading.Event()
    thread = threading.Thread(target=lambda: (queue.put(streams[0], window()), done.set()))
    thread.start()
    assert not done.wait(0.1)
    assert names(queue.next_batch()) == "abc"
    assert done.wait(5.0)
    thread.join()


def test_a_closed_stream_is_dropped_and_its_reader_told() -> None:
    queue = WindowQueue(1)
    closed, open_one = opened(queue, "a"), opened(queue, "b")
    queue.put(closed, window())
    queue.put(closed, window())
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(queue.put(closed, window())))
    thread.start()
    queue.close(closed)
    thread.join()
    assert answers == [False]
    queue.put(open_one, window())
    assert names(queue.next_batch()) == "b"


def test_stopping_wakes_everybody() -> None:
    queue = WindowQueue(1)
    stream = opened(queue, "a")
    batches: list[int] = []
    thread = threading.Thread(target=lambda: batches.append(len(queue.next_batch())))
    thread.start()
    time.sleep(0.05)
    assert queue.stop() == [stream]
    thread.join()
    assert batches == [0]
    assert not queue.put(stream, window())
