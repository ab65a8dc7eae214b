"""Engines: onnx against torch, batches against single clips, and damaged or foreign model folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import enclap.engines
from agreement import (
    GREEDY,
    assert_candidates_agree,
    assert_engine_agrees,
    assert_features_agree,
    assert_nothing_gives_nothing,
    assert_sentences_agree,
    assert_texts_agree,
    assert_two_threads_change_nothing,
    random_windows,
    released_options,
)
from enclap.decoding.options import DecodingOptions
from enclap.engines import ENGINES, REFERENCE, Engine, load_engine
from enclap.engines.batching import similar_lengths
from enclap.errors import EnclapError, EnvironmentFault, MissingExtra, ModelError, UsageError
from enclap.hub.layout import Graph
from enclap.model.conv_clap import ConvClapConfig
from enclap.types import Candidate, Features, FloatArray, Waveform, Window
from tiny import tiny_model_folder

CASES = {
    "greedy": GREEDY,
    "released": released_options(),
    "several": DecodingOptions(candidates=4),
    "late stop": DecodingOptions(early_stopping=False, length_penalty=0.5, candidates=2),
    "long": DecodingOptions(early_stopping=False, length_penalty=2.0, max_length=12),
    "forced length": DecodingOptions(min_length=21, max_length=21),
    "no word twice": DecodingOptions(beams=3, no_repeat_ngram=1, max_length=15),
    "repeats": DecodingOptions(beams=2, no_repeat_ngram=0, length_penalty=-1.0),
}


OTHERS = [name for name in ENGINES if name != REFERENCE]
"""Every engine that is held to the reference; a new one is in the table, and so in these tests."""


@pytest.fixture(scope="module", params=OTHERS)
def engine(request: pytest.FixtureRequest, tiny_model: Path) -> Engine:
    return load_engine(tiny_model, request.param, device="cpu", threads=1)


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Engine:
    return load_engine(tiny_model, REFERENCE, device="cpu")


@pytest.fixture(scope="module", params=ENGINES)
def any_engine(request: pytest.FixtureRequest, tiny_model: Path) -> Engine:
    return load_engine(tiny_model, request.param, device="cpu", threads=1)


@pytest.fixture(scope="module")
def onnx(tiny_model: Path) -> Engine:
    return load_engine(tiny_model, "onnx", threads=1)


@pytest.fixture(scope="module")
def features(reference: Engine) -> list[Features]:
    return reference.extract(random_windows(8, longest=5.0))


def test_features_agree(engine: Engine, reference: Engine) -> None:
    windows = random_windows(8, seed=1, longest=4.0)
    found = engine.extract(windows)
    assert_features_agree(found, reference.extract(windows))
    norms = [np.linalg.norm(item.embedding) for item in found if item.embedding is not None]
    np.testing.assert_allclose(norms, np.ones(8), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_candidates_agree(engine: Engine, reference: Engine, features: list[Features], case: str) -> None:
    assert_sentences_agree(engine, reference, features[:3] if case != "released" else features, CASES[case])


def test_texts_agree(engine: Engine, reference: Engine) -> None:
    assert reference.can_embed_text
    assert_texts_agree(engine, reference)


def test_features_do_not_depend_on_the_batch(any_engine: Engine) -> None:
    windows = random_windows(5, seed=2, longest=3.0)
    windows += random_windows(2, seed=5, longest=14.0)  # one that CLAP reads in crops
    alone = [any_engine.extract([window])[0] for window in windows]
    assert_features_agree(any_engine.extract(windows), alone)


def test_extraction_and_search_may_run_at_the_same_time(any_engine: Engine) -> None:
    assert_two_threads_change_nothing(any_engine, random_windows(4, seed=6, longest=3.0), released_options())


def test_nothing_gives_nothing(any_engine: Engine) -> None:
    assert_nothing_gives_nothing(any_engine)


def test_an_empty_call_does_not_change_how_clips_share_the_cores(tiny_model: Path, features: list[Features]) -> None:
    engine = load_engine(tiny_model, "onnx", threads=2)
    expected = engine.generate(features, GREEDY)
    assert [engine.generate([], GREEDY) for _ in range(3)] == [[], [], []]
    loaded = dict(engine._sessions._sessions)  # type: ignore[attr-defined]
    assert_candidates_agree(engine.generate(features, GREEDY), expected)
    assert engine._sessions._sessions == loaded  # type: ignore[attr-defined]


class OneByOne:
    """An engine as somebody could add it: the reference, given one item at a time."""

    name = "one by one"

    def __init__(self, folder: Path, **choices: Any) -> None:
        self._inner = load_engine(folder, REFERENCE, **choices)
        self.code_rate, self.max_frames = self._inner.code_rate, self._inner.max_frames
        self.windows_together = self.recordings_together = 1
        self.can_embed_text = self._inner.can_embed_text

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        return [self._inner.extract([window])[0] for window in windows]

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        return [self._inner.generate([item], options)[0] for item in features]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        return self._inner.embed_text(texts)


class Wrong(OneByOne):
    """One that loses a word of its longest sentences."""

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        found = super().generate(features, options)
        return [[replace(item, token_ids=item.token_ids[:12]) for item in clip] for clip in found]


def test_a_new_engine_is_held_to_the_reference_once_it_is_in_the_table(
    tiny_model: Path, reference: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "new", lambda: OneByOne)
    assert_engine_agrees(load_engine(tiny_model, "new", device="cpu"), reference)
    monkeypatch.setitem(ENGINES, "new", lambda: Wrong)
    with pytest.raises(AssertionError):
        assert_engine_agrees(load_engine(tiny_model, "new", device="cpu"), reference)


def test_convolutional_towers_and_their_texts_agree(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "conv", clap=ConvClapConfig.model_type)
    windows = random_windows(4, seed=3, longest=12.0)
    reference = load_engine(folder, REFERENCE, device="cpu")
    for name in OTHERS:
        engine = load_engine(folder, name, device="cpu", threads=1)
        assert_features_agree(engine.extract(windows), reference.extract(windows))
        assert_texts_agree(engine, reference)


def test_sentences_vary(onnx: Engine) -> None:
    found = onnx.generate(onnx.extract(random_windows(16)), GREEDY)
    assert len({clip[0].token_ids for clip in found}) > 3
    assert len({len(clip[0].token_ids) for clip in found}) > 2
    assert all(clip[0].token_ids[:2] == (2, 0) and clip[0].token_ids[-1] == 2 for clip in found)


def test_several_threads_give_the_features_and_sentences_of_one(tiny_model: Path, onnx: Engine) -> None:
    engine, windows = load_engine(tiny_model, "onnx", threads=3), random_windows(6, seed=4, longest=6.0)
    found = engine.extract(windows)
    assert_features_agree(found, onnx.extract(windows))
    for options in (GREEDY, released_options(), DecodingOptions(sample=True, candidates=2, seed=5)):
        assert_candidates_agree(engine.generate(found, options), onnx.generate(found, options))


def test_similar_lengths_share_a_batch_and_each_item_comes_once() -> None:
    lengths = [10, 3, 9, 8, 7, 30, 10, 1]
    batches = similar_lengths(lengths, lambda length: 3)
    assert [[lengths[index] for index in batch] for batch in batches] == [[30], [10, 10, 9], [8, 7], [3], [1]]
    assert sorted(index for batch in batches for index in batch) == list(range(8))


def test_samples_are_seeded_and_independent_of_the_batch(any_engine: Engine, features: list[Features]) -> None:
    options = DecodingOptions(sample=True, candidates=3, seed=7)
    found = any_engine.generate(features[:3], options)
    assert_candidates_agree([any_engine.generate([clip], options)[0] for clip in features[:3]], found)
    other = any_engine.generate(features[:1], DecodingOptions(sample=True, candidates=3, seed=8))
    assert other[0] != found[0]
    for clip in found:
        assert len(clip) == 3
        assert [item.score for item in clip] == sorted((item.score for item in clip), reverse=True)


def test_samples_are_drawn_one_by_one_though_the_folder_names_beams(
    tiny_model: Path, reference: Engine, features: list[Features], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    table = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**table, "num_beams": 4}))
    options = DecodingOptions(sample=True, candidates=6, seed=7)
    found = load_engine(folder, REFERENCE).generate(features[:1], options)
    assert_candidates_agree(reference.generate(features[:1], options), found)


@pytest.mark.parametrize("samples", [1, 2, 160, 640, 641])
def test_very_short_windows(engine: Engine, reference: Engine, samples: int) -> None:
    window = Window(Waveform(np.full(samples, 0.1, dtype=np.float32), 16_000), 0.0, samples / 16_000)
    found, expected = engine.extract([window]), reference.extract([window])
    assert_features_agree(found, expected)
    assert len(found[0].codes) == -(-samples // 640)
    assert_candidates_agree(engine.generate(found, GREEDY), reference.generate(found, GREEDY))


def test_codes_beyond_the_positions_are_cut(any_engine: Engine, features: list[Features]) -> None:
    codes = np.random.default_rng(0).integers(0, 16, (any_engine.max_frames + 30, 4))
    embedding = features[0].embedding
    both = [Features(codes, embedding), Features(codes[: any_engine.max_frames], embedding)]
    whole, cut = any_engine.generate(both, GREEDY)
    assert whole == cut


@pytest.mark.parametrize(("use_clap", "acoustic_input"), [(False, "codes"), (True, "none"), (True, "log_mel")])
def test_ablated_models(tmp_path: Path, use_clap: bool, acoustic_input: str) -> None:
    folder = tiny_model_folder(tmp_path / "model", use_clap=use_clap, acoustic_input=acoustic_input)
    reference, windows = load_engine(folder, REFERENCE, device="cpu"), random_windows(3, longest=2.0)
    for name in OTHERS:
        engine = load_engine(folder, name, device="cpu")
        found = engine.extract(windows)
        assert_features_agree(found, reference.extract(windows))
        assert_sentences_agree(engine, reference, found, released_options())
        if not use_clap:
            with pytest.raises(ModelError, match="no CLAP"):
                engine.embed_text(["a dog"])


def test_graphs_alone_are_enough(tiny_model: Path, tmp_path: Path, features: list[Features], onnx: Engine) -> None:
    folder = copied(tiny_model, tmp_path)
    for weights in folder.glob("**/*.safetensors"):
        weights.unlink()
    engine = load_engine(folder)
    assert engine.name == "onnx"
    assert_candidates_agree(engine.generate(features[:2], GREEDY), onnx.generate(features[:2], GREEDY))


def test_auto_takes_torch_where_there_are_no_graphs(tiny_model: Path, tmp_path: Path) -> None:
    folder = copied(tiny_model, tmp_path)
    shutil.rmtree(folder / "onnx")
    assert load_engine(folder, device="cpu").name == "torch"


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def use_everything(folder: Path, engine: str) -> None:
    loaded = load_engine(folder, engine, device="cpu")
    loaded.generate(loaded.extract(random_windows(1, longest=1.0)), GREEDY)
    loaded.embed_text(["a dog"])


ONNX_FILES = [f"onnx/{name}.onnx" for name in Graph if name != Graph.CLAP_FUSED]
SHARED_FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "codec/config.json",
    "clap/config.json",
    "clap/preprocessor_config.json",
    "clap/tokenizer.json",
]
TORCH_FILES = ["model.safetensors", "codec/model.safetensors", "clap/model.safetensors"]


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "noise"])
@pytest.mark.parametrize(
    ("engine", "name"),
    [("onnx", name) for name in SHARED_FILES + ONNX_FILES] + [("torch", name) for name in TORCH_FILES],
)
def test_a_damaged_folder_is_a_model_error(
    tiny_model: Path, tmp_path: Path, engine: str, name: str, damage: str
) -> None:
    folder = copied(tiny_model, tmp_path)
    path = folder / name
    contents = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(contents[: len(contents) // 2])
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"\x00\xff damaged")
    with pytest.raises(ModelError) as caught:
        use_everything(folder, engine)
    message = str(caught.value)
    assert "\n" not in message and str(path.parent) in message


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_format_version_is_refused(tiny_model: Path, tmp_path: Path, engine: str) -> None:
    folder = copied(tiny_model, tmp_path)
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"format_version": 99}))
    with pytest.raises(ModelError, match="format_version 99 is not known"):
        load_engine(folder, engine)


@pytest.mark.parametrize("change", [{"model_type": "bart"}, {"codebooks": 0}, {"acoustic_input": "smell"}])
def test_a_foreign_configuration_is_refused(tiny_model: Path, tmp_path: Path, change: dict[str, object]) -> None:
    folder = copied(tiny_model, tmp_path)
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | change))
    with pytest.raises(ModelError, match=next(iter(change))):
        load_engine(folder)


def test_a_codec_of_another_frame_rate_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = copied(tiny_model, tmp_path)
    table = json.loads((folder / "codec" / "config.json").read_text())
    (folder / "codec" / "config.json").write_text(json.dumps(table | {"sampling_rate": 24_000}))
    with pytest.raises(ModelError, match=r"37\.5 frames per second"):
        load_engine(folder)


def test_external_data_outside_the_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    import onnx as onnx_format

    folder = copied(tiny_model, tmp_path)
    path = folder / "onnx" / "encoder.onnx"
    model = onnx_format.load(path)
    tensor = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    (tmp_path / "outside.bin").write_bytes(tensor.raw_data)
    onnx_format.external_data_helper.set_external_data(tensor, "../../outside.bin")
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"encoder\.onnx"):
        use_everything(folder, "onnx")


def test_unknown_choices_are_usage_errors(tiny_model: Path) -> None:
    faults: list[tuple[dict[str, Any], type[EnclapError], str]] = [
        ({"threads": 0}, UsageError, "threads: 0; give 1 to 512, or None for all cores"),
        ({"engine": "torch", "threads": 100_000}, UsageError, "threads: 100000; give 1 to 512"),
        ({"engine": "tensorflow"}, UsageError, "unknown engine 'tensorflow'"),
        ({"engine": "onnx", "precision": "int4"}, UsageError, "runs in float32 or int8, not int4"),
        ({"engine": "torch", "precision": "int4"}, UsageError, "float32 or bfloat16, not int4"),
        ({"engine": "onnx", "device": "tpu"}, UsageError, "'tpu' is none of auto, cpu"),
        ({"engine": "onnx", "device": "mps"}, UsageError, "not 'mps'"),
        ({"engine": "torch", "device": "tpu"}, UsageError, "'tpu' is none of auto, cpu"),
        ({"engine": "torch", "device": "mps"}, EnvironmentFault, "no mps here"),
    ]
    for arguments, kind, message in faults:
        with pytest.raises(kind, match=message):
            load_engine(tiny_model, **arguments)


def test_a_missing_folder_is_a_model_error(tmp_path: Path) -> None:
    for engine in ("auto", *ENGINES):
        with pytest.raises(ModelError, match="no such model folder"):
            load_engine(tmp_path / "absent", engine)


def test_torch_missing_names_the_extra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclap.engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'enclap\[train\]'"):
        load_engine(tiny_model, "torch")


def test_bfloat16_captions(tiny_model: Path, features: list[Features]) -> None:
    engine = load_engine(tiny_model, "torch", device="cpu", precision="bfloat16")
    assert all(clip[0].token_ids[0] == 2 for clip in engine.generate(features[:2], GREEDY))


def test_the_onnx_engine_leaves_torch_alone(tiny_model: Path) -> None:
    program = (
        "import sys; from enclap.engines import load_engine; import numpy as np\n"
        "from enclap.types import *; from enclap.decoding.options import DecodingOptions\n"
        f"engine = load_engine({str(tiny_model)!r})\n"
        "window = Window(Waveform(np.zeros(8000, np.float32), 16000), 0.0, 0.5)\n"
        "engine.generate(engine.extract([window]), DecodingOptions())\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
