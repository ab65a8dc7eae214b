"""What goes wrong around a run: disks, folders, files that change, pipes, interruptions, very many files."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from cli import Run, receive_ctrl_c, unprivileged, written
from enclap import captioner
from enclap.audio.read import open_audio, read_audio
from enclap.cli.memory import SHORTAGE
from enclap.errors import AudioNotFound, ModelError
from enclap.prefetch import Prefetcher
from sounds import noise, write_audio, write_wav

FULL = Path("/dev/full")
SMALL = 600  # bytes that a file may have where the disk is "full"


def enclap_process(command: list[str], *arguments: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload,no-any-return]


def test_a_full_disk_is_one_line(enclap_command: list[str], recording: Callable[..., Path], tmp_path: Path) -> None:
    with FULL.open("w") as full:
        done = enclap_process(enclap_command, "caption", recording(), stdout=full)
    assert (done.returncode, done.stderr) == (
        3,
        "enclap: standard output: cannot be written: No space left on device\n",
    )
    done = enclap_process(enclap_command, "caption", recording(), "--output", FULL)
    assert (done.returncode, done.stderr) == (3, "enclap: /dev/full: cannot be written: No space left on device\n")
    assert FULL.is_char_device()


@pytest.mark.parametrize("output", ["all.json", "out/"])
def test_what_does_not_fit_leaves_nothing_half_written(
    enclap: Run, enclap_command: list[str], tmp_path: Path, output: str
) -> None:
    for number in range(4):
        write_audio(tmp_path / f"{number}.wav", noise(0.2, 8000, seed=number), 8000)
    recordings = [f"{number}.wav" for number in range(4)]
    (tmp_path / "all.json").write_text("mine")

    def shrink() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))

    arguments = ["caption", *recordings, "--format", "json", "--output", output]
    done = enclap_process(enclap_command, *arguments, "--overwrite", cwd=tmp_path, preexec_fn=shrink)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert done.stderr.endswith("cannot be written: File too large\n")
    assert (tmp_path / "all.json").read_text() == "mine"
    assert not [name for name in written(tmp_path) if name.endswith(".partial")]
    assert enclap(*arguments, "--resume", "--overwrite").returncode == 0
    whole = enclap("caption", *recordings, "--format", "json").stdout
    if output == "all.json":
        assert (tmp_path / output).read_text() == whole
    else:
        assert len(written(tmp_path / output)) == 4


def test_a_read_only_folder_is_one_line_before_any_work(
    enclap_command: list[str], recording: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    command = unprivileged(enclap_command)
    for output in (folder / "all.txt", f"{folder}/", f"{folder}/new/"):
        done = enclap_process(command, "caption", recording(), "--output", output, "--model", "/nowhere")
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
        assert "cannot be written: Permission denied" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kilobytes", [80_000, 150_000, 300_000, 440_000])
def test_a_small_address_space_is_one_line(
    enclap_command: list[str], recording: Callable[..., Path], kilobytes: int
) -> None:
    def shrink() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1024 * kilobytes, 1024 * kilobytes))

    done = enclap_process(enclap_command, "caption", recording(), preexec_fn=shrink)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert done.stderr.startswith("enclap: too little memory: this process may use ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("libavcodec.so.62: failed to map segment from shared object"),
        ModelError("decoder.onnx: damaged or not for this onnxruntime (std::bad_alloc)"),
    ],
    ids=repr,
)
def test_a_lack_of_memory_later_on_is_one_line(
    enclap: Run, recording: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(*_: object, **__: object) -> NoReturn:
        raise ValueError("loading failed") from error

    monkeypatch.setattr(captioner, "load_engine", load)
    done = enclap("caption", recording())
    assert (done.returncode, done.stderr) == (3, f"enclap: {SHORTAGE}\n")


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    enclap: Run, recording: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(captioner, "load_engine", load)
    with pytest.raises(ZeroDivisionError):  # a fault of ours must show
        enclap("caption", recording())


def test_a_full_temporary_folder_is_one_line(enclap_command: list[str], tmp_path: Path) -> None:
    size = 17 * 2**20  # more than is kept in memory of what is piped in
    long = write_wav(tmp_path / "long.wav", np.zeros((size // 2, 1), np.int16), 48_000)

    def shrink() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))

    with subprocess.Popen(["cat", long], stdout=subprocess.PIPE) as source:
        done = enclap_process(enclap_command, "caption", "-", stdin=source.stdout, preexec_fn=shrink)
    assert (done.returncode, done.stderr) == (
        3,
        "enclap: the temporary folder (TMPDIR): cannot be written: File too large\n",
    )


NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
"""


def test_a_file_system_without_locks_is_written_with_a_warning(
    enclap_command: list[str], recording: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LOCKS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = enclap_process(enclap_command, "caption", recording(), "-o", "a.txt", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr.count("\n"), done.stderr.split(": ")[0]) == (0, 1, "warning"), done.stderr
    assert (tmp_path / "a.txt").read_text().count("\n") == 1


def test_a_closed_standard_output_is_one_line(enclap_command: list[str], recording: Callable[..., Path]) -> None:
    line = " ".join([*enclap_command, "caption", str(recording()), ">&-"])
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.flac"])
def test_a_recording_that_grows_is_as_long_as_it_was(tmp_path: Path, name: str) -> None:
    path = write_audio(tmp_path / name, noise(8.0, 48_000), 48_000)
    before = read_audio(path)
    with open_audio(path) as audio:
        blocks = [next(audio.blocks)]
        with path.open("ab") as file:
            file.write(path.read_bytes())
        blocks += audio.blocks
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), before.samples)


