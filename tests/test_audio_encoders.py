"""Every audio encoder in the registry: embeddings of any batch, its graph, and folders that hold another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from enclap.errors import ModelError
from enclap.export.folder import export_clap
from enclap.export.graph_files import GraphFolder
from enclap.model.audio_encoder import AUDIO_ENCODERS, AudioEncoder, load_audio_encoder
from enclap.model.clap import Clap
from tiny import CLAPS, save_clap

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=AUDIO_ENCODERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clap/ of a model folder with a small network of each kind."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clap") / "clap"
    save_clap(path, request.param)
    return path


def crops(encoder: AudioEncoder, count: int) -> torch.Tensor:
    """Mel crops of seeded noise of several loudnesses."""
    generator = np.random.default_rng(count)
    clips = [generator.standard_normal(8000) * 10 ** -generator.uniform(0, 4) for _ in range(count)]
    return torch.from_numpy(np.concatenate([encoder.front_end.tower_input(clip.astype(np.float32)) for clip in clips]))


def test_every_encoder_has_a_small_one_for_the_tests() -> None:
    assert set(CLAPS) == set(AUDIO_ENCODERS)


@torch.inference_mode()
def test_embeddings_are_unit_vectors_that_do_not_depend_on_the_batch(folder: Path) -> None:
    encoder = load_audio_encoder(folder)
    mel = crops(encoder, 4)
    together = encoder.embed(mel)
    assert together.shape == (4, encoder.network.config.projection_dim) and together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4), atol=TOLERANCE, rtol=0)
    alone = torch.cat([encoder.embed(crop[None]) for crop in mel])
    torch.testing.assert_close(alone, together, atol=TOLERANCE, rtol=0)
    assert (together[0] - together[1]).norm() > 100 * TOLERANCE


@torch.inference_mode()
def test_the_graph_gives_the_embeddings_of_the_network(folder: Path, tmp_path: Path) -> None:
    clap = Clap.from_folder(folder)
    with GraphFolder(tmp_path / "onnx") as graphs:
        export_clap(clap, graphs)
    graph = onnxruntime.InferenceSession(tmp_path / "onnx" / "clap_audio.onnx")
    for count in (1, 3):
        mel = crops(clap.encoder, count)
        found = graph.run(None, {"mel": mel.numpy()})[0]
        np.testing.assert_allclose(found, clap.encoder.embed(mel).numpy(), rtol=0, atol=TOLERANCE)


def test_a_clip_in_several_crops_has_one_embedding(folder: Path) -> None:
    clap = Clap.from_folder(folder)
    mel = crops(clap.encoder, 3).numpy()
    whole = clap.embed_audio(mel)
    assert whole.shape == (clap.dim,) and abs(np.linalg.norm(whole) - 1) < TOLERANCE
    mean = np.mean([clap.embed_audio(crop[None]) for crop in mel], axis=0)
    np.testing.assert_allclose(whole, mean / np.linalg.norm(mean), atol=TOLERANCE)


def test_an_unknown_kind_is_named_with_those_that_are_known(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "someone_elses_clap"}))
    with pytest.raises(ModelError, match="'someone_elses_clap' is not known; this enclap reads clap and enclap_conv"):
        load_audio_encoder(tmp_path)
