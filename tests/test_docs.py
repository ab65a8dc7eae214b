"""The documents are true: commands run, links lead somewhere, tables match the code, figures are measured."""

from __future__ import annotations

import html
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import enclap.errors
from enclap.captioner import caption_plainly
from enclap.decoding.options import DecodingOptions
from enclap.output.formats import FORMATS
from enclap.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "enclap"
DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples"
UNTRACKED = {".git", ".venv", "build", "dist", "__pycache__", ".cache", ".hypothesis"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".csv", ".cfg", ""}
LONGEST_FILE = 500  # lines
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "|".join(["work", "root", "home", "Users"]) + r")/\w")
ENCLAP = Path(sys.executable).with_name("enclap")
NOT_RUN = {
    "official": "needs the authors' weights from the Hub",
    "models convert": "needs a checkpoint",
    "models export": "needs a model folder whose graphs may be written again",
    "build/mini/model": "needs a finished training",
    "enclap finetune": "takes a minute; tests/test_learning.py runs it",
    "mymodel": "needs a model that was fine-tuned",
    "enclap extract": "needs a data set; tests/test_extraction.py runs it",
    "enclap train": "needs features; tests/test_training_start.py runs it",
    "doctor": "is run by test_doctor.py",
}
"""What is in a command of the documents that is not run here, and why."""


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


def console_blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Command and output of each block that shows a terminal."""
    for block in code_blocks(document, "console"):
        command, _, output = block.partition("\n")
        assert command.startswith("$ "), "a console block has a command after $, then its output"
        yield command.removeprefix("$ "), output


def shell_lines(program: str) -> list[str]:
    """Every line of a shell block in a document that runs `program`, each once."""
    blocks = [block for document in documents() for block in code_blocks(document, "sh")]
    blocks += [command for document in documents() for command, _ in console_blocks(document)]
    lines = [line for block in blocks for line in block.splitlines() if line.split()[:1] == [program]]
    return list(dict.fromkeys(lines))


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
        shown = help_of(*(words[1:3] if words[1] == "models" else words[1:2]))
        assert [option for option in options if option not in shown] == [], line
    prose = set(re.findall(r"`(--[a-z-]+)", (DOCS / "formats.md").read_text(encoding="utf-8")))
    assert [option for option in prose if option not in help_of("caption")] == []


def runnable_lines() -> list[str]:
    """The commands that can run offline, without those whose output is compared as well."""
    compared = [command for command, _ in console_blocks(README)]
    lines = [line for line in shell_lines("enclap") if line not in compared]
    return [line for line in lines if not any(name in line for name in NOT_RUN)]


@pytest.mark.parametrize("line", runnable_lines())
def test_the_commands_of_the_documents_run(line: str, tmp_path: Path) -> None:
    arrange_recordings(tmp_path)
    result = run_shell(line, tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_commands_that_are_not_run_are_still_there() -> None:
    lines = "\n".join(shell_lines("enclap"))
    assert [name for name in NOT_RUN if name not in lines] == []


@pytest.mark.parametrize(("command", "output"), list(console_blocks(README)))
def test_the_readme_shows_what_its_commands_print(command: str, output: str, tmp_path: Path) -> None:
    arrange_recordings(tmp_path)
    result = run_shell(command, tmp_path)
    assert result.stdout.rstrip() == output.rstrip(), result.stderr


def test_the_readme_shows_what_its_python_prints(tmp_path: Path) -> None:
    arrange_recordings(tmp_path)
    (program,) = code_blocks(README, "python")
    (output,) = code_blocks(README, "text")
    assert run_python(program, tmp_path) == output


def test_the_python_of_the_guide_runs(tmp_path: Path) -> None:
    arrange_recordings(tmp_path)
    printed = run_python("\n".join(code_blocks(DOCS / "python.md", "python")), tmp_path)
    assert "failed: missing.wav" in printed


def test_the_picture_shows_what_the_command_prints(tmp_path: Path) -> None:
    """After a change of mini's captions: `python benchmarks/terminal_picture.py`."""
    arrange_recordings(tmp_path)
    picture = (DOCS / "images" / "terminal.svg").read_text(encoding="utf-8")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", ""), "a picture fetches nothing"
    shown = " ".join(html.unescape(text) for text in re.findall(r"<text class=\"terminal-r.*?>(.*?)</text>", picture))
    command = "enclap caption examples"
    assert shown.split() == ["$", *command.split(), *run_shell(command, tmp_path).stdout.split()]


def test_the_readme_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 149
    rows = re.findall(r"^\| .*", text, re.MULTILINE)
    assert len(rows) - 2 <= 10, "one table of at most ten rows below its two lines of heading"


