"""A `java` that stands in for the real one: it tokenises, counts matches and replays SPICE's own output format.

Its METEOR is none: matched words over words. Tests that hold scores to published ones run the real jar.
"""

from __future__ import annotations

import json
import stat
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from enclap.evaluation.captioning import downloads, spice

PROGRAM = r"""
import json, os, re, sys, time

arguments, faults = sys.argv[1:], json.loads(os.environ.get("STAND_IN_FAULTS", "{}"))

def fail(tool):
    fault = faults.get(tool)
    if fault == "crash":
        sys.exit('Exception in thread "main" java.lang.OutOfMemoryError: Java heap space')
    if fault == "hang":
        time.sleep(600)
    return fault == "garbage"

def tokenizer():
    wrong = fail("tokenizer")
    for line in sys.stdin:
        if not wrong:
            print(" ".join(re.findall(r"[\w'-]+|[^\w\s]", line.lower())))

def meteor():
    wrong = fail("meteor")
    for line in sys.stdin:
        kind, *parts = line.rstrip("\n").split(" ||| ")
        if wrong:
            print("no number", flush=True)
        elif kind == "SCORE":
            words = parts[-1].split()
            shared = max(len(set(words) & set(text.split())) for text in parts[:-1])
            print(len(words), len(words), 0, 0, shared, shared, *[0] * 14, 1, shared, shared, flush=True)
        else:
            rows = [list(map(float, part.split())) for part in parts]
            scores = [row[4] / max(row[0], 1) for row in rows]
            total = sum(row[4] for row in rows) / max(sum(row[0] for row in rows), 1)
            print(*scores, total, sep="\n", flush=True)

def spice():
    wrong = fail("spice")
    opened = {part for part in arguments if part.startswith("--add-opens")}
    assert {f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in os.environ["STAND_IN_OPENED"].split()} <= opened
    paths = arguments[arguments.index("-cp") + 1].split(os.pathsep)
    assert os.environ["STAND_IN_RHINO"] in paths and all(map(os.path.isfile, paths)), paths
    scores = json.load(open(os.environ["STAND_IN_SCORES"]))
    items = json.load(open(arguments[arguments.index("edu.anu.spice.SpiceScorer") + 1]))
    def evaluation(f, count):
        return {"tp": 1, "fp": 2, "fn": 3, "f": f, "pr": f, "re": f, "numImages": count}
    found = [
        {
            "image_id": item["image_id"],
            "scores": {
                "All": evaluation(scores[item["test"] + "\n" + "\n".join(item["refs"])], 1),
                "Color": {**evaluation(None, 0), "pr": None, "re": None},
            },
        }
        for item in items
    ]
    target = arguments[arguments.index("-out") + 1]
    open(target, "w").write("{" if wrong else json.dumps(found[::-1], indent=2))
    print("SPICE evaluation took: 1.000 min")

if "-version" in arguments:
    print(f'openjdk version "{os.environ.get("STAND_IN_VERSION", "17.0.15")}" 2025-04-15', file=sys.stderr)
elif "edu.stanford.nlp.process.PTBTokenizer" in arguments:
    tokenizer()
elif "edu.anu.spice.SpiceScorer" in arguments:
    spice()
else:
    assert any(part.endswith("meteor-1.5.jar") for part in arguments), arguments
    meteor()
"""


class StandIn:
    """The stand-in on the path, and CoreNLP's folder with jars that are none."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.corenlp = folder / "corenlp"
        self._monkeypatch = monkeypatch
        program = folder / "home" / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!{sys.executable}\n{PROGRAM}", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("JAVA_HOME", str(folder / "home"))
        monkeypatch.setattr(downloads, "corenlp_folder", lambda: self.corenlp)
        monkeypatch.setattr("enclap.evaluation.captioning.suite.corenlp_folder", lambda: self.corenlp)

    def fail(self, **faults: str) -> None:
        """Have a tool crash, hang or answer garbage: fail(meteor="hang")."""
        self._monkeypatch.setenv("STAND_IN_FAULTS", json.dumps(faults))

    def say_version(self, version: str) -> None:
        self._monkeypatch.setenv("STAND_IN_VERSION", version)

    def install_spice(self, scores: Mapping[tuple[str, tuple[str, ...]], float]) -> None:
        """Have SPICE give these scores for a candidate and its references, tokenised."""
        downloads.install_corenlp(str(corenlp_archive(self.folder)), self.corenlp, None, lambda found: True)
        rhino = self.corenlp / spice.RHINO_JARS[0]
        rhino.write_bytes(b"rhino")
        table = self.folder / "spice.json"
        table.write_text(json.dumps({"\n".join((text, *texts)): value for (text, texts), value in scores.items()}))
        self._monkeypatch.setenv("STAND_IN_SCORES", str(table))
        self._monkeypatch.setenv("STAND_IN_RHINO", str(rhino))
        self._monkeypatch.setenv("STAND_IN_OPENED", " ".join(spice.OPENED))


def corenlp_archive(folder: Path) -> Path:
    """An archive laid out as CoreNLP's."""
    path = folder / "corenlp.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in downloads.CORENLP_JARS:
            archive.writestr(f"{downloads.CORENLP_FOLDER}/{name}", f"bytes of {name}")
    return path
