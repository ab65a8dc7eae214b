"""Model folders that are damaged, foreign or hostile: one line, exit code 3, and nothing in them is run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from cli import Run
from tiny import save_tokenizer

Damage = Callable[[Path], object]


def edit(name: str, **changes: object) -> Damage:
    """Changes settings in one of the folder's JSON files."""

    def apply(folder: Path) -> None:
        table = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(table | changes))

    return apply


def half(name: str) -> Damage:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def without_tensor(name: str, tensor: str) -> Damage:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / name)
        del tensors[tensor]
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return apply


def renumbered(folder: Path) -> None:
    """Gives the special tokens of the tokenizer other ids."""
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text())
    order = {"<s>": 2, "<pad>": 0, "</s>": 1}
    table["added_tokens"] = [item | {"id": order.get(item["content"], item["id"])} for item in table["added_tokens"]]
    table["model"]["vocab"] |= order
    path.write_text(json.dumps(table))


def larger_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"extra{number}" for number in range(9)])
    tokenizer.save(str(folder / "tokenizer.json"))


DESCRIPTIONS: dict[str, tuple[Damage, str]] = {
    "newer format": (
        edit("config.json", format_version=2),
        "format_version 2 is not known; this enclap reads version 1",
    ),
    "special tokens with other ids": (renumbered, "special tokens <s> 2, <pad> 0, </s> 1, but the model reads <s> 0"),
    "tokenizer with more tokens": (larger_tokenizer, "tokens, but the model has vectors for"),
    "config of wrong type": (edit("config.json", d_model="wide"), "config.json: d_model"),
    "codec at another rate": (edit("codec/config.json", sampling_rate=24_000), "frames per second"),
}
"""What both engines read in one place, before anything heavy is loaded."""
BOTH: dict[str, tuple[Damage, str]] = {
    "config of other size": (edit("config.json", decoder_layers=3), ""),
    "config with fewer codebooks": (edit("config.json", codebooks=3), ""),
}
TORCH: dict[str, tuple[Damage, str]] = {
    "half the weights": (half("model.safetensors"), "the caption model cannot be loaded"),
    "half the codec": (half("codec/model.safetensors"), "the codec cannot be loaded"),
    "half of CLAP": (half("clap/model.safetensors"), "CLAP cannot be loaded"),
    "tensor missing": (
        without_tensor("model.safetensors", "clap_projection.bias"),
        "do not fit its config.json (missing: clap_projection.bias)",
    ),
    "tensor of CLAP missing": (
        without_tensor("clap/model.safetensors", "audio_projection.linear1.bias"),
        "missing: audio_projection.linear1.bias",
    ),
    "wider": (edit("config.json", decoder_ffn_dim=72), "of another shape: bart.decoder.layers.0.fc1"),
    "codec wider": (edit("codec/config.json", num_filters=8), "of another shape: "),
}
ONNX: dict[str, tuple[Damage, str]] = {
    "other heads": (edit("config.json", decoder_attention_heads=2), "says 2 where this graph has 4 (past, axis"),
    "wider embedding": (edit("config.json", clap_dim=20), "says 20 where this graph has 16 (embedding, axis"),
    "other input": (edit("config.json", acoustic_input="log_mel"), "encoder.onnx: has no input log_mel"),
    "other mel bands": (edit("clap/preprocessor_config.json", feature_size=20), "says 20 where this graph has 16 (mel"),
}
CASES = [
    *[(name, "auto", *case) for name, case in DESCRIPTIONS.items()],
    *[(name, engine, *case) for name, case in BOTH.items() for engine in ("onnx", "torch")],
    *[(name, "torch", *case) for name, case in TORCH.items()],
    *[(name, "onnx", *case) for name, case in ONNX.items()],
]


