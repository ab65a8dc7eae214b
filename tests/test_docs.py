"""The documents are true: commands run, links lead somewhere, tables match the code, figures are measured."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import enclap.errors
from enclap.decoding.options import DecodingOptions
from enclap.output.formats import FORMATS
from enclap.version import __version__

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
UNTRACKED = {".git", ".venv", "build", "dist", "__pycache__", ".cache", ".hypothesis"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".csv", ".cfg", ""}
LONGEST_FILE = 500  # lines
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "|".join(["work", "root", "home", "Users"]) + r")/\w")
ENCLAP = Path(sys.executable).with_name("enclap")


def tree() -> Iterator[Path]:
    """Every file of the project, without what is built, installed or cached."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in UNTRACKED and not name.endswith(("_cache", ".egg-info"))]
        yield from (Path(folder, name) for name in names if name not in UNTRACKED)  # in a worktree .git is a file


def documents() -> list[Path]:
    return sorted(path for path in tree() if path.suffix == ".md")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def shell_lines(program: str) -> list[str]:
    """Every line of a shell block in a document that runs `program`."""
    blocks = [block for document in documents() for block in code_blocks(document, "sh")]
    return [line for block in blocks for line in block.splitlines() if line.split()[:1] == [program]]


@pytest.mark.parametrize("document", documents(), ids=named)
def test_links_into_the_project_lead_to_files(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = {line.split()[1] for line in shell_lines("make")}
    for document in documents():
        mentioned |= set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8")))
    assert {"demo", "test", "test-shared", "mini"} <= mentioned
    assert mentioned <= targets


def test_every_command_and_option_in_the_documents_is_in_the_help() -> None:
    lines = shell_lines("enclap")
    assert lines
    for line in lines:
        words, options = shlex.split(line), re.findall(r"(?<=\s)--[a-z-]+", line)
        command = words[1:3] if words[1] == "models" else words[1:2]
        shown = run_enclap(*command, "--help", cwd=ROOT).stdout
        assert [option for option in options if option not in shown] == [], line
    prose = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")))
    shown = run_enclap("caption", "--help", cwd=ROOT).stdout
    assert [option for option in prose if option not in shown] == []


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    arrange_recordings(tmp_path)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    lines = [line for block in code_blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    for line in (line for line in lines if line.startswith("enclap ")):
        result = run_enclap(*shlex.split(line)[1:], cwd=tmp_path)
        assert result.returncode == 0, f"{line}\n{result.stderr}"
    assert "-->" in (tmp_path / "walk.srt").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    arrange_recordings(tmp_path)
    (program,) = code_blocks(ROOT / "README.md", "python")
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_the_table_of_errors_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    written = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}
    kinds = [value for value in vars(enclap.errors).values() if isinstance(value, type)]
    assert written == {kind.__name__: kind.exit_code for kind in kinds if issubclass(kind, Exception)}


def test_the_table_of_formats_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(FORMATS)


def test_the_decoding_options_are_written_with_their_defaults() -> None:
    fields = DecodingOptions.model_fields.items()
    signature = f"DecodingOptions({', '.join(f'{name}={field.default!r}' for name, field in fields)})"
    assert signature in " ".join((ROOT / "docs" / "python.md").read_text(encoding="utf-8").split())


def test_the_figures_in_the_documents_are_the_measured_ones() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "report.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_path_of_one_machine_stands_in_the_tree() -> None:
    found = []
    for path in tree():
        if path.suffix in TEXT_SUFFIXES:
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{named(path)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_no_file_is_longer_than_one_can_read() -> None:
    written = [path for path in tree() if path.suffix in (".py", ".md", ".yaml") or path.name in ("Makefile", "run")]
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in written}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_licence_and_changelog_are_there_and_current() -> None:
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def arrange_recordings(folder: Path) -> None:
    """The recordings that the README's examples name; what is in a file counts, not what it is called."""
    for name, source in {
        "recordings/one.wav": "bell.wav",
        "recordings/two.flac": "footsteps.flac",
        "more/film.mp4": "bird.ogg",
        "walk.m4a": "long_scene.mp3",
        "dog.wav": "bell.wav",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / source, folder / name)


def run_enclap(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    command = [str(ENCLAP), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
