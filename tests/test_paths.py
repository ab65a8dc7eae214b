"""Paths as people have them: long, deep, closed, linked, special; one bad path never stops the others."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import Done, Run, unprivileged, written
from enclap.output.inputs import SHARED_SUFFIXES, InputFile, expand, is_text
from sounds import noise, write_audio

Make = Callable[..., Path]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder with a recording that nobody may look into, beside b.wav in the folder `set`."""
    folder = tmp_path / "set" / "closed"
    folder.mkdir(parents=True)
    for path in (folder / "a.wav", folder.parent / "b.wav"):
        write_audio(path, noise(0.2, 8000), 8000)
    folder.chmod(0)
    yield folder
    folder.chmod(0o755)


def run(command: list[str], *arguments: str | Path, folder: Path, stdin: str = "") -> Done:
    """How an `enclap caption` ended for which permissions hold."""
    line = [*unprivileged(command), "caption", *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, input=stdin)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "x" * 5000, "b.wav/below.wav", "loop.wav", ""])
def test_an_impossible_name_is_one_line_and_the_others_are_captioned(
    enclap: Run, recording: Make, tmp_path: Path, name: str
) -> None:
    good = recording("b.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    done = enclap("caption", name, good)
    assert (done.returncode, done.stdout.count("\n"), done.stderr.count("\n")) == (1, 1, 2), done.stderr
    assert done.stderr.startswith(f"enclap: {name or repr(name)}: ")


def test_closed_files_folders_and_globs_are_named_and_the_others_captioned(
    enclap_command: list[str], closed: Path, tmp_path: Path
) -> None:
    paths = ("set/closed/a.wav", "set/closed", "set", "set/**/*.wav", "set/*/a.wav", "set/c*", "set/b.wav")
    done = run(enclap_command, *paths, folder=tmp_path)
    opened = "enclap: set/closed/a.wav: cannot be opened: Permission denied"
    read = "enclap: set/closed: the folder cannot be read: Permission denied"
    assert done.returncode == 1 and done.stdout.count("set/b.wav: ") == 3
    assert done.stderr.splitlines()[:-1] == [opened, read, read, read, opened, read]


def test_an_output_where_nothing_may_be_looked_at_is_one_line(
    enclap_command: list[str], closed: Path, tmp_path: Path
) -> None:
    for output in ("set/closed/x.txt", "set/closed/", "set/closed/deep/"):
        done = run(enclap_command, "set/b.wav", "-o", output, "--model", "/nowhere", folder=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
        assert "cannot be written: Permission denied" in done.stderr


def test_an_output_where_nothing_may_be_listed_is_written(
    enclap_command: list[str], recording: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "unlisted"
    folder.mkdir()
    folder.chmod(0o300)
    try:
        for _ in range(2):
            done = run(enclap_command, recording(), "-o", "unlisted/a.txt", "--overwrite", folder=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        folder.chmod(0o755)
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 2500, "a\nb", ".." * 200])
def test_a_model_of_an_impossible_name_is_one_line(enclap: Run, recording: Make, name: str) -> None:
    for command in (("caption", recording()), ("doctor",)):
        done = enclap(*command, "--model", name)
        assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (3, 1, False), done.stderr
    for command in (("card",), ("pull",), ("export",), ("convert", "-o", "new")):
        done = enclap("models", *command, name)
        assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (3, 1, False), done.stderr


def test_long_names_get_outputs_that_fit(enclap: Run, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    names = ["a.wav", "m" * 251 + ".wav", "m" * 250 + "n.wav", "猫" * 83 + ".wav", "z.wav"]
    for number, name in enumerate(names):
        write_audio(tmp_path / "x.wav", noise(0.2, 8000, seed=number), 8000).rename(folder / name)
    for more in ((), ("--resume",), ("--overwrite",)):
        done = enclap("caption", folder, "-f", "text,jsonl", "-o", "out/", *more)
        assert (done.returncode, len(written(tmp_path / "out"))) == (0, 10), done.stderr
    outputs = [tmp_path / "out" / name for name in written(tmp_path / "out") if name.endswith(".jsonl")]
    results = [json.loads(path.read_text())["path"] for path in outputs]
    assert sorted(results) == sorted(str(folder / name) for name in names)


@pytest.mark.parametrize("name", ["y" * 251 + ".txt", "é" * 125 + ".txt"])
def test_an_output_of_the_longest_name_can_be_resumed(enclap: Run, recording: Make, tmp_path: Path, name: str) -> None:
    paths = [recording("a.wav"), recording("b.wav")]
    for more, words in (((), "2 files captioned"), (("--resume",), "; 2 done before")):
        done = enclap("caption", *paths, "-o", name, *more)
        assert done.returncode == 0 and words in done.stderr, done.stderr
    assert (tmp_path / name).read_text().count("\n") == 2


def test_an_output_name_that_is_too_long_is_one_line_before_any_work(enclap: Run, recording: Make) -> None:
    for output in ("y" * 256, "y" * 300 + "/", "y" * 300 + "/a.txt"):
        done = enclap("caption", recording(), "-o", output, "--model", "/nowhere")
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert done.stderr.endswith("cannot be written: File name too long\n")


def test_folders_of_any_depth_are_captioned(enclap: Run, tmp_path: Path) -> None:
    levels = ["d"] * (sys.getrecursionlimit() + 10)
    deep = tmp_path.joinpath("set", *levels)
    try:
        subprocess.run(["mkdir", "-p", deep], check=True)
        write_audio(tmp_path / "x.wav", noise(0.2, 8000), 8000).rename(deep / "a.wav")
        write_audio(tmp_path / "set" / "b.wav", noise(0.2, 8000), 8000)
        done = enclap("caption", "set", "-o", "out/")
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
        assert tmp_path.joinpath("out", *levels, "a.txt").is_file() and (tmp_path / "out" / "b.txt").is_file()
        assert [type(found) for found in expand(["set/**/a.wav"])] == [InputFile]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "set", tmp_path / "out"], check=True)


def test_a_path_that_gets_too_long_fails_alone(enclap: Run, tmp_path: Path) -> None:
    """The recording's own path is just short enough; that of its captions is not."""
    folder = tmp_path.joinpath("set", *["d" * 200] * 19)
    subprocess.run(["mkdir", "-p", folder], check=True)
    for path in (tmp_path / "set" / "a.wav", folder / "b.wav", tmp_path / "set" / "z.wav"):
        write_audio(tmp_path / "x.wav", noise(0.2, 8000), 8000).rename(path)
    target = tmp_path / ("o" * 200) / ("o" * 200)
    target.parent.mkdir()
    done = enclap("caption", tmp_path / "set", "-o", f"{target}/", "-f", "json")
    missing = done.stderr.splitlines()[0]
    assert done.returncode == 1 and missing.endswith("cannot be written: File name too long"), done.stderr
    assert done.stderr.splitlines()[1].startswith("enclap: 2 files captioned") and "; 1 failed" in done.stderr
    assert written(target) == ["a.json", "z.json"]


def make_special(folder: Path, kind: str) -> Path:
    path = folder / "a.wav"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            os.chdir(folder)  # a socket's path may have a hundred bytes
            listening.bind(path.name)
            os.chdir(folder.parent)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(folder.parent / "pipe")
        path.symlink_to("../pipe")
    else:
        path.symlink_to("..")
    return path


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a device", "link to a pipe", "link to a folder"])
@pytest.mark.parametrize("found_by", ["set", "set/*", "set/**/*.wav", "**"])
def test_what_is_no_file_is_left_out_of_folders(enclap: Run, tmp_path: Path, kind: str, found_by: str) -> None:
    (tmp_path / "set").mkdir()
    write_audio(tmp_path / "set" / "b.wav", noise(0.2, 8000), 8000)
    make_special(tmp_path / "set", kind)
    done = enclap("caption", found_by)
    if kind == "link to a folder" and found_by == "set/*":  # it matches the folder that the link leads to
        assert (done.returncode, done.stdout.count("b.wav")) == (0, 2)
    else:
        assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_what_is_left_out_is_said_when_asked(enclap: Run, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_audio(tmp_path / "set" / "b.wav", noise(0.2, 8000), 8000)
    make_special(tmp_path / "set", "pipe")
    (tmp_path / "set" / "c.ts").write_text("export const answer = 42;\n")
    told = enclap("caption", "set", "--verbose").stderr
    assert "info: set/a.wav: left out, not an ordinary file" in told and "info: set/c.ts: left out, a text" in told


TEXTS = {
    "solution": b"\xef\xbb\xbf\r\nMicrosoft Visual Studio Solution File, Format Version 12.00\r\n" * 9,
    "typescript": "import { Größe } from './größe';\n".encode() * 300,
    "latin-1": "Es läutet, sagt der Küster.\n".encode("latin-1") * 5,
    "utf-16": "A text from Windows, größer.\r\n".encode("utf-16"),
    "utf-16 big": b"\xfe\xff" + "A text.\r\n".encode("utf-16-be"),
    "chinese": "狗在叫。\n".encode() * 2000,
    "one word": b"hello",
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_left_out_of_folders(enclap: Run, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_audio(folder / "b.wav", noise(0.2, 8000), 8000)
    for suffix in SHARED_SUFFIXES:
        (folder / f"App{suffix}").write_bytes(TEXTS[text])
        assert is_text(str(folder / f"App{suffix}"))
    for found_by in ("set", "set/*", "**/*"):
        done = enclap("caption", found_by)
        assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, ""), done.stderr
    named = [found.path for found in expand(["set/App.sln", "set/*.sln"]) if isinstance(found, InputFile)]
    assert named == ["set/App.sln"] * 2  # what is named is tried


@pytest.mark.parametrize("suffix", sorted(SHARED_SUFFIXES))
def test_sounds_with_the_endings_of_texts_are_taken(tmp_path: Path, suffix: str) -> None:
    samples = (noise(1.0, 8000)[:, 0] * 32767).astype("<i2").tobytes()
    for content in (samples, bytes(8000), b"\xff" * 8000, b"\x80" * 8000, b"\xd5" * 8000, b"", b"G" + bytes(187)):
        (tmp_path / f"a{suffix}").write_bytes(content)
        assert not is_text(str(tmp_path / f"a{suffix}"))
        assert isinstance(expand([str(tmp_path)])[0], InputFile)


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "output is a link", "folder"])
def test_an_output_that_is_a_recording_is_refused(enclap: Run, recording: Make, tmp_path: Path, kind: str) -> None:
    source, output = recording("a.wav"), tmp_path / "b.txt"
    before = source.read_bytes()
    inputs, outputs = source, str(output)
    if kind == "itself":
        outputs = str(source)
    elif kind == "link":
        inputs = tmp_path / "link.wav"
        inputs.symlink_to("a.wav")
        outputs = str(source)
    elif kind == "hard link":
        os.link(source, output)
    elif kind == "output is a link":
        output.symlink_to(source)
    elif kind == "folder":
        inputs = source.rename(tmp_path / "a.txt")
        outputs = f"{tmp_path}/"
    for more in (("--overwrite",), ("--resume",), (), ("--format", "json", "--overwrite")):
        done = enclap("caption", inputs, "-o", outputs, *more)
        if kind != "folder" or "json" not in more:
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert "is the recording " in done.stderr
    assert inputs.read_bytes() == before


def test_a_plot_is_no_recording_and_no_other_output(enclap: Run, recording: Make, tmp_path: Path) -> None:
    source = recording("a.wav").rename(tmp_path / "a.png")
    before = source.read_bytes()
    for arguments, words in (
        ((source, "--plot", source), "is the recording"),
        ((source, "--plot", "b.svg", "-o", "./b.svg"), "is an output of the captions too"),
        ((source, "--plot", "set.svg"), "is a folder"),
        ((source, "--plot", ""), "must end in"),
    ):
        (tmp_path / "set.svg").mkdir(exist_ok=True)
        done = enclap("caption", *arguments, "--overwrite", "--model", "/nowhere")
        assert (done.returncode, done.stderr.count("\n"), words in done.stderr) == (2, 1, True), done.stderr
    assert source.read_bytes() == before


def test_standard_streams_that_are_one_recording_are_refused(recording: Make) -> None:
    source = recording()
    before = source.read_bytes()
    for arguments in ([str(source)], [str(source), "-o", "/dev/stdout"], ["-", "-o", str(source)]):
        with source.open("ab") as output, source.open("rb") as stdin:
            command = [sys.executable, "-m", "enclap", "caption", *arguments, "--overwrite"]
            done = subprocess.run(command, stdin=stdin, stdout=output, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, "is the recording" in done.stderr) == (2, True), done.stderr
    assert source.read_bytes() == before


def test_one_file_by_two_names_is_no_output_for_two_formats(enclap: Run, recording: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "soft.txt").symlink_to("a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "hard.txt")
    for other in ("./a.txt", "soft.txt", "hard.txt"):
        done = enclap("caption", recording(), "-f", "text,json", "-o", "a.txt", "-o", other, "--overwrite")
        assert (done.returncode, "two cannot share" in done.stderr) == (2, True), done.stderr
    (tmp_path / "both.json").symlink_to("both.txt")
    (tmp_path / "both.txt").touch()
    done = enclap("caption", recording(), "-f", "text,json", "-o", "both", "--overwrite")
    assert (done.returncode, "two cannot share" in done.stderr) == (2, True)
    done = enclap("caption", recording(), "-f", "text,json", "-o", "-", "-o", "/dev/stdout")
    assert (done.returncode, "two cannot share" in done.stderr) == (2, True)


def test_outputs_are_written_through_links(enclap: Run, recording: Make, tmp_path: Path) -> None:
    plain = enclap("caption", recording()).stdout
    (tmp_path / "deep").mkdir()
    for name, target in (("old", "target.txt"), ("new", "deep/new.txt")):
        (tmp_path / f"{name}.txt").symlink_to(target)
    (tmp_path / "target.txt").write_text("old")
    refused = enclap("caption", recording(), "-o", "old.txt")
    assert (refused.returncode, (tmp_path / "target.txt").read_text()) == (2, "old")
    assert enclap("caption", recording(), "-o", "old.txt", "--overwrite").returncode == 0
    assert enclap("caption", recording(), "-o", "new.txt").returncode == 0  # a dangling link has nothing to lose
    assert (tmp_path / "target.txt").read_text() == (tmp_path / "deep" / "new.txt").read_text() == plain
    assert (tmp_path / "old.txt").is_symlink() and (tmp_path / "new.txt").is_symlink()
    shutil.rmtree(tmp_path / "deep")
    done = enclap("caption", recording(), "-o", "new.txt", "--model", "/nowhere")
    assert (done.returncode, "deep does not exist; make it first" in done.stderr) == (2, True), done.stderr


def test_a_run_is_resumed_through_another_name_of_its_output(enclap: Run, recording: Make, tmp_path: Path) -> None:
    paths = [recording("a.wav"), recording("b.wav")]
    (tmp_path / "link.csv").symlink_to("all.csv")
    assert enclap("caption", *paths, "-o", "all.csv", "-f", "csv").returncode == 0
    done = enclap("caption", *paths, "-o", "link.csv", "-f", "csv", "--resume")
    assert done.returncode == 0 and "; 2 done before" in done.stderr, done.stderr
    assert (tmp_path / "link.csv").is_symlink()


def test_standard_output_by_its_path_is_written_and_not_replaced(
    enclap_command: list[str], recording: Make, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/dev/fd/1")
    command = [*enclap_command, "caption", str(recording()), "--overwrite", "-o"]
    piped = subprocess.run([*command, "link"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    log = tmp_path / "log"
    log.write_text("kept\n")
    for output in ("link", "/dev/stdout"):
        with log.open("a") as file:
            subprocess.run([*command, output], cwd=tmp_path, stdout=file, check=True)
    assert log.read_text() == "kept\n" + 2 * piped and piped.count("\n") == 1
    assert (tmp_path / "link").is_symlink() and Path("/dev/stdout").exists()


@pytest.mark.parametrize(
    ("output", "words", "code"),
    [
        ("", "names nothing", 2),
        ("file.txt/", "is a file; name a folder", 2),
        ("file.txt/a.txt", "file.txt is not a folder", 2),
        ("file.txt/deep/", "file.txt is not a folder", 2),
        ("folder.txt", "folder.txt/", 0),
        ("loop.txt", "cannot be written", 3),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(
    enclap: Run, recording: Make, tmp_path: Path, output: str, words: str, code: int
) -> None:
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    before = sorted(tmp_path.rglob("*"))
    for more in ((), ("--overwrite",)):
        done = enclap("caption", recording(), "-o", output, *more, *(["--model", "/nowhere"] if code else []))
        assert done.returncode == code and (words in done.stderr or code == 0), done.stderr
        assert done.stderr.count("\n") == (1 if code else 0)
    if code:
        assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "noise.wav"])
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_a_folder_in_the_way_of_a_file_is_refused_before_any_work(enclap: Run, recording: Make, tmp_path: Path) -> None:
    for folder in ("all.json", "out/noise.json"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "deep").write_text("a file where a folder must be")
    (tmp_path / "set" / "deep").mkdir(parents=True)
    shutil.copy(recording(), tmp_path / "set" / "deep" / "a.wav")
    for arguments, code, words in (
        ((recording(), "-f", "text,json", "-o", "all"), 2, "all.json: is a folder"),
        ((recording(), "-f", "json", "-o", "out/"), 2, "out/noise.json: is a folder"),
        (("set", "-f", "json", "-o", "tree/"), 3, "tree/deep/a.json: cannot be written: Not a directory"),
    ):
        done = enclap("caption", *arguments, "--overwrite", "--model", "/nowhere")
        assert (done.returncode, done.stderr.count("\n"), words in done.stderr) == (code, 1, True), done.stderr


def test_missing_inputs_alone_give_a_complete_document_and_replace_nothing(enclap: Run, tmp_path: Path) -> None:
    done = enclap("caption", "gone.wav", "gone/too.wav", "--format", "json", "--model", "/nowhere")
    assert json.loads(done.stdout) == {"schema": 1, "model": "/nowhere", "results": []}
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    table = enclap("caption", "gone.wav", "-f", "csv", "--model", "/nowhere").stdout
    assert table == "path,start,end,rank,text,score,silence\n"
    (tmp_path / "all.json").write_text("mine")
    for more in ((), ("--overwrite",), ("--resume",)):
        done = enclap("caption", "gone.wav", "-f", "json", "-o", "all.json", *more)
        assert (done.returncode, done.stdout, (tmp_path / "all.json").read_text()) == (1, "", "mine")
    assert enclap("caption", "gone.wav", "-o", "out/").returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.json"]
