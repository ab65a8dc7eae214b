"""Composed scenes to a feature store, in two steps that can run while CLAP is still in training.

First scenes are composed, encoded by the codec and kept as mel spectrograms (`prepare_scenes`); then the finished CLAP
embeds the spectrograms (`embed_scenes`). Each shard is written whole, so a run that was cut off goes on at the first
shard that is missing.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from enclap.audio.mel import MelFrontEnd
from enclap.audio.resample import resample
from enclap.data.feature_store import Clip, FeatureStore, StoreHeader, write_shard
from enclap.data.synthetic.grammar import canonical, describe
from enclap.data.synthetic.scenes import Scene, SceneComposer
from enclap.engines.onnx.codec import OnnxCodec
from enclap.engines.onnx.sessions import open_session
from enclap.hub.layout import Graph, graph_file
from enclap.model.clap import Clap
from enclap.types import Features, FloatArray, IntArray

logger = logging.getLogger(__name__)

SCENES_PER_SHARD = 250
EMBED_TOGETHER = 25


@dataclass(frozen=True)
class SceneShards:
    """A folder of prepared scenes: shard i holds scenes i * 250 up to (i + 1) * 250."""

    folder: Path
    scenes: int

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.scenes // SCENES_PER_SHARD)

    def numbers(self, shard: int) -> range:
        """The scenes of one shard."""
        return range(shard * SCENES_PER_SHARD, min(self.scenes, (shard + 1) * SCENES_PER_SHARD))

    def path(self, shard: int) -> Path:
        """The prepared scenes of one shard."""
        return self.folder / f"{shard:05d}.npz"


class ExportedCodec:
    """The codec as the runtime runs it: half the time of the same network in PyTorch. rate: samples per second."""

    def __init__(self, folder: Path) -> None:
        table = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.rate = int(table["sampling_rate"])
        hop = math.prod(table["upsampling_ratios"])
        graphs = [folder / graph_file(name) for name in (Graph.CODEC_LATENTS, Graph.CODEC_CODES)]
        latents, codes = (open_session(path, threads=1) for path in graphs)
        self._codec = OnnxCodec(latents, codes, hop=hop, segment=self.rate // hop)

    def encode(self, samples: FloatArray) -> IntArray:
        """Codes int64 [T, K] of samples float32 [N] at `rate`."""
        with ThreadPoolExecutor(1) as pool:
            stretches = [part.result() for part in self._codec.begin(samples, pool)]
        return self._codec.finish(np.concatenate(stretches, axis=1))


def prepare_shard(
    shards: SceneShards,
    shard: int,
    composer: SceneComposer,
    codec: ExportedCodec,
    front_end: MelFrontEnd,
    captions: int,
) -> None:
    """Compose the scenes of one shard and write their codes, mel spectrograms and descriptions."""
    path = shards.path(shard)
    if path.exists():
        return
    codes, mels, rows = [], [], []
    for number in shards.numbers(shard):
        scene = composer.draw(number)
        codes.append(codec.encode(resample(scene.waveform, codec.rate)))
        mels.append(front_end(resample(scene.waveform, front_end.rate)))
        rows.append(_description(scene, number, captions))
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        codes=np.concatenate(codes).astype(np.uint16),
        lengths=np.asarray([len(item) for item in codes]),
        mels=np.concatenate(mels),
        rows=np.frombuffer(json.dumps(rows).encode(), dtype=np.uint8),
    )
    temporary.replace(path)
    logger.info("%s: %d scenes", path, len(rows))


def _description(scene: Scene, number: int, captions: int) -> dict[str, object]:
    """What is kept of a scene beside its audio: several wordings, the preferred one first."""
    generator = np.random.default_rng((number, captions))
    wordings = [describe(scene.description, generator) for _ in range(captions)]
    return {
        "captions": list(dict.fromkeys([canonical(scene.description), *wordings]))[:captions],
        "labels": [sound.label for sound in scene.description.sounds],
        "seconds": scene.waveform.seconds,
    }


def embed_scenes(shards: SceneShards, output: Path, clap: Clap, header: StoreHeader) -> FeatureStore:
    """The feature store of all prepared shards, with CLAP's embeddings of their spectrograms."""
    output.mkdir(parents=True, exist_ok=True)
    for shard in range(shards.count):
        path = output / f"{shard:05d}.parquet"
        if not path.exists():
            write_shard(path, header, _embedded(shards, shard, _tower(clap)))
    return FeatureStore(output)


def _tower(clap: Clap) -> Callable[[FloatArray], FloatArray]:
    """A function from mels [C, T, M] to unit embeddings [C, E]."""

    @torch.inference_mode()
    def embed(mels: FloatArray) -> FloatArray:
        embeddings: FloatArray = clap.encoder.embed(torch.from_numpy(mels)[:, None]).numpy()
        return embeddings

    return embed


def _embedded(shards: SceneShards, shard: int, embed: Callable[[FloatArray], FloatArray]) -> Iterator[Clip]:
    with np.load(shards.path(shard)) as data:
        rows = json.loads(data["rows"].tobytes())
        codes = np.split(data["codes"].astype(np.int64), np.cumsum(data["lengths"])[:-1])
        mels = data["mels"]
    parts = [embed(mels[start : start + EMBED_TOGETHER]) for start in range(0, len(mels), EMBED_TOGETHER)]
    embeddings = np.concatenate(parts)
    for number, row, code, embedding in zip(shards.numbers(shard), rows, codes, embeddings, strict=True):
        name = f"{shards.folder.name}/{number}"
        yield Clip(name, Features(code, embedding), tuple(row["captions"]), tuple(row["labels"]), row["seconds"])
