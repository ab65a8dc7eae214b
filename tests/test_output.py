"""Where captions go: several formats, trees, existing files, and what stands beside them afterwards."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import Run, written
from enclap.captioner import Captioner
from enclap.cli.choices import chosen_formats, complete_formats
from enclap.errors import AudioNotFound, UsageError
from enclap.output.formats import FORMATS
from enclap.output.inputs import InputFile, expand
from enclap.output.plan import make_plan
from enclap.text import printable
from sounds import noise, write_audio


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A folder with recordings at two depths, two of which differ in their ending alone."""
    folder = tmp_path / "set"
    for number, name in enumerate(("dog.wav", "dog.flac", "deep/er/cat.wav")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_audio(folder / name, noise(0.3, seed=number), 16_000, codec="flac" if "flac" in name else None)
    return folder


def test_a_folder_mirrors_the_input_in_every_format(enclap: Run, collection: Path, tmp_path: Path) -> None:
    done = enclap("caption", collection, "--format", "text,json", "-f", "vtt", "--output", "out/")
    assert (done.returncode, done.stdout) == (0, "")
    stems = ("deep/er/cat", "dog", "dog.wav")  # dog.flac comes first and takes the short name
    assert written(tmp_path / "out") == sorted(f"{stem}{end}" for stem in stems for end in (".json", ".txt", ".vtt"))
    assert json.loads((tmp_path / "out/dog.wav.json").read_text())["results"][0]["path"].endswith("dog.wav")


def test_folders_and_globs_keep_their_shape(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mirrors(*paths: str) -> list[str]:
        return sorted(found.mirror for found in expand(paths) if isinstance(found, InputFile))

    monkeypatch.chdir(collection)
    shallow = ["dog.flac", "dog.wav"]
    assert mirrors(".") == mirrors(str(collection)) == mirrors("**") == ["deep/er/cat.wav", *shallow]
    assert mirrors("deep", ".") == ["deep/er/cat.wav", *(f"set/{name}" for name in ["deep/er/cat.wav", *shallow])]
    assert mirrors("deep/er/..", "deep/er/cat.wav") == ["cat.wav", "er/cat.wav"]
    assert mirrors("de*") == mirrors("d*p/**/*.wav") == mirrors(f"{collection}/**/e*/*") == ["deep/er/cat.wav"]
    assert mirrors("**/c*") == mirrors("d***p") == ["deep/er/cat.wav"]
    assert mirrors("*.wav") == ["dog.wav"]


def test_links_that_form_loops_end(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):  # with three loops a walk that follows links would have 3 ** 40 folders to see
        (collection / f"loop{number}").symlink_to(collection, target_is_directory=True)
    (collection / "self.wav").symlink_to("self.wav")
    monkeypatch.chdir(collection)
    found = [recording.path for recording in expand(["**/*.wav", "."]) if isinstance(recording, InputFile)]
    assert found == ["deep/er/cat.wav", "dog.wav", "self.wav", "deep/er/cat.wav", "dog.flac", "dog.wav", "self.wav"]


def test_a_link_to_itself_is_named_and_the_others_are_captioned(enclap: Run, collection: Path) -> None:
    (collection / "self.wav").symlink_to("self.wav")
    done = enclap("caption", collection)
    assert (done.returncode, done.stdout.count("\n")) == (1, 3)
    assert done.stderr.splitlines()[0].startswith(f"enclap: {collection}/self.wav: cannot be opened: ")


def test_one_name_for_several_formats_gets_their_suffixes(enclap: Run, collection: Path, tmp_path: Path) -> None:
    assert enclap("caption", collection, "--format", "csv,jsonl", "-o", "all.csv").returncode == 0
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [line["path"] for line in lines]
    assert [row["text"] for row in rows] == [printable(line["captions"][0]["text"]) for line in lines]


def test_each_format_may_have_a_place_of_its_own(enclap: Run, collection: Path, tmp_path: Path) -> None:
    places = ("--format", "json,text", "--output", "all.json", "--output", "-")
    done = enclap("caption", collection, *places)
    assert done.returncode == 0
    assert done.stdout.count("\n") == len(json.loads((tmp_path / "all.json").read_text())["results"]) == 3


def test_a_format_alone_and_among_others_is_the_same(enclap: Run, collection: Path, tmp_path: Path) -> None:
    document = collection / "dog.wav"
    assert enclap("caption", document, "--format", ",".join(FORMATS), "-o", "both").returncode == 0
    for style, form in FORMATS.items():
        assert (tmp_path / f"both{form.suffix}").read_text() == enclap("caption", document, "-f", style).stdout


def test_a_program_can_write_the_bytes_of_the_command_line(
    enclap: Run, collection: Path, tiny_model: Path, tmp_path: Path
) -> None:
    captioner = Captioner.from_pretrained(tiny_model)
    path = str(collection / "dog.wav")
    result = captioner.caption(path)
    assert captioner.folder == tiny_model
    assert enclap("caption", path, "--format", ",".join(FORMATS), "-o", "all").returncode == 0
    for form in FORMATS.values():
        written_by_us = b"".join(form.encoded([result], captioner.model))
        assert (tmp_path / f"all{form.suffix}").read_bytes() == written_by_us


TWO = (InputFile("a.wav", "a.wav"), InputFile("b.wav", "b.wav"))


@pytest.mark.parametrize(
    ("styles", "outputs", "words"),
    [
        ("text,json", [], "needs an output for each"),
        ("text,json", ["-"], "needs an output for each"),
        ("text,json", ["-", "-"], "two cannot share"),
        ("text,json", ["a", "b", "c"], "needs an output for each"),
        ("text", ["a", "b"], "needs an output for each"),
        ("text,json", ["a.txt", "b/"], "a folder takes all formats"),
        ("text,vtt", ["a"], "describes one recording, these are 2"),
        ("srt", ["-"], "describes one recording, these are 2"),
    ],
)
def test_places_that_do_not_suffice_are_refused(styles: str, outputs: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_plan(chosen_formats([styles]), outputs, TWO)


def test_names_in_a_folder_never_collide() -> None:
    found = ["a.wav", "A.mp3", "a.mp3", "a.mp3", "x/a.wav", "a", "a.mp3-2.wav"]
    inputs = [AudioNotFound("gone"), *(InputFile(name, name) for name in found)]
    names = make_plan(("text",), ["out/"], inputs).names
    assert names[:5] == (None, "a", "A.mp3", "a.mp3-2", "a.mp3-3")
    assert len({name.casefold() for name in names if name}) == len(found)


def test_formats_complete_after_a_comma() -> None:
    assert complete_formats("text,js") == ["text,json", "text,jsonl"]
    assert complete_formats("s") == ["srt"]


def test_what_is_there_is_replaced_only_when_asked(enclap: Run, collection: Path, tmp_path: Path) -> None:
    mine = {tmp_path / "notes.txt": [], tmp_path / "out" / "dog.txt": ["out/"]}
    (tmp_path / "out").mkdir()
    for path, output in mine.items():
        path.write_text("mine")
        where = ("-o", *(output or [path.name]))
        for more in ((), ("--resume",)):
            refused = enclap("caption", collection, *where, *more, "--model", "/nowhere")  # it is not even looked for
            assert refused.returncode == 2
            assert "dog.txt: exists; " in refused.stderr or "notes.txt: exists; " in refused.stderr
            assert path.read_text() == "mine"
        assert enclap("caption", collection, *where, "--overwrite").returncode == 0
        assert path.read_text() != "mine"
    assert enclap("caption", collection / "dog.wav", "-o", "notes.txt").returncode == 2


def test_devices_are_written_to_and_stay_devices(enclap: Run, collection: Path, tmp_path: Path) -> None:
    assert enclap("caption", collection, "-o", os.devnull).returncode == 0
    assert not Path(os.devnull).is_file()
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert enclap("caption", collection, "-o", pipe).returncode == 0
    reader.join()
    assert read[0].count("\n") == 3
    assert written(tmp_path) == sorted(f"set/{name}" for name in ("dog.wav", "dog.flac", "deep/er/cat.wav"))


def test_a_reader_of_standard_output_may_leave_the_files_go_on(
    enclap_command: list[str], collection: Path, tmp_path: Path
) -> None:
    line = f"{' '.join(enclap_command)} caption {collection} --format text,json -o - -o all.json | head -c 1"
    command = ["bash", "-o", "pipefail", "-c", line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "all.json").read_text())["results"]) == 3


def test_a_summary_counts_files_hours_and_failures(
    enclap: Run, collection: Path, recording: Callable[..., Path]
) -> None:
    (collection / "broken.wav").write_text("no sound")
    done = enclap("caption", collection, recording("long.wav", seconds=36.0), "missing.wav")
    assert done.returncode == 1
    *_, summary = done.stderr.splitlines()
    assert summary.startswith("enclap: 4 files captioned, 0.0103 hours of audio in ")
    assert summary.endswith(" times real time; 2 failed")
    assert "captioned, " not in enclap("caption", collection, "--quiet").stderr


def test_verbose_tells_of_every_recording(enclap: Run, collection: Path) -> None:
    done = enclap("caption", collection, "--verbose")
    assert "info: " in done.stderr and "onnx engine" in done.stderr
    assert f"info: {collection}/dog.wav: captioned, 0.3 s of audio" in done.stderr
    assert enclap("caption", collection, "--verbose", "--quiet").returncode == 2


def test_sampling_has_a_seed(enclap: Run, recording: Callable[..., Path]) -> None:
    path = recording(seconds=4.0)
    arguments = ("caption", path, "--format", "csv", "--sample", "--candidates", "3", "--window", "2")
    draws = [enclap(*arguments, "--seed", str(seed)).stdout for seed in (0, 1, 1)]
    assert draws[1] == draws[2] != draws[0]
    assert draws[0] == enclap(*arguments).stdout
    assert draws[0].count("\n") == 1 + 2 * 3
    for wrong in (["--seed", "1"], ["--sample", "--beams", "2"]):
        assert enclap("caption", path, *wrong).returncode == 2
