"""New folders are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.files import is_full, new_folder, require_room

WRITER = """
import sys, time
from pathlib import Path
from enclap.files import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("done by half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with new_folder(target) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("content")
        assert not target.exists()
    assert (target / "part" / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ModelError, SystemExit])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "model") as folder:
            (folder / "file").touch()
            raise error("no")

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_what_was_there_and_the_next_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "model"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    with new_folder(tmp_path / "other"):  # beside a writer that lives: its folder stays
        assert len(list(tmp_path.glob(".model.*.partial"))) == 1
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert not target.exists()
    with new_folder(target) as folder:
        (folder / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]


def test_a_living_writer_is_not_disturbed(tmp_path: Path) -> None:
    living = tmp_path / f".model.{os.getppid()}.partial"
    living.mkdir()
    with new_folder(tmp_path / "model"):
        pass
    assert living.is_dir()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_stays(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "model"
    if kind == "folder":
        (target / "inside").mkdir(parents=True)
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already; give a new name, or remove it first"), new_folder(target):
        pytest.fail("the block must not run")
    assert os.path.lexists(target)


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with new_folder(tmp_path / "model") as folder:
        (folder / "file").touch()
    assert (tmp_path / "model" / "file").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EnvironmentFault, match=r"file/model: cannot be written"),
        new_folder(tmp_path / "file" / "model"),
    ):
        pytest.fail("the block must not run")


def test_a_full_disk_is_recognised_in_every_dress() -> None:
    def led_to(error: Exception) -> Exception:
        outer = RuntimeError("could not save")
        outer.__cause__ = error
        return outer

    assert is_full(OSError(28, "No space left on device"))
    assert is_full(RuntimeError("Io error: No space left on device (os error 28)"))
    assert is_full(led_to(OSError(28, "x")))
    assert not is_full(led_to(OSError(2, "x"))) and not is_full(ValueError("full of errors"))


def test_room_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    require_room(tmp_path / "not" / "yet" / "there", 1, "a byte")
    with pytest.raises(EnvironmentFault, match=r"no room on the disk: the lot needs 1000000000\.00 GB"):
        require_room(tmp_path / "not" / "there", 10**18, "the lot")
