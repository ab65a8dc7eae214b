"""`enclap evaluate` and `enclap metrics download`, with a stand-in for Java."""

from __future__ import annotations

import csv
import hashlib
import http.server
import json
import os
import shlex
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from cli import Done, Run
from enclap.errors import EnvironmentFault, UsageError
from enclap.evaluation.captioning import downloads, spice
from enclap.evaluation.captioning.evaluate import METRICS
from enclap.evaluation.captioning.java import find_java
from stand_in_java import StandIn, corenlp_archive

PREDICTIONS = {"a.wav": "a dog barks", "b.wav": "rain falls on a roof", "c.wav": "a man speaks"}
REFERENCES = {
    "a.wav": ("a dog is barking", "a dog barks loudly"),
    "b.wav": ("rain is falling", "rain falls on a tin roof"),
    "c.wav": ("a woman speaks", "someone is talking"),
}


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """No model: captions of any system are evaluated without PyTorch, and these tests run without it."""
    return Path("no-model")


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path / "stand-in", monkeypatch)


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """The options that name tables of predictions and references."""
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *PREDICTIONS.items()])
    with (tmp_path / "r.csv").open("w", newline="") as file:
        labels = ("dog barking", "rain", "man speaking;rain")
        rows = [(clip, *texts, label) for (clip, texts), label in zip(REFERENCES.items(), labels, strict=True)]
        csv.writer(file).writerows([("path", "reference_1", "reference_2", "labels"), *rows])
    return ["--predictions", "p.csv", "--references", "r.csv", "--resamples", "50"]


def spice_scores() -> dict[tuple[str, tuple[str, ...]], float]:
    return {(text, REFERENCES[clip]): 0.1 * number for number, (clip, text) in enumerate(PREDICTIONS.items())}


def scores(folder: Path) -> dict[str, dict[str, float]]:
    table = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert table["schema"] == 1
    found: dict[str, dict[str, float]] = table["metrics"]
    return found


def reasons(done: Done) -> dict[str, str]:
    lines = [line.removeprefix("not computed: ") for line in done.stderr.splitlines() if "not computed: " in line]
    return dict(line.split(": ", 1) for line in lines)


def test_the_folder_holds_scores_and_all_that_is_needed_to_compute_them_again(
    enclap: Run, java: StandIn, tables: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java.install_spice(spice_scores())
    done = enclap("evaluate", *tables, "--compare", "p.csv", "--output", "report")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "report").iterdir()}
    expected = {"scores.json", "clips.csv", "report.md", "predictions.csv", "references.csv", "scores.svg", "clips.svg"}
    assert names == expected | {"compared.csv"}
    found = scores(tmp_path / "report")
    assert list(found) == [name for name in METRICS if name in found]
    assert {"bleu_1", "bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider"} <= set(found)
    assert found["spice"]["value"] == pytest.approx(0.1)
    assert found["spider"]["value"] == pytest.approx((found["cider_d"]["value"] + 0.1) / 2)
    report = (tmp_path / "report" / "report.md").read_text()
    assert all(name in report for name in ("shuffled", "silence", "constant", "human", "](scores.svg)"))
    with (tmp_path / "report" / "clips.csv").open() as file:
        clips = list(csv.DictReader(file))
    assert [float(clip["spice"]) for clip in clips] == [0.0, 0.1, 0.2]
    [command] = [line.strip() for line in report.splitlines() if line.startswith("    enclap evaluate ")]
    monkeypatch.chdir(tmp_path / "report")
    assert enclap(*shlex.split(command)[1:], "--output", "../again").returncode == 0
    first, second = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("report", "again"))
    del first["source"], second["source"]
    assert first == second and "sound_named" in found