def test_a_recording_that_vanishes_while_it_is_read_is_read_to_its_end(recording: Callable[..., Path]) -> None:
    path = recording("a.flac", seconds=8.0)
    before = read_audio(path)
    with open_audio(path) as audio:
        blocks = [next(audio.blocks)]
        path.unlink()
        blocks += audio.blocks
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), before.samples)
    with pytest.raises(AudioNotFound, match="no such file"):
        read_audio(path)


def test_a_recording_that_is_cut_while_it_is_read_gives_what_there_was(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-9999, 9999, (480_000, 1)).astype(np.int16)
    path = write_wav(tmp_path / "a.wav", samples, 48_000)
    with open_audio(path) as audio:
        blocks = [next(audio.blocks)]
        os.truncate(path, 480_000)
        blocks += audio.blocks
    assert 4.0 < blocks[-1].end / 48_000 < 6.0


def test_a_recording_that_vanishes_before_its_turn_failed(
    enclap: Run, recording: Callable[..., Path], tmp_path: Path
) -> None:
    good, gone, pipe = recording("good.wav"), recording("gone.wav"), tmp_path / "first.wav"
    os.mkfifo(pipe)

    def feed() -> None:
        with pipe.open("wb") as file:  # returns when the first one is opened
            gone.unlink()
            file.write(good.read_bytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    done = enclap("caption", pipe, gone, good)
    feeder.join()
    assert (done.returncode, done.stdout.count("\n")) == (1, 2)
    assert done.stderr.startswith(f"enclap: {gone}: no such file\n")


def test_a_changed_recording_is_not_taken_for_done(enclap: Run, recording: Callable[..., Path], tmp_path: Path) -> None:
    """The second one is overwritten after it was hashed and before its captions are written."""
    first, second, pipe = recording("a.wav"), recording("b.wav"), tmp_path / "c.wav"
    os.mkfifo(pipe)

    def feed() -> None:
        with pipe.open("wb") as file:
            write_audio(second, noise(2.0, seed=5), 16_000)
            file.write(first.read_bytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert enclap("caption", first, second, pipe, "-o", "all.json", "-f", "json").returncode == 0
    feeder.join()
    pipe.unlink()
    done = enclap("caption", first, second, "-o", "all.json", "-f", "json", "--resume")
    assert done.returncode == 0
    assert done.stderr.startswith("enclap: 1 file captioned") and "; 1 done before" in done.stderr
    assert '"duration": 2.0' in (tmp_path / "all.json").read_text()


def test_ctrl_c_ends_a_wait_for_standard_input(enclap_command: list[str]) -> None:
    process = subprocess.Popen(
        [*enclap_command, "caption", "-", "--verbose"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=receive_ctrl_c,
    )
    assert process.stderr is not None and "loaded in" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == "enclap: interrupted\n"
    assert process.stdin is not None
    process.stdin.close()


MANY = """
import sys
from enclap import captioner
from enclap.cli.main import main
from fakes import EchoEngine
captioner.load_engine = lambda *_, **__: EchoEngine()
main()
"""


def peak_of(folder: Path, tiny_model: Path) -> int:
    """Kilobytes that captioning a folder takes at most, without a model."""
    command = [sys.executable, "-c", MANY, "caption", str(folder), "-o", f"{folder}.csv", "-f", "csv"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([*command, "--model", str(tiny_model), "--quiet"], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def memory_of_many(tmp_path: Path, tiny_model: Path, few: int, many: int) -> None:
    source = write_audio(tmp_path / "source.wav", noise(0.05, 8000), 8000)
    peaks = []
    for count in (few, many):
        folder = tmp_path / f"{count} files"
        folder.mkdir()
        for number in range(count):
            os.link(source, folder / f"{number:05d}.wav")
        peaks.append(peak_of(folder, tiny_model))
        assert Path(f"{folder}.csv").read_text().count("\n") == 1 + count
    per_file = (peaks[1] - peaks[0]) / (
        many - few
    )  # kilobytes: its path and what is noted of it, no samples or captions
    assert per_file < 2.0, f"{peaks} KB"


def test_many_files_need_little_more_memory_than_few(tmp_path: Path, tiny_model: Path) -> None:
    memory_of_many(tmp_path, tiny_model, 50, 650)


@pytest.mark.soak
def test_ten_thousand_files_need_little_more_memory_than_few(tmp_path: Path, tiny_model: Path) -> None:
    memory_of_many(tmp_path, tiny_model, 1000, 11_000)


def test_what_runs_ahead_keeps_order_and_distance() -> None:
    made = []

    def items() -> object:
        for number in range(50):
            made.append(number)
            yield number

    ahead = Prefetcher(items(), depth=3)  # type: ignore[arg-type]
    for number, item in enumerate(ahead):
        assert item == number
        assert len(made) <= number + 1 + 3 + 1  # taken, ready, and one in hand
    assert made == list(range(50))


def test_what_fails_ahead_fails_after_what_came_before() -> None:
    def items() -> object:
        yield 1
        raise KeyboardInterrupt

    ahead = Prefetcher(items(), depth=5)  # type: ignore[arg-type]
    assert next(ahead) == 1
    with pytest.raises(KeyboardInterrupt):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def test_what_is_stopped_ahead_is_closed() -> None:
    closed = threading.Event()

    def items() -> object:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = Prefetcher(items(), depth=2)  # type: ignore[arg-type]
    assert next(ahead) == 0
    ahead.stop()
    ahead.join()
    assert closed.is_set()
    with pytest.raises(StopIteration):
        next(ahead)