def test_the_architecture_shows_the_plain_route_whole() -> None:
    assert inspect.getsource(caption_plainly) in code_blocks(ARCHITECTURE, "python")


def test_the_architecture_names_every_package() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    table = text.partition("| package |")[2].partition("\n\n")[0]
    named_there = set(re.findall(r"`(\w+(?:/|\.py))`", "\n".join(row.split("|")[1] for row in table.splitlines()[2:])))
    here = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir()}
    assert named_there == here - {"__init__.py", "__pycache__/", "py.typed"}


def test_the_architecture_names_files_that_exist() -> None:
    text = re.sub(r"^```.*?^```", "", ARCHITECTURE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    paths = set(re.findall(r"`([\w-]+(?:/[\w.-]*)+|\w+\.(?:py|md))`", text))
    assert len(paths) > 50
    assert [path for path in paths if not (PACKAGE / path).exists() and not (ROOT / path).exists()] == []


def test_the_files_of_each_change_are_counted_right() -> None:
    rows = re.findall(
        r"^\| (an? .*?) \| (.*) \| ([\d to]+) \|$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 10
    for change, files, count in rows:
        required, _, optional = files.partition("; ")
        fewest, most = (int(number) for number in (count.split(" to ") * 2)[:2])
        assert file_count(required) == fewest and file_count(files) == most, f"{change}: {files} are not {count}"
        assert (fewest == most) is (not optional), change


def file_count(cell: str) -> int:
    return len(re.findall(r"a new file in `|`[\w/]+\.(?:py|md)`|a file in `recipes", cell))


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    configuration = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(re.findall(r'= "([\w/-]+\.md)"', configuration)) == pages
    assert tomllib.loads(configuration)["project"]["theme"]["font"] is False, "no page fetches fonts"
    for page in pages:
        assert not re.search(r"^```(mermaid|pyodide)", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE), page


def test_every_decision_is_in_the_list() -> None:
    folder = DOCS / "decisions"
    titles = {path.name: path.read_text(encoding="utf-8").splitlines()[0] for path in folder.glob("0*.md")}
    listed = re.findall(r"^\| \[(\d+)\]\(([\w-]+\.md)\) \| (.*) \|$", (folder / "index.md").read_text(), re.MULTILINE)
    assert {name: f"# {number}. {title}" for number, name, title in listed} == titles


def test_the_reference_names_what_exists() -> None:
    names = [
        name for page in DOCS.rglob("*.md") for name in re.findall(r"^::: ([\w.]+)", page.read_text(), re.MULTILINE)
    ]
    assert len(names) > 10
    assert [name for name in names if not is_defined(name)] == []


def is_defined(name: str) -> bool:
    """Whether the dotted name is a module, or is defined at the top of one; nothing is imported."""
    path = ROOT / "src" / name.replace(".", "/")
    if path.with_suffix(".py").exists():
        return True
    module, _, last = name.rpartition(".")
    path = ROOT / "src" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return re.search(rf"^(?:class|def) {last}\b", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_the_table_of_errors_is_that_of_the_code() -> None:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    written = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)}
    kinds = [value for value in vars(enclap.errors).values() if isinstance(value, type)]
    assert written == {kind.__name__: kind.exit_code for kind in kinds if issubclass(kind, Exception)}


def test_the_table_of_formats_is_that_of_the_code() -> None:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(FORMATS)


def test_the_decoding_options_are_written_with_their_defaults() -> None:
    fields = DecodingOptions.model_fields.items()
    signature = f"DecodingOptions({', '.join(f'{name}={field.default!r}' for name, field in fields)})"
    assert signature in " ".join((DOCS / "python.md").read_text(encoding="utf-8").split())


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
    """The recordings that the documents name; what is in a file counts, not what it is called."""
    shutil.copytree(EXAMPLES, folder / "examples")
    for name, source in {
        "bell.wav": "fire.wav",
        "engine.mp3": "engine.mp3",
        "long_scene.mp3": "long_scene.mp3",
        "recordings/one.wav": "fire.wav",
        "recordings/two.flac": "telephone.flac",
        "more/film.mp4": "siren.ogg",
        "walk.m4a": "long_scene.mp3",
        "dog.wav": "fire.wav",
        "doorbell.mp3": "fire.wav",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / source, folder / name)


@cache
def help_of(*command: str) -> str:
    return run_shell(f"enclap {shlex.join(command)} --help", ROOT).stdout


def run_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The line in a shell that finds the `enclap` of this environment."""
    path = os.pathsep.join([str(ENCLAP.parent), os.environ["PATH"]])
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "PATH": path}
    command = ["sh", "-c", line]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run_python(program: str, folder: Path) -> str:
    """What the program prints."""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