@pytest.mark.parametrize(("name", "engine", "damage", "words"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_one_line_says_what_is_wrong(
    enclap: Run,
    tiny_model: Path,
    tmp_path: Path,
    recording: Callable[..., Path],
    name: str,
    engine: str,
    damage: Damage,
    words: str,
) -> None:
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    damage(broken)
    done = enclap("caption", recording(), "--model", broken, "--engine", engine)
    assert (done.returncode, done.stdout) == (3, ""), name
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(broken) in done.stderr and words in done.stderr


def graph_that_reads(location: str) -> bytes:
    """A codec graph whose weight lies in another file."""
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    samples = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["clips", 1, "samples"])
    codes = helper.make_tensor_value_info("codes", TensorProto.FLOAT, [4])
    node = helper.make_node("Identity", ["weight"], ["codes"])
    graph = helper.make_graph([node], "frames", [samples], [codes], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def test_a_graph_with_other_inputs_is_refused(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path]
) -> None:
    """As of a folder that another version has exported: not a fault in the middle of the run."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "older"))
    path = folder / "onnx" / "codec_codes.onnx"
    model = onnx.load(path)
    model.graph.input[0].name = "frames"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "frames" if name == "latents" else name
    onnx.save(model, path)
    done = enclap("caption", recording(), "--model", folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "codec_codes.onnx: has no input latents; fetch or export the model again" in done.stderr


@pytest.mark.parametrize("way", ["relative", "absolute", "link"])
def test_external_data_outside_the_folder_is_not_read(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path], way: str
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    folder = Path(shutil.copytree(tiny_model, tmp_path / "hostile"))
    (folder / "onnx" / "link.bin").symlink_to(secret)
    location = {"relative": "../../secret.bin", "absolute": str(secret), "link": "link.bin"}[way]
    (folder / "onnx" / "codec_latents.onnx").write_bytes(graph_that_reads(location))
    done = enclap("caption", recording(), "--model", folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "codec_latents.onnx" in done.stderr and "xternal data" in done.stderr


def test_external_data_inside_the_folder_is_read(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path]
) -> None:
    """The twin of the refusal: what is refused above is the place, not the way of storing."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "split"))
    model = onnx.load(folder / "onnx" / "encoder.onnx")
    path = folder / "onnx" / "encoder.onnx"
    onnx.save(model, path, save_as_external_data=True, location="encoder.onnx.data", size_threshold=1024)
    assert (folder / "onnx" / "encoder.onnx.data").stat().st_size > 0
    sound = recording()
    expected = enclap("caption", sound).stdout
    assert expected and enclap("caption", sound, "--model", folder).stdout == expected


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_no_code_of_a_folder_is_run(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path], engine: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "hostile"))
    trace = tmp_path / "trace"
    program = f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
    for name in (
        "modeling",
        "configuration",
        "tokenization",
        "custom_generate/generate",
        "clap/modeling",
        "codec/modeling",
    ):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(program + "class Thing: pass\n")
    classes = ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM", "AutoTokenizer", "AutoFeatureExtractor")
    for part in ("config.json", "clap/config.json", "codec/config.json"):
        edit(part, auto_map=dict.fromkeys(classes, "modeling.Thing"), custom_generate="custom_generate")(folder)
    done = enclap("caption", recording(), "--model", folder, "--engine", engine)
    assert (done.returncode, done.stderr) == (0, "")
    assert not trace.exists()


class Harmful:
    """Makes a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("part", [".", "codec", "clap"])
def test_a_pickle_in_a_model_folder_is_not_opened(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path], part: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "hostile"))
    place = folder / part
    tensors = load_file(place / "model.safetensors")
    torch.save(tensors | {"extra": Harmful(tmp_path / "trace")}, place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    done = enclap("caption", recording(), "--model", folder, "--engine", "torch")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    torch.save(tensors, place / "pytorch_model.bin")  # not even a harmless one
    assert enclap("caption", recording(), "--model", folder, "--engine", "torch").returncode == 3
    assert not (tmp_path / "trace").exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_opened(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path]
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "hostile"))
    torch.save({"extra": Harmful(tmp_path / "trace")}, folder / "model.safetensors")
    done = enclap("caption", recording(), "--model", folder, "--engine", "torch")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert not (tmp_path / "trace").exists()


def test_the_tokenizer_of_the_tests_is_one_that_is_accepted(tmp_path: Path) -> None:
    """`renumbered` must fail for the ids that it changes, not for something else."""
    from tokenizers import Tokenizer

    from enclap.hub.layout import SPECIAL_TOKENS

    save_tokenizer(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS} == SPECIAL_TOKENS
    renumbered(tmp_path)
    renamed = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert renamed.token_to_id("<s>") == 2
