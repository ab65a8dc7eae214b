"""The captioner's scenes, and their way into feature stores in two steps, of which the first does not need CLAP.

First scenes are composed, encoded by the codec and kept as mel spectrograms (`prepare_shard`); then the finished CLAP
embeds the spectrograms (`embed_scenes`). Each shard is written whole, so a run that was cut off goes on at the first
shard that is missing.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from enclap.audio.mel import MelFrontEnd
from enclap.audio.resample import resample
from enclap.data.feature_store import Clip, FeatureStore, StoreHeader, write_shard
from enclap.data.synthetic.grammar import canonical, describe
from enclap.data.synthetic.scenes import Scene, SceneComposer, SceneMix
from enclap.engines.onnx.codec import OnnxCodec
from enclap.engines.onnx.sessions import open_session
from enclap.errors import DataError
from enclap.files import replacement_path
from enclap.hub.layout import Graph, graph_file
from enclap.model.clap import Clap
from enclap.training.dataset import Perturbation
from enclap.training.mini.context import MiniRun
from enclap.training.mini.opinions import find_companions
from enclap.training.mini.rehearsal import Rehearsal
from enclap.training.recipe import Optimisation, Settings
from enclap.types import Features, FloatArray, IntArray

logger = logging.getLogger(__name__)

SCENES_PER_SHARD = 250
EMBED_TOGETHER = 25

FILLED = SceneMix(order=0.36, together=0.10, background=0.10, covered=0.08, three=0.10, filled=True)
"""Scenes like the windows of a long recording, half of them of several sounds in order."""
CLIP_PREFIXES = {"seen": "seen", "unseen": "unseen", "filled": "filled"}
"""How the names of a set's clips begin. Masks are drawn from these names: with others, the same recipe would train
another model than the one that ships."""


class CaptionRecipe(Settings):
    """The captioner: its scenes, its sizes as EnclapConfig names them, and its training.

    start: model folder of an earlier mini whose captioner goes on here, with its tokenizer, codec and CLAP; None for
    random weights. scenes: made of recordings that CLAP was trained on. unseen_scenes: made of others, which are drawn
    `unseen_weight` times as often, because CLAP knows its own recordings too well. rehearsal: what comes before the
    first phase, on embeddings alone; None for nothing. filled_scenes: of both, like the windows of a long recording;
    only `second_phase`, which goes on from the first phase's average, draws them, `filled_weight` times as often as the
    first. third_phase: goes on from the second's average with the same scenes, with a rate that rises and falls again
    (arXiv 1608.03983). captions: wordings of a scene.
    """

    vocabulary: int = Field(gt=300)
    scenes: int = Field(gt=0)
    unseen_scenes: int = Field(gt=0)
    unseen_weight: float = Field(gt=0)
    filled_scenes: int = Field(gt=0)
    filled_weight: float = Field(gt=0)
    captions: int = Field(default=3, gt=0)
    model: dict[str, Any]
    start: Path | None = None
    rehearsal: Rehearsal | None = None
    perturbation: Perturbation = Perturbation()
    second_phase_perturbation: Perturbation = Perturbation()
    optimisation: Optimisation
    second_phase: Optimisation
    third_phase: Optimisation


@dataclass(frozen=True)
class SceneSet:
    """Scenes of one kind and the folder of their shards: shard i holds scenes i * 250 up to (i + 1) * 250.

    captions: wordings of each scene.
    """

    name: str
    folder: Path
    count: int
    composer: SceneComposer
    captions: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // SCENES_PER_SHARD)

    def numbers(self, shard: int) -> range:
        """The scenes of one shard."""
        return range(shard * SCENES_PER_SHARD, min(self.count, (shard + 1) * SCENES_PER_SHARD))

    def path(self, shard: int) -> Path:
        """The prepared scenes of one shard."""
        return self.folder / f"{shard:05d}.npz"


def scene_sets(run: MiniRun) -> list[SceneSet]:
    """The captioner's sets of scenes: of recordings that CLAP was trained on, of others, and filled ones of both."""
    recipe = run.recipe(CaptionRecipe, "caption")
    known, companions = set(run.targets.label_names), find_companions(run)
    sets = []
    for name, count, numbers, mix in (
        ("seen", recipe.scenes, run.seen, SceneMix()),
        ("unseen", recipe.unseen_scenes, run.unseen, SceneMix()),
        ("filled", recipe.filled_scenes, [*run.seen, *run.unseen], FILLED),
    ):
        weights, seed = dict.fromkeys(numbers, 1.0), recipe.optimisation.seed
        composer = SceneComposer(run.corpus, weights, mix, seed, known, companions)
        sets.append(SceneSet(name, run.output / "scenes" / name, count, composer, recipe.captions))
    return sets


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
            segments = [part.result() for part in self._codec.begin(samples, pool)]
        return self._codec.finish(np.concatenate(segments, axis=1))


