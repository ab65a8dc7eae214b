"""`enclap doctor`: a report that always comes, and an exit code that says whether captioning works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cli import Run
from enclap.cli.installation import packages
from enclap.version import __version__


@pytest.mark.train
def test_the_report_holds_what_a_bug_report_needs(enclap: Run) -> None:
    done = enclap("doctor", "--engine", "onnx")
    assert (done.returncode, done.stderr) == (0, "")
    report = sections(done.stdout)
    assert list(report) == ["program", "machine", "packages", "engines", "models", "self-test of mini"]
    assert report["program"]["enclap"].startswith(__version__)
    assert {"numpy", "av", "onnxruntime", "pydantic", "torch", "transformers"} <= set(report["packages"])
    assert report["packages"] == {name: metadata.version(name) for name in report["packages"]}
    assert "CPU" in report["engines"]["onnx"] and "threads" in report["engines"]["torch"]
    assert report["models"]["cache"].endswith("GB free") and "MB in" in report["models"]["mini"]
    shown = report["self-test of mini"]
    stages = ["checksums", "load", "first caption", "of it: reading", "of it: encoders", "of it: sentence"]
    times = [float(shown[stage].removesuffix(" s")) for stage in (*stages, "second caption")]
    assert all(seconds >= 0 for seconds in times) and sum(times[3:6]) <= times[6] + 0.003  # rounded each
    assert shown["result"] == "works" and shown["caption"].endswith("[onnx]")


def sections(report: str) -> dict[str, dict[str, str]]:
    """The report's lines by section and name."""
    found: dict[str, dict[str, str]] = {}
    for line in report.splitlines():
        if line.startswith("  "):
            found[list(found)[-1]][line[2:20].strip()] = line[20:]
        else:
            found[line] = {}
    return found


def test_a_version_outside_the_tested_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "av<20,>=17.1",
        "numpy<3,>=1.26; python_version < '3.0'",  # for another Python: the next line counts
        "numpy<3,>=2.1; python_version >= '3.0'",
        "soxr>=0.5",
        "torch<3,>=2.13; extra == 'train'",
        "gradio<7,>=6; extra == 'serve'",
        "ray<3,>=2.50; extra == 'ray'",
        "pytest>=99; extra == 'dev'",
    ]
    installed = {"av": "20.0.0", "numpy": "2.0.1", "ray": "2.49.0", "soxr": "1.0rc1", "pytest": "8.3"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "requires", lambda _: requirements)
    monkeypatch.setattr(metadata, "version", version)
    assert dict(packages()) == {
        "av": "20.0.0, OUTSIDE the tested <20,>=17.1",
        "numpy": "2.0.1, OUTSIDE the tested <3,>=2.1",
        "soxr": "1.0rc1",
        "torch": "not installed (extra 'train')",
        "ray": "2.49.0, OUTSIDE the tested <3,>=2.50",
    }
    del installed["soxr"]
    assert dict(packages())["soxr"] == "MISSING: install enclap again"


@pytest.mark.train
def test_both_engines_describe_the_clip_alike(enclap: Run) -> None:
    runs = [enclap("doctor", "--engine", engine) for engine in ("onnx", "torch")]
    assert [done.returncode for done in runs] == [0, 0], runs[1].stderr
    texts = {re.search(r"caption +(.*) \[", done.stdout.split("self-test")[1])[1] for done in runs}
    assert len(texts) == 1


@pytest.mark.parametrize("part", ["onnx/decoder.onnx", "config.json", "tokenizer.json"])
def test_a_broken_model_is_exit_code_3_after_the_report(
    enclap: Run, tiny_model: Path, tmp_path: Path, part: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    os.truncate(folder / part, 20)
    done = enclap("doctor", "--model", folder)
    assert done.returncode == 3
    assert done.stderr.startswith("enclap: self-test failed: ModelError: ") and done.stderr.count("\n") == 1
    assert str(folder / part) in done.stderr
    assert done.stdout.splitlines()[-1] == f"self-test of {folder}: FAILED"
    assert "packages" in done.stdout and "onnxruntime" in done.stdout


def test_a_silent_fault_is_found(enclap: Run, tiny_model: Path, tmp_path: Path) -> None:
    """A flipped bit in a graph would change captions, not crash; the checksums tell."""
    from enclap.hub.integrity import write_checksums

    folder = Path(shutil.copytree(tiny_model, tmp_path / "flipped"))
    write_checksums(folder)
    graph = folder / "onnx" / "encoder.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 64
    graph.write_bytes(content)
    done = enclap("doctor", "--model", folder)
    assert done.returncode == 3 and "encoder.onnx: wrong checksum" in done.stderr


def test_captions_that_differ_are_a_failure(enclap: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from enclap.types import Candidate

    sentences = iter(["A dog.", "A cat.", "  ", "  "])
    monkeypatch.setattr("enclap.cli.doctor._caption", lambda *_: Candidate((0, 2), next(sentences), -1.0))
    done = enclap("doctor", "--model", tiny_model)
    assert done.returncode == 3 and "captioned 'A dog.', then 'A cat.'" in done.stderr
    done = enclap("doctor", "--model", tiny_model)
    assert done.returncode == 3 and "the caption of the test clip is empty" in done.stderr


def test_any_fault_of_an_engine_is_a_line(enclap: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("enclap.engines.load_engine", crash)
    monkeypatch.setattr("onnxruntime.get_available_providers", crash)
    done = enclap("doctor", "--model", tiny_model)
    assert (done.returncode, done.stderr) == (3, "enclap: self-test failed: RuntimeError: two lines\n")
    assert "BROKEN: RuntimeError: two lines" in done.stdout


def test_one_broken_section_does_not_end_the_report(enclap: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> None:
        raise RuntimeError("no cache")

    monkeypatch.setattr("enclap.hub.download.cache_folder", crash)
    done = enclap("doctor", "--engine", "onnx")
    report = sections(done.stdout)
    assert report["models"]["BROKEN"] == "RuntimeError: no cache"
    assert done.returncode == 0 and report["self-test of mini"]["result"] == "works"


def test_nothing_is_fetched(enclap: Run) -> None:
    done = enclap("doctor", "--model", "someone/absent")
    assert done.returncode == 3
    assert "not on this machine yet; fetch it with `enclap models pull someone/absent`" in done.stderr


def test_it_works_without_the_train_extra(tmp_path: Path) -> None:
    """PyTorch and its companions hidden from a process of its own."""
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util, importlib.metadata\n"
        "HIDDEN = {'torch', 'transformers', 'safetensors', 'onnx'}\n"
        "find, version = importlib.util.find_spec, importlib.metadata.version\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in HIDDEN else find(name, *rest)\n"
        "def shown(name):\n"
        "    if name in HIDDEN:\n"
        "        raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "importlib.metadata.version = shown\n"
        "import sys\n"
        "sys.modules.update({name: None for name in HIDDEN})\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "enclap.cli.main", "doctor"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not installed: pip install 'enclap[train]'" in done.stdout and "result            works" in done.stdout


def test_no_secret_is_shown(enclap: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = enclap("doctor", "--engine", "onnx")
    assert "HF_HUB_OFFLINE" in done.stdout and "verysecret" not in done.stdout + done.stderr
