"""The release with its text tower, fetched from a hub on the loopback: texts embedded, sounds found and tagged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli import Run
from enclap.captioner import Captioner
from enclap.errors import ModelError
from enclap.hub import official_release as releases
from enclap.hub import resolve as hub
from enclap.search.library import Library
from enclap.types import embedding_of
from hubserver import Hub
from libraries import write_sounds
from published import put_official


@pytest.mark.usefixtures("quick_graphs")
def test_the_text_tower_is_a_folder_of_its_own(online: Hub, tiny_model: Path, tmp_path: Path) -> None:
    from enclap.engines import load_engine

    put_official(online, tiny_model, tmp_path / "release")
    plain, full = hub.pull_model("official"), hub.pull_model("official", text_tower=True)
    assert plain != full and releases.official_folder() == full
    with pytest.raises(ModelError):
        load_engine(plain, engine="torch").embed_text(["a dog"])
    assert load_engine(full, engine="torch").embed_text(["a dog"]).shape == (1, 16)


@pytest.mark.usefixtures("quick_graphs")
def test_sounds_are_found_with_the_release_and_its_text_tower(
    enclap: Run, online: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    put_official(online, tiny_model, tmp_path / "release")
    folder = write_sounds(tmp_path / "sounds", {"rain.wav": "rain", "deep/dog.wav": "dog"})
    assert enclap("models", "pull", "official", "--text-tower").returncode == 0
    done = enclap("index", folder, "--output", "library", "--model", "official")
    assert done.returncode == 0, done.stderr
    kept = Library.open(tmp_path / "library").rows.columns(["path", "embedding"]).to_pylist()
    captioner = Captioner.from_pretrained(tiny_model)  # the same weights, which were never published
    for row in kept:
        [(window, _)] = captioner.windows(str(folder / row["path"]))
        assert np.allclose(row["embedding"], embedding_of(captioner.engine.extract([window])[0]), atol=1e-4)
    found = json.loads(enclap("search", "library", "dog", "--format", "json").stdout)["results"]
    assert [Path(hit["path"]).name for hit in found] == ["dog.wav", "rain.wav"]
    liked = json.loads(enclap("search", "library", "--like", folder / "rain.wav", "--format", "json").stdout)["results"]
    assert [Path(hit["path"]).name for hit in liked] == ["dog.wav"]
    tags = ("tag", folder, "--labels", "dog,rain", "--threshold", "0", "--format", "json", "--model")
    tagged, expected = (json.loads(enclap(*tags, name).stdout)["results"] for name in ("official", tiny_model))
    assert tagged == expected and len(tagged) == 2 and all(len(item["tags"]) == 2 for item in tagged)
