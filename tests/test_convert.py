"""Published checkpoints through the converter: the same model, every fault named, nothing run, nothing half done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import ClapModel, EncodecModel

from cli import Run
from enclap.audio.mel import MelFrontEnd
from enclap.convert import convert as conversion
from enclap.convert.checkpoints import read_tensors
from enclap.convert.convert import Checkpoint, convert, convert_clap, convert_codec
from enclap.errors import ModelError
from enclap.hub import integrity
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.loading import load_caption_model
from published import (
    caption_tensors,
    published_caption,
    published_clap,
    published_clap_folder,
    published_codec,
    published_encodec,
    published_text,
    small_clap,
    small_encodec,
)
from tiny import save_tokenizer


@pytest.fixture(scope="session")
def release(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as it would be published: folders ckpt, codec, clap and tokenizer.json."""
    folder = tmp_path_factory.mktemp("release")
    published_caption(folder / "ckpt", tiny_model)
    published_codec(folder / "codec", tiny_model)
    published_clap_folder(folder / "clap", tiny_model)
    (folder / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    return folder


def checkpoint(release: Path, **changes: object) -> Checkpoint:
    parts = {name: release / name for name in ("codec", "clap")}
    parts |= {"caption": release / "ckpt", "tokenizer": release / "tokenizer.json"}
    return Checkpoint(**(parts | changes))


@pytest.fixture(scope="session")
def converted(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert(checkpoint(release, card="# Converted\n"), folder, graphs=False)  # test_pull.py goes on to the graphs
    return folder


def test_a_converted_model_captions_as_the_original(
    enclap: Run, tiny_model: Path, converted: Path, recording: Callable[..., Path]
) -> None:
    path = recording(seconds=3.0)
    captions = [
        enclap("caption", path, "--model", model, "--engine", "torch", "--candidates", "4", "--format", "json")
        for model in (tiny_model, converted)
    ]
    assert [done.returncode for done in captions] == [0, 0], captions[-1].stderr
    original, after = (json.loads(done.stdout)["results"] for done in captions)
    texts = [[item["text"] for item in result[0]["captions"][0]["candidates"]] for result in (original, after)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 1


def test_a_converted_folder_is_whole_and_carries_its_checksums(converted: Path) -> None:
    integrity.check_folder(converted, hashes=True)
    names = set(integrity.read_checksums(converted))
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert {"codec/model.safetensors", "clap/model.safetensors", "clap/preprocessor_config.json"} <= names
    assert "clap/tokenizer.json" not in names and not [name for name in names if name.endswith((".bin", ".pt"))]


def test_every_tensor_arrives_unchanged(tiny_model: Path, converted: Path) -> None:
    for name in ("model.safetensors", "codec/model.safetensors"):
        before, after = load_file(tiny_model / name), load_file(converted / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key].float(), after[key].float()) for key in before)
    before, after = (load_file(folder / "clap/model.safetensors") for folder in (tiny_model, converted))
    assert all(torch.equal(before[key].float(), after[key].float()) for key in before if key.startswith("audio_"))


def test_loading_misses_no_tensor_and_makes_none_up(converted: Path) -> None:
    for kind, part in ((EncodecModel, "codec"), (ClapModel, "clap")):
        _, report = kind.from_pretrained(converted / part, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
    load_caption_model(converted)


def test_the_text_tower_comes_only_when_asked_for(
    release: Path, tiny_model: Path, converted: Path, tmp_path: Path
) -> None:
    without = Clap.from_folder(converted / "clap")
    assert without.tokenizer is None
    with pytest.raises(ModelError, match="cannot embed text"):
        without.embed_text(["a dog"])
    convert_clap(release / "clap", tmp_path / "clap", tokenizer=release / "tokenizer.json")
    expected = Clap.from_folder(tiny_model / "clap").embed_text(["A dog barks.", "Rain"])
    found = Clap.from_folder(tmp_path / "clap").embed_text(["A dog barks.", "Rain"])
    np.testing.assert_array_equal(found, expected)


def laion_file(path: Path, state: dict[str, Tensor]) -> Path:
    """A checkpoint as laion-clap's training writes it: names behind "module.", beside losses and an optimizer."""
    tensors = {f"module.{name}": tensor for name, tensor in state.items()}
    rest = {"epoch": 3, "name": "run", "best": np.float64(0.5), "optimizer": {"state": {0: {"step": 1}}, "lr": 1e-4}}
    torch.save({**rest, "state_dict": tensors}, path)
    return path


def test_a_laion_file_becomes_the_audio_tower(tmp_path: Path) -> None:
    state = published_clap()
    convert_clap(laion_file(tmp_path / "clap.pt", state), tmp_path / "clap")
    clap = Clap.from_folder(tmp_path / "clap")
    assert clap.tokenizer is None and clap.dim == 12
    found = clap.encoder.network.state_dict()
    norm = "audio_model.audio_encoder.layers.0.blocks.1.layernorm_after.weight"
    assert torch.equal(found[norm], state["audio_branch.layers.0.blocks.1.norm2.weight"])
    assert {name for name in found if name.startswith("audio_")} == {
        name for name in small_clap().state_dict() if name.startswith("audio_")
    }
    front_end = MelFrontEnd.from_folder(tmp_path / "clap")
    assert (front_end.rate, front_end.bands, front_end.lowest) == (48_000, 16, 50.0)
    assert clap.embed_audio(np.zeros((1, 1, 64, 16), np.float32)).shape == (12,)


def test_a_laion_file_with_its_text_tower(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer.json")
    state = published_clap() | published_text()
    convert_clap(laion_file(tmp_path / "clap.pt", state), tmp_path / "clap", tokenizer=tmp_path / "tokenizer.json")
    clap = Clap.from_folder(tmp_path / "clap")
    word = clap.encoder.network.state_dict()["text_model.encoder.layer.0.attention.self.value.weight"]
    assert torch.equal(word, state["text_branch.encoder.layer.0.attention.self.value.weight"])
    assert clap.embed_text(["a dog", "b"]).shape == (2, 12)


def test_an_original_codec_file_alone(tmp_path: Path) -> None:
    state = published_encodec()
    torch.save(state, tmp_path / "encodec.th", _use_new_zipfile_serialization=False)
    config = convert_codec(tmp_path / "encodec.th", tmp_path / "codec")
    assert (config.sampling_rate, config.hop_length, config.num_quantizers) == (24_000, 2, 2)
    codec = Codec.from_folder(tmp_path / "codec")
    small = small_encodec()
    expected = set(small.state_dict())
    assert set(codec.model.state_dict()) == expected
    assert torch.equal(
        codec.model.state_dict()["quantizer.layers.1.codebook.embed"], state["quantizer.vq.layers.1._codebook.embed"]
    )
    assert codec.encode(np.zeros(9, np.float32)).shape == (5, 2)


def change(name: str, value: Tensor | None) -> Callable[[Path], None]:
    """Replaces one tensor of the caption checkpoint, or takes it away."""

    def apply(release: Path) -> None:
        path = release / "ckpt" / "pytorch_model.bin"
        state = torch.load(path, weights_only=True)
        if value is None:
            del state[name]
        else:
            state[name] = value
        torch.save(state, path)

    return apply


def edit(name: str, **changes: object) -> Callable[[Path], None]:
    """Changes settings in a JSON file of the release."""

    def apply(release: Path) -> None:
        table = json.loads((release / name).read_text())
        (release / name).write_text(json.dumps(table | changes))

    return apply


class Harmful:
    """Makes a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def harmful(release: Path) -> None:
    torch.save({"state_dict": {}, "extra": Harmful(release / "trace")}, release / "ckpt" / "pytorch_model.bin")


def cut(name: str) -> Callable[[Path], None]:
    def apply(release: Path) -> None:
        os.truncate(release / name, (release / name).stat().st_size // 2)

    return apply


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "tensor missing": (change("mcm_heads.1.bias", None), "ckpt: .*missing: mcm_heads.1.bias"),
    "tensor left over": (change("surprise", torch.zeros(2)), "ckpt: .*left over: surprise"),
    "tensor of another shape": (
        change("model.encoder.layers.0.fc1.bias", torch.zeros(3)),
        r"of another shape: bart.encoder.layers.0.fc1.bias \[3\] instead of \[64\]",
    ),
    "tokens not tied": (change("lm_head.weight", torch.zeros(2)), "these differ from it: lm_head.weight"),
    "config of other sizes": (edit("ckpt/config.json", d_model=48), r"of another shape: .* instead of \[48"),
    "config of more layers": (edit("ckpt/config.json", encoder_layers=3), "missing: bart.encoder.layers.2"),
    "config of impossible sizes": (edit("ckpt/config.json", encoder_attention_heads=5), "no network has the config"),
    "config of wrong type": (edit("ckpt/config.json", d_model="wide"), "config.json: "),
    "config without codebooks": (
        lambda release: (release / "ckpt/config.json").write_text('{"d_model": 32}') and None,
        "not the configuration of a published EnCLAP, num_rvq",
    ),
    "codec of other sizes": (edit("codec/config.json", num_filters=8), "codec: .*published EnCodec.*of another shape"),
    "clap of other sizes": (edit("clap/preprocessor_config.json", feature_size=8), "8 mel bands, but the weights"),
    "more than tensors": (harmful, r"pytorch_model.bin: holds more than tensors \(it names [\w.]+, which could run"),
    "half a pickle": (cut("ckpt/pytorch_model.bin"), "pytorch_model.bin: (damaged|not a PyTorch)"),
    "half a safetensors": (cut("codec/model.safetensors"), "codec/model.safetensors: damaged or half a download"),
    "half a tokenizer": (cut("tokenizer.json"), "tokenizer.json: not a usable tokenizer"),
    "another tokenizer": (
        lambda release: (release / "tokenizer.json").write_text(foreign_tokenizer()) and None,
        "tokenizer.json: special tokens <s> 1, <pad> 0, </s> 2, but the model reads <s> 0, <pad> 1",
    ),
    "parts mixed up": (
        lambda release: (
            (release / "codec").rename(release / "x")
            and (release / "clap").rename(release / "codec")
            and (release / "x").rename(release / "clap")
            and None
        ),
        "codec: holds CLAP where EnCodec belongs",
    ),
    "no weights": (lambda release: (release / "clap/pytorch_model.bin").unlink(), "clap: holds no weights"),
}


def foreign_tokenizer() -> str:
    """A tokenizer whose special tokens have other ids."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "dog": 3}
    return str(Tokenizer(models.WordLevel(words, unk_token="<pad>")).to_str())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_and_leaves_nothing(enclap: Run, release: Path, tmp_path: Path, fault: str) -> None:
    import re
    import shutil

    apply, words = FAULTS[fault]
    copy = Path(shutil.copytree(release, tmp_path / "release"))
    apply(copy)
    parts = ("--codec", copy / "codec", "--clap", copy / "clap", "--tokenizer", copy / "tokenizer.json")
    done = enclap("models", "convert", copy / "ckpt", "--output", tmp_path / "new", *parts)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.search(words, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (copy / "trace").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_a_pickle_is_never_opened_without_the_restriction(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1), "extra": Harmful(tmp_path / "trace")}, tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "trace").exists(), "the harmful file does no harm, so this test proves nothing"
    (tmp_path / "trace").unlink()
    with pytest.raises(ModelError, match="holds more than tensors"):
        read_tensors(tmp_path / "a.pt")
    assert not (tmp_path / "trace").exists()


def test_objects_hidden_in_numpy_scalars_are_dropped(tmp_path: Path) -> None:
    """numpy.core.multiarray.scalar of an object type unpickles bytes; the stand-in must not."""
    import pickle
    import zipfile

    class Scalar:
        def __reduce__(self) -> tuple[object, ...]:
            scalar = np.float64(0).__reduce__()[0]
            return scalar, (np.dtype("O"), pickle.dumps(Harmful(tmp_path / "trace")))

    torch.save({"state_dict": {"weight": torch.ones(1)}, "best": Scalar()}, tmp_path / "a.pt")
    assert zipfile.is_zipfile(tmp_path / "a.pt")
    assert list(read_tensors(tmp_path / "a.pt")) == ["weight"]
    assert not (tmp_path / "trace").exists()


def test_a_full_disk_half_way_leaves_nothing(
    enclap: Run, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "export_folder", full)
    parts = ("--codec", release / "codec", "--clap", release / "clap", "--tokenizer", release / "tokenizer.json")
    done = enclap("models", "convert", release / "ckpt", "--output", tmp_path / "new", *parts)
    assert (done.returncode, done.stderr) == (
        3,
        f"enclap: {tmp_path / 'new'}: no room left on the disk; free some and try again\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_told_before_anything_is_written(
    enclap: Run, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    parts = ("--codec", release / "codec", "--clap", release / "clap", "--tokenizer", release / "tokenizer.json")
    done = enclap("models", "convert", release / "ckpt", "--output", tmp_path / "new", *parts)
    assert done.returncode == 3
    assert "no room on the disk: converting needs 0.00 GB" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_replaced(enclap: Run, release: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.txt").write_text("years of work")
    done = enclap("models", "convert", release / "ckpt", "--output", tmp_path / "new")
    assert (done.returncode, done.stderr) == (
        2,
        f"enclap: {tmp_path / 'new'}: exists already; give a new name, or remove it first\n",
    )
    assert (tmp_path / "new" / "thesis.txt").read_text() == "years of work"


def test_a_part_alone_is_converted_by_what_it_holds(enclap: Run, release: Path, tmp_path: Path) -> None:
    torch.save(published_encodec(), tmp_path / "encodec.th")
    for source, name in ((tmp_path / "encodec.th", "EnCodec"), (release / "clap", "CLAP")):
        done = enclap("models", "convert", source, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{name}: {tmp_path / name}\n"
        assert (tmp_path / name / "model.safetensors").is_file()
    assert not (tmp_path / "CLAP" / "tokenizer.json").exists()


def test_our_own_folder_needs_no_conversion(enclap: Run, tiny_model: Path, tmp_path: Path) -> None:
    done = enclap("models", "convert", tiny_model, "--output", tmp_path / "new")
    assert done.returncode == 3
    assert "is a model folder of this program already" in done.stderr


def test_the_golden_checkpoint_converts_whole(tmp_path: Path) -> None:
    """The published class's own tiny checkpoint: every one of its 109 tensors finds its place."""
    from enclap.convert.convert import convert_caption
    from reference_tiny import GOLDEN, reference_model

    save_tokenizer_of(tmp_path / "tokenizer.json", 128)
    convert_caption(GOLDEN, tmp_path, frame_rate=75.0)
    ours, found = reference_model().state_dict(), load_caption_model(tmp_path).state_dict()
    assert ours.keys() == found.keys()
    assert all(torch.equal(ours[name], found[name]) for name in ours)
    assert caption_tensors(tmp_path).keys() == load_file(GOLDEN / "model.safetensors").keys()


def save_tokenizer_of(path: Path, size: int) -> None:
    from tokenizers import Tokenizer, models

    words = {"<s>": 0, "<pad>": 1, "</s>": 2} | {f"word{number}": number for number in range(3, size)}
    Tokenizer(models.WordLevel(words, unk_token="word3")).save(str(path))


def test_configurations_as_transformers_4_wrote_them_are_read(tmp_path: Path) -> None:
    """The hub's files hold every default of their time, many of them settings that are gone."""
    from enclap.convert.published_sizes import clap_config, codec_config

    gone = {"_commit_hash": None, "torch_dtype": "float32", "transformers_version": "4.27.0.dev0", "pruned_heads": {}}
    gone |= {"bad_words_ids": None, "do_sample": False, "max_length": 20, "num_beams": 1, "use_bfloat16": False}
    audio = {"enable_fusion": True, "enable_patch_fusion": True, "fusion_type": "aff_2d", "fusion_num_hidden_layers": 2}
    text = {"num_hidden_layers": 12, "position_embedding_type": "absolute", "fusion_hidden_size": 768}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(gone | {"model_type": "clap", "audio_config": gone | audio, "text_config": gone | text}))
    config = clap_config(path, {}, text_tower=True)
    assert config.audio_config.enable_fusion and config.text_config.num_hidden_layers == 12
    assert clap_config(path, {}, text_tower=False).text_config.hidden_size == 4
    path.write_text(json.dumps(gone | {"model_type": "encodec", "target_bandwidths": [1.5, 24.0]}))
    assert codec_config(path, {}).num_quantizers == 32
