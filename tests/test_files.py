"""Files appear whole or not at all, through links and under every name; locks, hashes and what paths lead to."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclap import files
from enclap.errors import EnvironmentFault, UsageError

NOBODY = 2**22 + 1  # no process has this number: Linux's largest is 2**22


def write(path: Path, content: bytes) -> None:
    with files.replacement_file(path) as file:
        file.write(content)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.replacement_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    files.write_whole(tmp_path / "b.txt", "é\n")
    assert (path.read_text(), (tmp_path / "b.txt").read_bytes()) == ("new", "é\n".encode())
    assert entries(tmp_path) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("as_path", [False, True])
def test_a_failure_leaves_the_old_file(tmp_path: Path, error: type[BaseException], as_path: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    expected = EnvironmentFault if as_path and error is OSError else error
    with pytest.raises(expected):
        if as_path:
            with files.replacement_path(path) as temporary:
                temporary.write_text("half")
                raise error("no")
        with files.replacement_file(path) as file:
            file.write(b"half")
            raise error("no")
    assert (path.read_text(), entries(tmp_path)) == ("old", ["a.txt"])


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "target.txt"
    (tmp_path / "near").symlink_to("far")
    (tmp_path / "far").symlink_to("deep/target.txt")
    for content in (b"through a dangling link", b"through a link"):
        write(tmp_path / "near", content)
        assert target.read_bytes() == content
    assert (tmp_path / "near").readlink() == Path("far")
    assert entries(tmp_path) == ["deep", "far", "near"] and entries(tmp_path / "deep") == ["target.txt"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(EnvironmentFault, match="loop: cannot be written"):
        write(tmp_path / "loop", b"")


def test_permissions_are_those_of_the_file_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch(0o600)
    write(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_open_file_is_written_where_it_stands(tmp_path: Path) -> None:
    """As `-o /dev/stdout >> log` must do: what is in the log stays, and the device is not replaced."""
    log = tmp_path / "log"
    log.write_text("kept\n")
    with log.open("a") as file:
        names = [f"{folder}/{file.fileno()}" for folder in ("/proc/self/fd", "/dev/fd") if Path(folder).exists()]
        for name in names:
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(name)
            assert files.descriptor_of(tmp_path / "link") == files.descriptor_of(Path(name)) == file.fileno()
            write(tmp_path / "link", b"added\n")
    assert names and log.read_text() == "kept\n" + "added\n" * len(names)
    assert (tmp_path / "link").is_symlink()
    assert files.descriptor_of(log) is None


def test_devices_and_pipes_are_written_to(tmp_path: Path) -> None:
    write(Path(os.devnull), b"gone")
    assert Path(os.devnull).is_char_device()
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"content")
    reader.join()
    assert received == [b"content"] and pipe.is_fifo()


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "猫" * 85, "x" * 143])
def test_the_longest_names_can_be_replaced(tmp_path: Path, name: str) -> None:
    for content in (b"first", b"second"):
        write(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert entries(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x" * 256, "x" * 5000, "a.txt/below", "folder"])
def test_what_cannot_be_a_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(EnvironmentFault, match="cannot be written: ") as caught:
        write(tmp_path / name, b"")
    assert files.is_too_long(caught.value) == name.startswith("x")
    assert entries(tmp_path) == ["a.txt", "folder"]


def test_two_threads_at_one_file_leave_one_of_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    contents = [bytes([letter]) * 100_000 for letter in b"abcdefgh"]
    threads = [threading.Thread(target=write, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents and entries(tmp_path) == ["a.txt"]


def test_a_file_system_that_cannot_flush_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(number: int) -> object:
        def fsync(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    write(tmp_path / "a.txt", b"written")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(EnvironmentFault, match="Input/output error"):
        write(tmp_path / "a.txt", b"lost")
    assert (tmp_path / "a.txt").read_bytes() == b"written"


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    long = "x" * 250
    living = [f".a.txt.{os.getppid()}.partial", f".a.txt.{os.getpid()}-5.partial"]
    others = [f".b.txt.{NOBODY}.partial", ".a.txt.partial", ".a.txt.x.partial"]
    dead = [f".a.txt.{NOBODY}.partial", f".a.txt.{NOBODY}-7.partial", f".a.txt.{10**30}.partial"]
    for name in (*living, *others, *dead):
        (tmp_path / name).touch()
    (tmp_path / f".folder.{NOBODY}.partial" / "inside").mkdir(parents=True)
    (tmp_path / f".{files.shortened(long, 100)}.{NOBODY}.partial").touch()
    missing = tmp_path / "not" / "there"
    files.remove_partial([tmp_path / "a.txt", tmp_path / "folder", tmp_path / long, missing])
    assert entries(tmp_path) == sorted([*living, *others])


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("first", "second"):
        with files.replacement_folder(target) as fresh:
            (fresh / "file").write_text(content)
        assert (target / "file").read_text() == content

    def fail() -> None:
        with files.replacement_folder(target) as fresh:
            (fresh / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (target / "file").read_text() == "second" and entries(tmp_path) == ["model"]


def test_folders_of_any_depth_are_made(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 1500)
    try:
        files.make_folders(deep)
        files.make_folders(deep)
        write(deep / "a.txt", b"deep")
        assert (deep / "a.txt").read_bytes() == b"deep"
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # Python's own way gives up at a thousand levels
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.make_folders(tmp_path / "file" / "below")


CONTENTS = st.lists(st.binary(max_size=200), max_size=4)


@given(CONTENTS)
def test_a_hash_is_that_of_all_contents_in_order(contents: list[bytes]) -> None:
    expected = hashlib.sha256(b"".join(contents)).hexdigest()
    opened = [BytesIO(content) for content in contents]
    for file in opened:
        file.read(3)  # whole files count, wherever they stand
    assert files.sha256(*contents) == files.sha256(*opened) == expected


def test_a_hash_of_a_large_file(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a", b"more") == hashlib.sha256(content + b"more").hexdigest()


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=300))
def test_a_shortened_name_fits_and_tells_names_apart(name: str) -> None:
    short = files.shortened(name, 100)
    assert len(os.fsencode(short)) <= 100
    assert (short == name) == (len(os.fsencode(name)) <= 100)
    assert files.shortened(name + "x", 100) != short
    assert files.shortened("\udce9" * 200, 100).isprintable()


HOLDER = """
import sys
from pathlib import Path
from enclap.files import locked
with locked(Path(sys.argv[1]), "out"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(EnvironmentFault, match=r"^out: another enclap is writing there; "),
            files.locked(path, "out"),
        ):
            pytest.fail("two hold it")
        holder.kill()
    with files.locked(path, "out") as file:
        file.write(b"ours")
    assert path.read_bytes() == b"ours"


