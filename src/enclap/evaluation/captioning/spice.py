"""SPICE by its own jar: what it needs, where that is found, and its output read.

Two things stop the jar (2016) on a Java of today, and both are solved from outside. Its serialisation reflects into
java.base, which `--add-opens` allows. It writes its results through a JavaScript engine, which Java had from 8 to 14:
a newer one gets Rhino on the class path.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from enclap.errors import EnvironmentFault
from enclap.evaluation.captioning.downloads import CORENLP_JARS, check_corenlp
from enclap.evaluation.captioning.java import Java, run_java
from enclap.evaluation.captioning.scores import ClipScores, mean_scores

SPICE = "SPICE"
MAIN_CLASS = "edu.anu.spice.SpiceScorer"
MEMORY = "-Xmx8G"  # as in SPICE's README
FIRST_WITH_MODULES, LAST_WITH_JAVASCRIPT = 9, 14
OPENED = ("java.lang", "java.util", "java.math", "java.text", "java.net", "java.util.concurrent")
RHINO_FOLDERS = (Path("/usr/share/java"),)
RHINO_JARS = ("js.jar", "rhino-all.jar", "rhino.jar")
RHINO = "a JavaScript engine for Java is missing (Debian: apt install librhino-java; else put rhino-all.jar into {})"


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], java: Java, corenlp: Path, seconds: float
) -> ClipScores:
    """SPICE (arXiv 1607.08822) of tokenised captions; of a set it is the mean.

    corenlp: the folder of CoreNLP's jars, see `downloads`. seconds: for all. EnvironmentFault when something is missing
    or fails.
    """
    command = spice_command(java, corenlp)
    items = [
        {"image_id": number, "test": candidate, "refs": list(texts)}
        for number, (candidate, texts) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "input.json"), Path(folder, "output.json")
        source.write_text(json.dumps(items), encoding="utf-8")
        run_java(java, [*command, str(source), "-out", str(target), "-subset", "-silent"], SPICE, seconds)
        return mean_scores("spice", read_scores(target, len(items)))


def spice_command(java: Java, corenlp: Path) -> list[str]:
    """Java's arguments before SPICE's own; EnvironmentFault names what is missing."""
    from pycocoevalcap.spice import spice as package

    check_corenlp(corenlp)
    home = Path(package.__file__).parent
    jars = [home / package.SPICE_JAR, *sorted((home / "lib").glob("*.jar")), *(corenlp / jar for jar in CORENLP_JARS)]
    if java.major > LAST_WITH_JAVASCRIPT:
        places = [folder / name for folder in (corenlp, *RHINO_FOLDERS) for name in RHINO_JARS]
        rhino = next((path for path in places if path.is_file()), None)
        if rhino is None:
            raise EnvironmentFault(f"{SPICE}: {RHINO.format(corenlp)}")
        jars.append(rhino)
    opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in OPENED]
    modules = opened if java.major >= FIRST_WITH_MODULES else []
    return [*modules, MEMORY, "-cp", os.pathsep.join(map(str, jars)), MAIN_CLASS]


def read_scores(path: Path, count: int) -> list[float]:
    """The f-score over all tuples of each item, in order; EnvironmentFault when SPICE wrote something else."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        scores = {item["image_id"]: float(item["scores"]["All"]["f"]) for item in results}
        return [scores[number] for number in range(count)]
    except FileNotFoundError as error:
        raise EnvironmentFault(f"{SPICE}: ended without writing results") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EnvironmentFault(f"{SPICE}: wrote results that cannot be read ({type(error).__name__})") from error