@pytest.mark.parametrize(
    ("tool", "gone"),
    [
        ("tokenizer", {"bleu_1", "rouge_l", "meteor", "cider_d", "spice", "spider"}),
        ("meteor", {"meteor"}),
        ("spice", {"spice", "spider"}),
    ],
)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("crash", 'Java ended with exit code 1 (Exception in thread "main" java.lang.OutOfMemoryError'),
        ("hang", "Java gave no answer in 2 s and was ended; allow more with --time-limit"),
        ("garbage", ""),
    ],
)
def test_a_java_that_fails_costs_its_metrics_alone(
    enclap: Run, java: StandIn, tables: list[str], tool: str, gone: set[str], fault: str, reason: str
) -> None:
    java.install_spice(spice_scores())
    java.fail(**{tool: fault})
    limit = "2" if fault == "hang" else "60"
    done = enclap("evaluate", *tables, "--time-limit", limit, "--comparison-clips", "0")
    assert done.returncode == 0
    found = reasons(done)
    assert gone <= set(found)
    assert all(reason in found[name] for name in gone)
    metrics = {line.split()[0] for line in done.stdout.splitlines()}
    assert "words" in metrics and not gone & metrics
    assert ("bleu_1" in metrics) == ("bleu_1" not in gone)


def link_parser(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link-parser before all others on the path."""
    path = folder / "bin" / "link-parser"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; open('started', 'w').close(); time.sleep(600)", "gave no answer in 5 s and was ended"),
        ("raise SystemExit('no dictionary')", "link-parser ended with exit code 1 (no dictionary)"),
        ("print('nothing')", "link-parser gave 0 answers for 3 sentences"),
    ],
)
def test_a_link_parser_that_fails_costs_its_metric_alone(
    enclap: Run,
    java: StandIn,
    tables: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    reason: str,
) -> None:
    link_parser(tmp_path, program, monkeypatch)
    limit = "5" if "sleep" in program else "60"  # seconds that a busy machine needs for less than one
    done = enclap("evaluate", *tables, "--time-limit", limit, "--comparison-clips", "0")
    assert done.returncode == 0
    assert reason in reasons(done)["ungrammatical"]
    assert "bleu_1" in done.stdout and "ungrammatical" not in done.stdout
    running = subprocess.run(["pgrep", "-f", str(tmp_path / "bin" / "link-parser")], capture_output=True)
    assert running.stdout == b"", "nothing is left running"


def test_link_parsers_verdict_is_a_score_of_each_caption(
    enclap: Run, java: StandIn, tables: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = (
        "import sys\nfor line in sys.stdin: print('No complete linkages' if 'rain' in line else 'Found 1 linkage')"
    )
    link_parser(tmp_path, verdicts, monkeypatch)
    enclap("evaluate", *tables, "--comparison-clips", "0", "-o", "report")
    with (tmp_path / "report" / "clips.csv").open() as file:
        assert [row["ungrammatical"] for row in csv.DictReader(file)] == ["0.0", "1.0", "0.0"]


def test_without_java_or_with_a_wrong_one_the_remedy_is_named(
    enclap: Run, java: StandIn, tables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    java.say_version("1.8.0_392")
    assert find_java().major == 8
    java.say_version("25.0.1")
    done = enclap("evaluate", *tables)
    assert "Java 25; install Java 8 to 21 (Debian: apt install openjdk-17-jre-headless)" in reasons(done)["bleu_1"]
    monkeypatch.setenv("JAVA_HOME", "nowhere")
    done = enclap("evaluate", *tables, "--tokenizer", "none")
    assert "Java is missing in JAVA_HOME" in reasons(done)["meteor"]
    assert "bleu_1" in done.stdout and "meteor" not in done.stdout
    done = enclap("evaluate", *tables, "--require", "meteor", "--tokenizer", "none")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "enclap: not computed, but asked for: meteor"


def test_without_pycocoevalcap_the_extra_is_named(
    enclap: Run, tables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = enclap("evaluate", *tables)
    assert done.returncode == 0 and "words" in done.stdout
    assert "pip install 'enclap[eval]'" in reasons(done)["bleu_1"]


def test_captions_of_any_system_are_evaluated_without_pytorch(java: StandIn, tables: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'safetensors']));"
        "from enclap.cli.main import main; main()"
    )
    models = ["--sentence-model", ".", "--fluency-model", "."]
    command = [sys.executable, "-c", program, "evaluate", *tables, *models, "--comparison-clips", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "bleu_1" in done.stdout, done.stderr
    assert "not computed: fense" in done.stderr


def test_two_systems_are_compared_on_the_same_clips(
    enclap: Run, java: StandIn, tables: list[str], tmp_path: Path
) -> None:
    (tmp_path / "worse.csv").write_text("path,caption\n" + "".join(f"{clip},nothing here\n" for clip in PREDICTIONS))
    done = enclap("evaluate", *tables, "--compare", "worse.csv", "-o", "report", "--comparison-clips", "0")
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert table["difference"]["rouge_l"]["low"] > 0.0
    assert table["rows"]["compared"]["rouge_l"]["value"] == 0.0
    assert "difference in rouge_l" in done.stdout
    assert (tmp_path / "report" / "compared.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "p.csv"], "give --predictions FILE and --references FILE, or --model NAME"),
        (["--predictions", "p.csv", "--references", "r.csv", "--require", "blue"], "blue: not a metric; choose from"),
        (["--predictions", "p.csv", "--references", "r.csv", "-o", "full"], "full: exists already"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_computed(
    enclap: Run, tables: list[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = enclap("evaluate", *arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_spice_names_what_is_missing(java: StandIn, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="run `enclap metrics download`"):
        spice.spice_command(find_java(), java.corenlp)
    java.install_spice({})
    (java.corenlp / spice.RHINO_JARS[0]).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spice, "RHINO_FOLDERS", ())
        with pytest.raises(EnvironmentFault, match="apt install librhino-java"):
            spice.spice_command(find_java(), java.corenlp)
        java.say_version("1.8.0_392")  # which has an engine of its own, and no modules to open
        assert not [part for part in spice.spice_command(find_java(), java.corenlp) if "--add-opens" in part]
    (java.corenlp / downloads.CORENLP_JARS[1]).write_bytes(b"other bytes")
    with pytest.raises(EnvironmentFault, match="has the wrong hash"):
        spice.spice_command(find_java(), java.corenlp)


def test_corenlp_is_fetched_once_its_licence_shown_and_its_hash_locked(
    enclap: Run, java: StandIn, tmp_path: Path
) -> None:
    archive = corenlp_archive(tmp_path)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/corenlp.zip"
        refused = enclap("metrics", "download", "--source", address)
        wrong = enclap("metrics", "download", "--source", address, "--yes", "--sha256", "0" * 64)
        missing = enclap("metrics", "download", "--source", f"{address}x", "--yes")
        done = enclap("metrics", "download", "--source", address, "--yes", "--sha256", digest)
        again = enclap("metrics", "download", "--source", address, "--yes")
        server.shutdown()
    assert refused.returncode == 2 and "GNU General Public License" in refused.stderr and "--yes" in refused.stderr
    assert wrong.returncode == 3 and f"has SHA-256 {digest}, not 000" in wrong.stderr
    assert missing.returncode == 3 and "cannot be fetched" in missing.stderr
    assert done.returncode == 0 and done.stdout == f"{java.corenlp}\n"
    assert again.returncode == 2 and "exists already" in again.stderr
    downloads.check_corenlp(java.corenlp)
    assert json.loads((java.corenlp / downloads.LOCK).read_text())["archive"] == digest


def test_nothing_is_installed_unless_the_hash_is_confirmed(tmp_path: Path) -> None:
    seen: list[str] = []

    def refuse(found: str) -> bool:
        seen.append(found)
        return False

    with pytest.raises(UsageError, match="nothing was installed"):
        downloads.install_corenlp(str(corenlp_archive(tmp_path)), tmp_path / "jars", None, refuse)
    assert len(seen[0]) == 64 and not (tmp_path / "jars").exists()
    (tmp_path / "other.zip").write_bytes(b"no archive")
    with pytest.raises(EnvironmentFault, match="is not CoreNLP's archive"):
        downloads.install_corenlp(str(tmp_path / "other.zip"), tmp_path / "jars", None, lambda found: True)
    assert not (tmp_path / "jars").exists()