def prepare_shard(scenes: SceneSet, shard: int, codec: ExportedCodec, front_end: MelFrontEnd) -> None:
    """Compose the scenes of one shard and write their codes, mel spectrograms and descriptions."""
    path = scenes.path(shard)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    codes, mels, rows = [], [], []
    for number in scenes.numbers(shard):
        scene = scenes.composer.draw(number)
        codes.append(codec.encode(resample(scene.waveform, codec.rate)))
        mels.append(front_end(resample(scene.waveform, front_end.rate)))
        rows.append(scene_record(scene, number, scenes.captions))
    with replacement_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            codes=np.concatenate(codes).astype(np.uint16),
            lengths=np.asarray([len(item) for item in codes]),
            mels=np.concatenate(mels),
            rows=np.frombuffer(json.dumps(rows).encode(), dtype=np.uint8),
        )
    logger.info("%s: %d scenes", path, len(rows))


def scene_record(scene: Scene, number: int, captions: int) -> dict[str, object]:
    """What is kept of a scene beside its audio: several wordings, the preferred one first."""
    generator = np.random.default_rng((number, captions))
    wordings = [describe(scene.description, generator) for _ in range(captions)]
    return {
        "captions": list(dict.fromkeys([canonical(scene.description), *wordings]))[:captions],
        "labels": [sound.label for sound in scene.description.sounds],
        "seconds": scene.waveform.seconds,
    }


def embed_scenes(scenes: SceneSet, output: Path, clap: Clap, header: StoreHeader) -> FeatureStore:
    """The feature store of all prepared shards, with CLAP's embeddings of their spectrograms.

    DataError when some of it is there already, made with another codec or CLAP.
    """
    output.mkdir(parents=True, exist_ok=True)
    for shard in range(scenes.shards):
        path = output / f"{shard:05d}.parquet"
        if not path.exists():
            write_shard(path, header, embed_shard(scenes, shard, clap))
    store = FeatureStore(output)
    if store.header != header:
        raise DataError(f"{output}: made with another codec or CLAP; remove it and run this again")
    return store


def embed_shard(scenes: SceneSet, shard: int, clap: Clap) -> Iterator[Clip]:
    """The clips of one shard."""
    with np.load(scenes.path(shard)) as data:
        rows = json.loads(data["rows"].tobytes())
        codes = np.split(data["codes"].astype(np.int64), np.cumsum(data["lengths"])[:-1])
        mels = torch.from_numpy(data["mels"])[:, None]  # [C, 1, F, M]
    with torch.inference_mode():
        parts = [clap.encoder.embed(mels[at : at + EMBED_TOGETHER]) for at in range(0, len(mels), EMBED_TOGETHER)]
    embeddings: FloatArray = torch.cat(parts).numpy()
    for number, row, code, embedding in zip(scenes.numbers(shard), rows, codes, embeddings, strict=True):
        name = f"{CLIP_PREFIXES[scenes.name]}/{number}"
        yield Clip(name, Features(code, embedding), tuple(row["captions"]), tuple(row["labels"]), row["seconds"])
