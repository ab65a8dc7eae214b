"""SPICE by its real jars on published captions; opt in with `pytest -m spice` after `enclap metrics download`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from enclap.evaluation.captioning.downloads import corenlp_folder
from enclap.evaluation.captioning.java import find_java
from enclap.evaluation.captioning.spice import spice

CLIPS = 50


@pytest.mark.spice
@pytest.mark.timeout(1800)
def test_spice_is_the_published_one(shared: Path) -> None:
    path = shared / "reference" / "metrics" / "clotho_eval.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:CLIPS]
    references = [[row[f"reference_{number}"] for number in range(1, 6)] for row in rows]
    found = spice([row["candidate"] for row in rows], references, find_java(), corenlp_folder(), 1700.0)
    np.testing.assert_allclose(found.clips, [float(row["spice"]) for row in rows], atol=1e-9)