def test_a_lock_comes_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "log"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(files.Locked), files.locked(path, "out"):
            pytest.fail("two hold it")
        threading.Timer(0.7, holder.kill).start()
        with files.locked_in_turn(path, "out"):
            assert holder.wait(timeout=10) != 0, "the other has ended"


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.EACCES, errno.EBADF]
)
def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with caplog.at_level(logging.WARNING, "enclap"), files.locked(tmp_path / "log", "out") as file:
        file.write(b"written")
    assert (tmp_path / "log").read_bytes() == b"written"
    assert [record.getMessage() for record in caplog.records] == [
        f"out: this file system has no locks ({os.strerror(number)}); do not start a second run on this output"
    ]


def test_a_lock_on_a_file_that_keeps_vanishing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.samestat", lambda *_: False)
    with pytest.raises(EnvironmentFault), files.locked(tmp_path / "log", "out"):
        pytest.fail("it is not ours")


def test_a_parent_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone/a.txt")
    files.require_parent(tmp_path / "a.txt")
    for path, words in (
        ("gone/a.txt", "/gone does not exist; make it first"),
        ("file/a.txt", "/file is not a folder"),
        ("dangling", "/gone does not exist; make it first"),
    ):
        with pytest.raises(UsageError, match=f"{path}: the folder .*{words}"):
            files.require_parent(tmp_path / path)
    for path in ("x" * 300 + "/a.txt", "file/below/a.txt"):
        with pytest.raises(EnvironmentFault, match="cannot be written"):
            files.require_parent(tmp_path / path)


def test_all_names_of_one_file_are_known_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    os.link(path, tmp_path / "hard")
    (tmp_path / "soft").symlink_to("a")
    with path.open() as file:
        names = [path, str(path), tmp_path / "hard", tmp_path / "soft", file.fileno()]
        assert {files.file_identity(name) for name in names} == {files.file_identity(path)} != {None}
    for nothing in (tmp_path, tmp_path / "gone", os.devnull, "x" * 300):
        assert files.file_identity(nothing) is None
