"""The published class's sentences for the tiny reference model, through both engines: the small twin of full size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from enclap.decoding.options import DecodingOptions
from enclap.engines import Engine, load_engine
from enclap.export.folder import export_folder
from enclap.types import Features
from reference_tiny import GOLDEN, golden, reference_model
from tiny import SPECIAL, save_clap, save_codec

CASES = {
    "short": DecodingOptions(),
    "medium": DecodingOptions(),
    "truncated": DecodingOptions(),
    "forced20": DecodingOptions(min_length=21, max_length=21),
    "greedy": DecodingOptions(beams=1, early_stopping=False),
}
SCORE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder around the reference's caption model; its codec and CLAP are never asked."""
    path = tmp_path_factory.mktemp("reference") / "model"
    model = reference_model()
    model.config.frame_rate = 25.0  # that of the tiny codec
    model.save_pretrained(path)
    words = [*SPECIAL, *(f"word{number}" for number in range(len(SPECIAL), model.config.vocab_size))]
    vocabulary = {word: number for number, word in enumerate(words)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")).save(str(path / "tokenizer.json"))
    save_codec(path / "codec")
    save_clap(path / "clap")
    flags = json.loads((GOLDEN / "generation_flags.json").read_text())
    (path / "generation_config.json").write_text(json.dumps(flags))
    export_folder(path)
    return path


@pytest.fixture(scope="module", params=["onnx", "torch"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Engine:
    return load_engine(folder, request.param, device="cpu")


def clip(case: str) -> Features:
    arrays = golden("generate")
    return Features(arrays[f"gen_{case}_codes"][0], arrays[f"gen_{case}_clap_embedding"][0])


@pytest.mark.parametrize("case", CASES)
def test_sentences_are_those_of_the_published_class(engine: Engine, case: str) -> None:
    best = engine.generate([clip(case)], CASES[case])[0][0]
    arrays = golden("generate")
    assert list(best.token_ids) == arrays[f"gen_{case}_output_ids"].ravel().tolist()
    if f"gen_{case}_sequence_score" in arrays:
        np.testing.assert_allclose(best.score, arrays[f"gen_{case}_sequence_score"].item(), atol=SCORE)


def test_clips_of_all_lengths_at_once_give_the_same_sentences(engine: Engine) -> None:
    cases = ["short", "medium", "truncated"]
    found = engine.generate([clip(case) for case in cases], CASES["short"])
    expected = [golden("generate")[f"gen_{case}_output_ids"].ravel().tolist() for case in cases]
    assert [list(item[0].token_ids) for item in found] == expected
